"""Counts ended sessions and their minutes, by book, from the stream READING.

The events of a session contain its state in absolute values, and any of them can change
it: observations arrive late, an ended session can continue, and a reader can correct an
end. Therefore the program keeps one record for each session in a small SQLite file. An
event with a higher sequence overwrites the record, and the totals are sums of records.

A durable consumer stores the read position. The program writes the records first and
then acknowledges the events. After a crash at any moment, it resumes. While NATS is
unavailable, it retries. If NATS loses its disk, the program creates its consumer again,
receives all events once more, and skips the sequences that it knows.
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
SUBJECTS = "reading.sessions.>"

# Events that are fetched, recorded and acknowledged together.
BATCH_SIZE = 200

# Seconds until NATS redelivers an event that was not acknowledged.
ACK_WAIT = 5

# Seconds that a fetch waits for its first event.
FETCH_TIMEOUT = 1

# Seconds between an error and the next attempt.
RETRY_DELAY = 1


# The versions of each event that this program supports.
VERSIONS = {
    "started": {"v1"},
    "position_updated": {"v1", "v2"},
    "ended": {"v1", "v2", "v3"},
    "erased": {"v1"},
}


def kind(event):
    """The name of the event. Stops rather than miscount an unsupported type."""
    name, _, version = event["type"].removeprefix("reading.session.").rpartition(".")
    if version not in VERSIONS.get(name, ()):
        raise SystemExit(
            f"event {event['id']} has unsupported type {event['type']}; it was not counted"
        )
    return name


def milliseconds(time):
    """A time of an event as milliseconds since 1970, or None."""
    if time is None:
        return None
    return round(datetime.fromisoformat(time.replace("Z", "+00:00")).timestamp() * 1000)


class Sessions:
    """A record for each session, in a SQLite file."""

    def __init__(self, file):
        self.database = sqlite3.connect(file)
        self.database.executescript(
            """
            create table if not exists sessions (
                session text primary key,
                sequence integer not null,
                book_id text not null,
                -- The time of the start event. The first observation may precede it.
                start_ms integer not null,
                first_ms integer not null,
                -- Null while the session is active.
                end_ms integer
            ) without rowid;
            create index if not exists sessions_by_book on sessions (book_id);
            """
        )

    def record(self, events):
        """Records events and returns the books whose totals may have changed."""
        books = set()
        with self.database:
            for event in events:
                books.add(self.record_one(kind(event), event))
        return books - {None}

    def record_one(self, name, event):
        session, sequence, data = event["subject"], int(event["sequence"]), event["data"]
        known = self.database.execute(
            "select sequence, book_id, start_ms from sessions where session = ?", (session,)
        ).fetchone()
        last, book, start_ms = known or (0, None, None)
        if name == "erased":
            self.database.execute("delete from sessions where session = ?", (session,))
            return book
        if sequence <= last:
            return None
        if name == "started":
            book, start_ms = data["book_id"], milliseconds(data["started_at"])
            first_ms, end_ms = start_ms, start_ms if data.get("end_reason") else None
        elif name == "ended":
            book, first_ms = data["book_id"], milliseconds(data["started_at"])
            start_ms, end_ms = start_ms or first_ms, milliseconds(data["ended_at"])
        elif known is None:
            # The session was erased, and its start is overwritten.
            return None
        else:
            first_ms = milliseconds(data.get("started_at")) or start_ms
            end_ms = milliseconds(data.get("ended_at"))
        self.database.execute(
            "insert or replace into sessions values (?, ?, ?, ?, ?, ?)",
            (session, sequence, book, start_ms, first_ms, end_ms),
        )
        return book

    def print(self, books=None):
        """Prints one line of JSON for each book; `None` means all books."""
        totals = """
            select book_id, count(end_ms), sum(coalesce(end_ms - first_ms, 0)) from sessions
            group by book_id order by book_id
            """
        for book, sessions, ms in self.database.execute(totals):
            if books is None or book in books:
                line = {"book_id": book, "sessions": sessions, "minutes": ms / 60_000}
                print(json.dumps(line), flush=True)


async def report_error(error):
    print(f"NATS request failed: {error!r}; retrying", file=sys.stderr, flush=True)


async def consume(arguments, sessions):
    connection = await nats.connect(
        arguments.nats_url,
        # The inbox prefix of the user `analytics`; see nats/server.conf.
        inbox_prefix=b"_INBOX_analytics",
        max_reconnect_attempts=-1,
        error_cb=report_error,
    )
    while True:
        try:
            await follow(connection.jetstream(), arguments, sessions)
            break
        # NATS is unavailable, or it lost the stream, which the service restores.
        except (nats.errors.Error, asyncio.TimeoutError) as error:
            await report_error(error)
            await asyncio.sleep(RETRY_DELAY)
    sessions.print()
    await connection.close()


async def follow(jetstream, arguments, sessions):
    """Records events until NATS fails or, with --until-end, to the end of the stream."""
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
        changed = sessions.record(json.loads(message.data) for message in messages)
        for message in messages:
            await message.ack()
        if not arguments.until_end:
            sessions.print(changed)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--state", default="sessions.sqlite", help="SQLite file for the records")
    parser.add_argument("--durable", default="sessions-python", help="name of the durable consumer")
    parser.add_argument("--until-end", action="store_true", help="exit at the end of the stream")
    arguments = parser.parse_args()
    arguments.nats_url = os.environ.get("NATS_URL")
    if not arguments.nats_url:
        parser.error("set NATS_URL, for example nats://analytics:password@127.0.0.1:4222")
    # Ctrl-C ends the process at once; the state is consistent at any moment.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    asyncio.run(consume(arguments, Sessions(arguments.state)))


main()
