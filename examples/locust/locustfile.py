"""The load test of Reading Sessions for Locust: the same users, weights and pauses as
`reading-sessions load`.

Three in four users start, update and end sessions and read the history; one in four
requests the active session in bursts. Readers come from a file of tokens (`--tokens`), or
every user is a new reader whose token is signed with JWT_SECRET or JWT_SECRET_FILE.

The sessions are real. At the end, each user ends its session; `--erase` erases the data of
the new readers.
"""

import base64
import collections
import hashlib
import hmac
import json
import logging
import os
import random
import sys
import time
import urllib.error
import urllib.request
import uuid

from locust import FastHttpUser, between, events, task
from locust.exception import StopUser
from locust.runners import MasterRunner, WorkerRunner

API = "/api/v1/reading-sessions"

# Seconds until a request fails. The service itself gives up after 15 s.
REQUEST_TIMEOUT = 20

# Requests in a burst, and bursts until a burst user continues as another reader: the
# service allows a reader 30 such calls per minute.
BURST_SIZE = 5
BURSTS_PER_READER = 5

# Seconds that a signed token is valid.
TOKEN_LIFETIME = 86_400

# Attempts to end a session or to erase a reader after the run.
MAX_ATTEMPTS = 3

TOO_FEW_TOKENS = "the file has fewer tokens than there are users; add tokens, or lower --users"


class Reader:
    def __init__(self, token, reader_id=None):
        self.token = token
        # The id of a new reader.
        self.id = reader_id


class ListedReaders:
    """Readers whose tokens are in a file. A reader belongs to one user at a time."""

    def __init__(self, path):
        with open(path, encoding="utf-8") as file:
            lines = [line.strip() for line in file]
        tokens = [line for line in lines if line and not line.startswith("#")]
        self.free = collections.deque(Reader(token) for token in tokens)

    def take(self):
        return self.free.popleft() if self.free else None

    def give_back(self, reader):
        self.free.append(reader)


class NewReaders:
    """Readers that exist only for this run."""

    def __init__(self, secret):
        self.secret = secret
        self.created = []

    def take(self):
        reader_id = str(uuid.uuid4())
        reader = Reader(self.sign(reader_id), reader_id)
        self.created.append(reader)
        return reader

    def give_back(self, reader):
        pass

    def sign(self, subject):
        """An HS256 token with the claims that the service expects."""
        claims = {"sub": subject, "exp": int(time.time()) + TOKEN_LIFETIME, "type": "access"}
        for claim, variable in ("iss", "JWT_ISSUER"), ("aud", "JWT_AUDIENCE"):
            value = os.environ.get(variable)
            if value and value != "*":
                claims[claim] = value
        signed = f"{encode({'alg': 'HS256', 'typ': 'JWT'})}.{encode(claims)}"
        digest = hmac.digest(self.secret.encode(), signed.encode(), hashlib.sha256)
        return f"{signed}.{base64url(digest)}"


def encode(value):
    return base64url(json.dumps(value, separators=(",", ":")).encode())


