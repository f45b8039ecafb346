"""What a schema cannot say of good requests.

A schema says that a cursor is a string; that it comes from the page before, it
cannot. Here, values that fit the schema are replaced by ones that also fit the
service, so that a good request that is refused is a defect. Bad requests stay
as they are made. Nothing is here for the service's comfort: what the
description could say belongs there.
"""

import datetime
import os
import re
import secrets
import time
import uuid

import requests
import schemathesis
from schemathesis.core.failures import AcceptedNegativeData
from schemathesis.core.parameters import ParameterLocation
from schemathesis.generation.meta import TestPhase
from schemathesis.openapi.checks import RejectedPositiveData

SESSIONS = os.environ["BASE_URL"] + "/api/v1/reading-sessions"
READER = {"Authorization": "Bearer " + os.environ["TOKEN"]}
BOOK = "0193e5a0-0000-7000-8000-000000000042"

TIME_ZONES = ["UTC", "Europe/Berlin", "Asia/Kathmandu", "America/St_Johns", "Pacific/Apia"]

# The date of a date-time; what follows it, the time and the offset, is kept.
DATE = re.compile(r"^\d{4}-\d{2}-\d{2}(?=[Tt ])")


def ask(method: str, path: str, **arguments) -> requests.Response:
    answer = requests.request(method, SESSIONS + path, headers=READER, timeout=10, **arguments)
    answer.raise_for_status()
    return answer


def start() -> requests.Response:
    return ask("POST", "/start", json={"book_id": BOOK})


def active_session() -> str:
    """A session that can be updated and ended, as most generated ids cannot."""
    return (ask("GET", "/active", params={"min_position": reached}).json() or start().json())["id"]


# A position that the log has reached, so that no query waits for one in vain.
reached = int(start().headers["x-global-position"])

used_keys = set()
started = set()


@schemathesis.hook
def after_call(context, case, response):
    if response.status_code == 201:
        started.add(response.json()["id"])


@schemathesis.hook
def before_call(context, case, kwargs):
    """What is good of a request by its schema is made good for the service; as
    late as this, since what is good depends on the requests before."""
    if is_good(case, ParameterLocation.PATH) and "id" in case.path_parameters:
        # A scenario goes on with the session that it started.
        goes_on = case.meta is not None and case.meta.phase.name == TestPhase.STATEFUL
        if not (goes_on and case.path_parameters["id"] in started):
            case.path_parameters["id"] = active_session()
    if is_good(case, ParameterLocation.HEADER) and "Idempotency-Key" in case.headers:
        # A key that was used for one command is refused for another.
        if case.headers["Idempotency-Key"] in used_keys:
            case.headers["Idempotency-Key"] = str(uuid.uuid4())
        used_keys.add(case.headers["Idempotency-Key"])
    if is_good(case, ParameterLocation.QUERY) and "cursor" in case.query:
        set_cursor(case.query)
    # Also beside something bad: waiting for what never comes tells nothing.
    min_position = str(case.query.get("min_position"))
    if re.fullmatch("[0-9]+", min_position) and reached < int(min_position) < 2**63:
        case.query["min_position"] = reached
    if is_good(case, ParameterLocation.BODY) and isinstance(case.body, dict):
        case.body = good_body(case.body)


def is_good(case, location: ParameterLocation) -> bool:
    return case.meta is None or not case.meta.is_negative_at(location)


def set_cursor(query: dict) -> None:
    """A cursor is good for its own list alone: for one reader and filter."""
    book = {name: query[name] for name in ["book_id"] if name in query}
    page = ask("GET", "/history", params={"page_size": 1, **book}).json()
    if page["next_cursor"] is None:
        del query["cursor"]
    else:
        query["cursor"] = page["next_cursor"]


def good_body(body: dict) -> dict:
    """A body of a command, its values such as the service can take them."""
    body = {name: without_nul(value) for name, value in body.items()}
    if isinstance(body.get("occurred_at"), str):
        # At most 30 days ago, and at most a day ahead.
        today = datetime.datetime.now(datetime.timezone.utc).date()
        day = today - datetime.timedelta(days=2)
        body["occurred_at"] = DATE.sub(day.isoformat(), body["occurred_at"])
    if isinstance(body.get("time_zone"), str):
        body["time_zone"] = TIME_ZONES[len(body["time_zone"]) % len(TIME_ZONES)]
    if isinstance(body.get("session_id"), str):
        # Of a start, a new one; of a batch's update, one that there is.
        body["session_id"] = active_session() if "current_position" in body else uuid7()
    if isinstance(body.get("updates"), list):
        body["updates"] = [good_body(update) for update in body["updates"]]
    return body


def without_nul(value):
    """Postgres has no text with a NUL."""
    if isinstance(value, str):
        return value.replace("\0", "0")
    if isinstance(value, dict):
        return {name: without_nul(inner) for name, inner in value.items()}
    return value


def uuid7() -> str:
    """RFC 9562, version 7: milliseconds, and chance."""
    value = time.time_ns() // 1_000_000 << 80 | secrets.randbits(80)
    value = value & ~(0xF << 76) | 0x7 << 76
    value = value & ~(0x3 << 62) | 0x2 << 62
    return str(uuid.UUID(int=value))


@schemathesis.hook
def filter_failure(context, failure, case, response):
    """The promises that no schema can tell; everything else is a failure."""
    operation = case.operation.definition.raw.get("operationId")
    if isinstance(failure, (AcceptedNegativeData, RejectedPositiveData)) and response.status_code == 413:
        # How long a whole body may be, good or bad, no schema of its parts says.
        return int(response.request.headers["Content-Length"]) <= 64 * 1024
    if isinstance(failure, RejectedPositiveData) and operation == "erase":
        # The id of the reader who asks confirms it, and no other UUID. Nobody
        # gives the right one here: it would erase what the run rests on.
        return response.status_code != 422 or not response.json()["detail"].startswith("confirm: ")
    if isinstance(failure, RejectedPositiveData) and response.status_code == 400:
        # A session that ended during a scenario cannot be updated, nor end
        # again: the request is good, and too late.
        too_late = {
            "update": "Cannot update inactive session",
            "end": "Session already ended",
        }
        return response.json()["detail"] != too_late.get(operation)
    if isinstance(failure, AcceptedNegativeData) and operation == "batchUpdate":
        # One bad update of a batch never blocks another: the batch is taken,
        # and the answer says which of them was not.
        only_body = all(
            is_good(case, location)
            for location in (ParameterLocation.QUERY, ParameterLocation.HEADER)
        )
        return not (only_body and response.json()["failed_count"] > 0)
    return True
