"""Readers that send commands, and a ledger of everything that was acknowledged.

A command is repeated with its Idempotency-Key until the service acknowledges it, as an
app does. Each observation of a session has another position, so that the log shows which
command caused which event.
"""

import http.client
import random
import threading
import time
from dataclasses import dataclass, field

from client import READING, Client, new_id, token

COUNT = 30
# A reader turns a page about once a second.
THINK_SECONDS = (0.4, 1.4)
# An app gives up at some time; here that is a fault.
GIVE_UP_SECONDS = 120
UPDATES = (5, 10)


@dataclass
class Attempt:
    """One request, also if it was refused. `status` 0: there was no response."""

    at: float
    seconds: float
    status: int
    retry_after: bool
    code: str


@dataclass
class Session:
    """What the service acknowledged of one session: its events, in this order."""

    id: str
    book: str
    events: list = field(default_factory=list)

    @property
    def position(self):
        return next(p for _, p in reversed(self.events) if p is not None)

    @property
    def reason(self):
        return {"end": "finished", "supersede": "superseded"}.get(self.events[-1][0])


class Reader:
    """One reader with one device. Its state lasts from one fault to the next."""

    def __init__(self, number, port, secret):
        self.id = new_id()
        self.client = Client(port, token(secret, self.id), f"203.0.113.{number + 1}")
        self.random = random.Random(number)
        self.sessions = []
        self.faults = []
        self.attempts = []
        self.replayed = 0
        # The global position of the last acknowledged command, for `min_position`.
        self.seen = None

    @property
    def active(self):
        last = self.sessions[-1] if self.sessions else None
        return last if last and last.reason is None else None

    def run(self, stop):
        """Reads until `stop` is set; then no command is without acknowledgement."""
        try:
            while not stop.is_set():
                self.step()
                stop.wait(self.random.uniform(*THINK_SECONDS))
        except Exception as error:  # The thread ends, and the ledger reports it.
            self.faults.append(f"reader {self.id} stopped: {error!r}")

    def step(self):
        session = self.active
        count = len(session.events) if session else 0
        if session is None or count > self.random.randint(*UPDATES):
            # One session in four is not ended: the next start supersedes it.
            if session and self.random.random() < 0.75:
                return self.end(session)
            return self.start(session)
        if self.random.random() < 0.25:
            path = self.random.choice([f"{READING}/active", f"{READING}/history", f"{READING}/stats/weekly"])
            return self.attempt("GET", path, None, None)
        return self.update(session, 0.5 * count)

    def start(self, superseded):
        book = new_id()
        response = self.command("POST", f"{READING}/start",
                                {"book_id": book, "start_position": 0, "device_type": "tablet"})
        if response is None:
            return
        if superseded:
            superseded.events.append(("supersede", None))
        session = Session(response.body["id"], book)
        self.sessions.append(session)
        self.acknowledged(session, "start", 0, response)

    def update(self, session, position):
        response = self.command("PUT", f"{READING}/{session.id}/update",
                                {"current_position": position})
        if response is not None:
            self.acknowledged(session, "update", position, response)

    def end(self, session):
        response = self.command("PUT", f"{READING}/{session.id}/end",
                                {"end_position": session.position + 0.25})
        if response is not None:
            self.acknowledged(session, "end", session.position + 0.25, response)

    def acknowledged(self, session, kind, position, response):
        session.events.append((kind, position))
        self.seen = response.headers["x-global-position"]
        if response.body["version"] != len(session.events):
            self.faults.append(
                f"session {session.id} has version {response.body['version']} "
                f"after {len(session.events)} acknowledged events")

    def command(self, method, path, body):
        key, until = new_id(), time.monotonic() + GIVE_UP_SECONDS
        while time.monotonic() < until:
            response = self.attempt(method, path, body, key)
            if response is not None and response.status < 300:
                self.replayed += "idempotent-replayed" in response.headers
                return response
            if response is not None and response.status not in (503, 429, 409):
                break
            time.sleep(0.5 if response is None else float(response.headers.get("retry-after", 1)))
        self.faults.append(f"{method} {path} was never acknowledged")
        return None

    def attempt(self, method, path, body, key):
        started = time.monotonic()
        try:
            response = self.client.call(method, path, body, key)
        except (OSError, http.client.HTTPException) as error:
            seconds = time.monotonic() - started
            self.attempts.append(Attempt(started, seconds, 0, False, type(error).__name__))
            return None
        code = response.body.get("code", "") if isinstance(response.body, dict) else ""
        self.attempts.append(Attempt(started, response.seconds, response.status,
                                     "retry-after" in response.headers, code))
        return response


class Traffic:
    """Lets all readers read for the time of a `with` block."""

    def __init__(self, readers):
        self.readers = readers
        self.stop = threading.Event()
        self.threads = []

    def __enter__(self):
        for reader in self.readers:
            reader.attempts = []
        self.threads = [threading.Thread(target=reader.run, args=(self.stop,), daemon=True)
                        for reader in self.readers]
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self.stop.set()
        for thread in self.threads:
            thread.join(GIVE_UP_SECONDS + 60)
        if any(thread.is_alive() for thread in self.threads):
            raise RuntimeError("a reader did not stop")

    def attempts(self, since):
        """The requests that were in progress at that time, or began later."""
        found = [a for reader in self.readers for a in reader.attempts if a.at + a.seconds >= since]
        return sorted(found, key=lambda attempt: attempt.at)