def base64url(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def find_readers(options):
    """Readers from the options, or else from the environment."""
    if options.tokens:
        if options.erase:
            refuse("--erase would erase all data of existing readers; it needs JWT_SECRET")
        return ListedReaders(options.tokens)
    secret, file = os.environ.get("JWT_SECRET"), os.environ.get("JWT_SECRET_FILE")
    if not secret and file:
        with open(file, encoding="utf-8") as secret_file:
            secret = secret_file.read().strip()
    if not secret:
        refuse("readers need tokens: pass --tokens, or set JWT_SECRET or JWT_SECRET_FILE")
    return NewReaders(secret)


def refuse(reason):
    print(f"Error: {reason}", file=sys.stderr)
    sys.exit(2)


@events.init_command_line_parser.add_listener
def add_options(parser):
    group = parser.add_argument_group("Reading Sessions")
    group.add_argument(
        "--tokens", default="", env_var="LOCUST_TOKENS", help="File with tokens of readers, one per line"
    )
    group.add_argument(
        "--erase",
        action="store_true",
        env_var="LOCUST_ERASE",
        help="Erase all data of the new readers after the run",
    )
    for name, default, unit in (
        ("--max-error-percent", 1, "percent of requests that may fail; 0 allows none"),
        ("--max-p95", 100, "milliseconds that the 95th percentile must be below"),
        ("--max-p99", 200, "milliseconds that the 99th percentile must be below"),
    ):
        group.add_argument(name, type=float, default=default, help=f"Criterion: {unit}")


@events.init.add_listener
def prepare(environment, **_):
    # Users complete the request in progress, so that they know their session.
    environment.stop_timeout = environment.stop_timeout or REQUEST_TIMEOUT
    if isinstance(environment.runner, MasterRunner):
        return
    options = environment.parsed_options
    if options.tokens and isinstance(environment.runner, WorkerRunner):
        refuse("--tokens needs a single process: several would use the same readers")
    environment.readers = find_readers(options)
    if options.headless and isinstance(environment.readers, ListedReaders):
        if len(environment.readers.free) < (options.num_users or 1):
            refuse(TOO_FEW_TOKENS)


class ReadingSessionsUser(FastHttpUser):
    abstract = True
    network_timeout = REQUEST_TIMEOUT
    connection_timeout = REQUEST_TIMEOUT
    max_redirects = 0
    insecure = False

    def on_start(self):
        self.session = None
        self.position = 0
        self.reader = self.environment.readers.take()
        if self.reader is None:
            # The web interface can start more users at any time.
            logging.error(TOO_FEW_TOKENS)
            self.environment.process_exit_code = 2
            raise StopUser

    def on_stop(self):
        if self.session:
            body = {"end_position": self.position}
            send_unrecorded(self.host, self.reader, "PUT", f"/{self.session}/end", body)
            self.session = None
        if self.reader:
            self.environment.readers.give_back(self.reader)

    def call(self, name, method, path, body=None):
        """Sends a request. Returns the JSON of a successful response."""
        headers = {"Authorization": f"Bearer {self.reader.token}"}
        with self.client.request(
            method, API + path, name=name, json=body, headers=headers, catch_response=True
        ) as response:
            status = response.status_code
            if 200 <= status < 300:
                try:
                    return response.json()
                except ValueError:
                    response.failure(f"{status} without JSON")
            elif status:
                response.failure(f"{status} {problem_code(response)}".strip())
                # An app forgets a session that the service refuses.
                if status in (400, 404):
                    self.session = None
        return None

    def start_session(self):
        body = {"book_id": str(uuid.uuid4()), "device_type": "mobile"}
        session = self.call("start", "POST", "/start", body)
        if session:
            self.session = session["id"]
            self.position = 0

    def end_session(self):
        body = {"end_position": self.position}
        if self.call("end", "PUT", f"/{self.session}/end", body):
            self.session = None


def problem_code(response):
    try:
        return response.json()["code"]
    except (ValueError, KeyError, TypeError):
        return ""


class ReadingSessionUser(ReadingSessionsUser):
    """Reads. Without a session it starts one instead of an update or an end, as an app would."""

    weight = 3
    wait_time = between(5, 10)

    @task(30)
    def open_book(self):
        self.start_session()

    @task(50)
    def turn_page(self):
        if not self.session:
            return self.start_session()
        self.position = (self.position + 1) % 100
        self.call("update", "PUT", f"/{self.session}/update", {"current_position": self.position})

    @task(10)
    def close_book(self):
        if not self.session:
            return self.start_session()
        self.end_session()

    @task(10)
    def read_history(self):
        self.call("history", "GET", "/history")


class BurstUser(ReadingSessionsUser):
    """Requests the active session in bursts, and continues as another reader before the
    rate limit of the first one."""

    weight = 1
    wait_time = between(1, 2)

    def on_start(self):
        super().on_start()
        self.bursts = 0

    @task
    def burst(self):
        if self.bursts == BURSTS_PER_READER:
            self.continue_as_another_reader()
        if not self.session:
            return self.start_session()
        self.bursts += 1
        for _ in range(BURST_SIZE):
            self.call("active", "GET", "/active")

    def continue_as_another_reader(self):
        if self.session:
            self.end_session()
        self.environment.readers.give_back(self.reader)
        self.reader = self.environment.readers.take()
        self.session = None
        self.bursts = 0


def send_unrecorded(host, reader, method, path, body=None):
    """Sends a request that is not part of the statistics. Returns whether it succeeded."""
    request = urllib.request.Request(host + API + path, method=method)
    request.add_header("Authorization", f"Bearer {reader.token}")
    if body is not None:
        request.add_header("Content-Type", "application/json")
        request.data = json.dumps(body).encode()
    for attempt in range(1, MAX_ATTEMPTS + 1):
        try:
            with urllib.request.urlopen(request, timeout=REQUEST_TIMEOUT):
                return True
        except urllib.error.HTTPError as error:
            # The session has ended already.
            if error.code in (400, 404):
                return True
            cause = error
        except OSError as error:
            cause = error
        if attempt < MAX_ATTEMPTS:
            time.sleep(random.uniform(0.5, 1.5))
    logging.warning("%s after the run failed: %s", method, cause)
    return False


@events.test_stop.add_listener
def erase_readers(environment, **_):
    readers = getattr(environment, "readers", None)
    if not isinstance(readers, NewReaders) or not readers.created:
        return
    count = len(readers.created)
    if not environment.parsed_options.erase:
        logging.info("The sessions of %d new readers remain in the service; --erase removes them", count)
        return
    erased = 0
    for reader in readers.created:
        erased += send_unrecorded(environment.host, reader, "DELETE", f"?confirm={reader.id}")
    readers.created.clear()
    logging.info("Erased all data of %d of %d new readers", erased, count)


@events.quitting.add_listener
def check_criteria(environment, **_):
    """Sets the exit code: 0 all criteria are met, 1 a criterion is not met, 2 no run."""
    if isinstance(environment.runner, WorkerRunner) or environment.process_exit_code:
        return
    options, total = environment.parsed_options, environment.stats.total
    if not total.num_requests:
        logging.error("no request was sent")
        environment.process_exit_code = 2
        return
    errors = 100 * total.fail_ratio
    p95, p99 = (total.get_response_time_percentile(share) for share in (0.95, 0.99))
    results = [
        ("errors", errors, options.max_error_percent, "%", not errors or errors < options.max_error_percent),
        ("p95", p95, options.max_p95, "ms", p95 < options.max_p95),
        ("p99", p99, options.max_p99, "ms", p99 < options.max_p99),
    ]
    for name, value, limit, unit, is_met in results:
        logging.info(
            "%s %.2f %s, limit < %g %s: %s", name, value, unit, limit, unit, "met" if is_met else "NOT MET"
        )
    limited = sum(error.occurrences for error in environment.stats.errors.values() if "429" in str(error.error))
    if limited:
        logging.warning("%d requests failed with 429: rate limits apply to each reader", limited)
    is_met = all(is_met for *_, is_met in results) and not environment.runner.exceptions
    environment.process_exit_code = 0 if is_met else 1
