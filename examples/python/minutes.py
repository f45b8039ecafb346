"""Counts finished sessions and their minutes, by book, from the stream READING.

A durable consumer remembers how far this program has come, and a small SQLite
file what it has counted. What is counted is counted once: an event's id and its
effect are written in one transaction, and the event is acknowledged after it.
Killed at any moment, it goes on where it was, and it waits for a NATS that is
away. One that lost its disk has lost the consumer too: it is made again, and all
events come once more.
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

# Events taken, counted and acknowledged together.
BATCH = 50

# After so many seconds without an acknowledgement an event comes again.
ACK_WAIT = 5

# How long a request for events waits for the first.
PATIENCE = 1

# How long NATS is left alone after an error.
PAUSE = 1


def elapsed_ms(event):
    """How long the session was open; version 1 left that to be reckoned."""
    data = event["data"]
    if event["type"] == "reading.session.ended.v1":
        times = (data["started_at"], data["ended_at"])
        started, ended = (datetime.fromisoformat(time.replace("Z", "+00:00")) for time in times)
        return round((ended - started).total_seconds() * 1000)
    if event["type"] == "reading.session.ended.v2":
        return data["elapsed_ms"]
    # Better to stop than to count what is not understood.
    raise SystemExit(f"{event['type']} is not known; {event['id']} was not counted")


class Counts:
    """What was counted, in a file."""

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
        """Counts events that were not counted before; returns their books."""
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

    def show(self, books=None):
        """Prints a line of JSON for each book."""
        for book, sessions, ms in self.database.execute("select * from books order by book_id"):
            if books is None or book in books:
                line = {"book_id": book, "sessions": sessions, "minutes": ms / 60_000}
                print(json.dumps(line), flush=True)


async def trouble(error):
    print(f"NATS: {error!r}; trying again", file=sys.stderr, flush=True)


async def consume(arguments, counts):
    connection = await nats.connect(
        arguments.nats_url,
        # Where a user of its own may listen; see nats/server.conf.
        inbox_prefix=b"_INBOX_analytics",
        max_reconnect_attempts=-1,
        error_cb=trouble,
    )
    while True:
        try:
            await follow(connection.jetstream(), arguments, counts)
            break
        # NATS is away, or it lost the stream, which the service makes again.
        except (nats.errors.Error, asyncio.TimeoutError) as error:
            await trouble(error)
            await asyncio.sleep(PAUSE)
    counts.show()
    await connection.close()


async def follow(jetstream, arguments, counts):
    """Counts until NATS fails, or to the stream's end if that is wanted."""
    consumer = ConsumerConfig(
        name=arguments.durable,
        durable_name=arguments.durable,
        filter_subject=SUBJECTS,
        ack_policy=AckPolicy.EXPLICIT,
        ack_wait=ACK_WAIT,
    )
    # Makes it, unless there is one.
    await jetstream.add_consumer(STREAM, consumer)
    subscription = await jetstream.pull_subscribe_bind(arguments.durable, STREAM)
    while True:
        try:
            messages = await subscription.fetch(BATCH, timeout=PATIENCE)
        # There was nothing, or NATS did not answer; that shows now.
        except asyncio.TimeoutError:
            state = await subscription.consumer_info()
            if arguments.until_end and state.num_pending == state.num_ack_pending == 0:
                return
            continue
        changed = counts.count(json.loads(message.data) for message in messages)
        for message in messages:
            await message.ack()
        if not arguments.until_end:
            counts.show(changed)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--state", default="minutes.sqlite", help="where the counts are kept")
    parser.add_argument("--durable", default="minutes-python", help="the consumer's name")
    parser.add_argument("--until-end", action="store_true", help="stop at the stream's end")
    arguments = parser.parse_args()
    arguments.nats_url = os.environ.get("NATS_URL")
    if not arguments.nats_url:
        parser.error("set NATS_URL, for example nats://analytics:password@127.0.0.1:4222")
    # Ctrl-C may come at any moment, as a kill may.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    asyncio.run(consume(arguments, Counts(arguments.state)))


main()
