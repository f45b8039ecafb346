"""Counts finished sessions and their minutes, by book, from the stream READING.

A durable consumer stores the read position, and a small SQLite file the totals.
Each event counts once: its id and its effect are written in one transaction, and
the event is acknowledged afterwards. After a crash at any moment, the program
resumes. While NATS is unavailable, it retries. If NATS loses its disk, the program
creates its consumer again, receives all events once more, and skips known ids.
"""

import argparse
import asyncio
import json
import os
import signal
import sqlite3
import sys
from datetime import datetime

import nats
from nats.js.api import AckPolicy, ConsumerConfig

STREAM = "READING"
SUBJECTS = "reading.sessions.ended.*"

# Events that are fetched, counted and acknowledged together.
BATCH_SIZE = 50

# Seconds until NATS redelivers an event that was not acknowledged.
ACK_WAIT = 5

# Seconds that a fetch waits for its first event.
FETCH_TIMEOUT = 1

# Seconds between an error and the next attempt.
RETRY_DELAY = 1


def elapsed_ms(event):
    """Milliseconds for which the session was open. Version 1 does not contain them."""
    data = event["data"]
    if event["type"] == "reading.session.ended.v1":
        times = (data["started_at"], data["ended_at"])
        started, ended = (datetime.fromisoformat(time.replace("Z", "+00:00")) for time in times)
        return round((ended - started).total_seconds() * 1000)
    if event["type"] == "reading.session.ended.v2":
        return data["elapsed_ms"]
    # Stop rather than miscount an event of an unsupported type.
    raise SystemExit(f"event {event['id']} has unsupported type {event['type']}; it was not counted")


class Totals:
    """The totals and the ids of counted events, in a SQLite file."""

    def __init__(self, file):
        self.database = sqlite3.connect(file)
        self.database.executescript(
            """
            create table if not exists counted (event text primary key) without rowid;
            create table if not exists books (
                book_id text primary key, sessions integer not null, ms integer not null
            );
            """
        )

    def count(self, events):
        """Counts new events and returns the books whose totals changed."""
        books = set()
        with self.database:
            for event in events:
                new = "insert into counted values (?) on conflict do nothing"
                if self.database.execute(new, (event["id"],)).rowcount == 0:
                    continue
                book = event["data"]["book_id"]
                self.database.execute(
                    """
                    insert into books values (?, 1, ?) on conflict do update
                    set sessions = sessions + 1, ms = ms + excluded.ms
                    """,
                    (book, elapsed_ms(event)),
                )
                books.add(book)
        return books

    def print(self, books=None):
        """Prints one line of JSON for each book; `None` means all books."""
        for book, sessions, ms in self.database.execute("select * from books order by book_id"):
            if books is None or book in books:
                line = {"book_id": book, "sessions": sessions, "minutes": ms / 60_000}
                print(json.dumps(line), flush=True)


async def report_error(error):
    print(f"NATS request failed: {error!r}; retrying", file=sys.stderr, flush=True)


async def consume(arguments, totals):
    connection = await nats.connect(
        arguments.nats_url,
        # The inbox prefix of the user `analytics`; see nats/server.conf.
        inbox_prefix=b"_INBOX_analytics",
        max_reconnect_attempts=-1,
        error_cb=report_error,
    )
    while True:
        try:
            await follow(connection.jetstream(), arguments, totals)
            break
        # NATS is unavailable, or it lost the stream, which the service restores.
        except (nats.errors.Error, asyncio.TimeoutError) as error:
            await report_error(error)
            await asyncio.sleep(RETRY_DELAY)
    totals.print()
    await connection.close()


async def follow(jetstream, arguments, totals):
    """Counts events until NATS fails or, with --until-end, to the end of the stream."""
    consumer = ConsumerConfig(
        name=arguments.durable,
        durable_name=arguments.durable,
        filter_subject=SUBJECTS,
        ack_policy=AckPolicy.EXPLICIT,
        ack_wait=ACK_WAIT,
    )
    # Creates the consumer if it does not exist.
    await jetstream.add_consumer(STREAM, consumer)
    subscription = await jetstream.pull_subscribe_bind(arguments.durable, STREAM)
    while True:
        try:
            messages = await subscription.fetch(BATCH_SIZE, timeout=FETCH_TIMEOUT)
        # Either no event arrived or NATS did not respond. If NATS is unavailable, the
        # next request fails.
        except asyncio.TimeoutError:
            state = await subscription.consumer_info()
            if arguments.until_end and state.num_pending == state.num_ack_pending == 0:
                return
            continue
        changed = totals.count(json.loads(message.data) for message in messages)
        for message in messages:
            await message.ack()
        if not arguments.until_end:
            totals.print(changed)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--state", default="minutes.sqlite", help="SQLite file for the totals")
    parser.add_argument("--durable", default="minutes-python", help="name of the durable consumer")
    parser.add_argument("--until-end", action="store_true", help="exit at the end of the stream")
    arguments = parser.parse_args()
    arguments.nats_url = os.environ.get("NATS_URL")
    if not arguments.nats_url:
        parser.error("set NATS_URL, for example nats://analytics:password@127.0.0.1:4222")
    # Ctrl-C ends the process at once; the state is consistent at any moment.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    asyncio.run(consume(arguments, Totals(arguments.state)))


main()
