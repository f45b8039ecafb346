"""Requirements on requests that a JSON Schema cannot express.

A schema can require that a cursor is a string, but not that it comes from the
previous page. These hooks replace valid values with values that the service also
accepts, so that a rejected valid request is a defect. Invalid values stay as
generated. Constraints that the OpenAPI document can express belong there, not here.
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

# The date of a date-time; the time and the offset after it stay unchanged.
DATE = re.compile(r"^\d{4}-\d{2}-\d{2}(?=[Tt ])")


def call(method: str, path: str, **arguments) -> requests.Response:
    response = requests.request(method, SESSIONS + path, headers=READER, timeout=10, **arguments)
    response.raise_for_status()
    return response


def start() -> requests.Response:
    return call("POST", "/start", json={"book_id": BOOK})


def ended_session() -> str:
    """The id of a session of an hour that can be corrected."""
    session_id = uuid7()
    started_at = now() - datetime.timedelta(hours=2)
    ended_at = started_at + datetime.timedelta(hours=1)
    body = {"session_id": session_id, "book_id": BOOK}
    call("POST", "/start", json={**body, "occurred_at": started_at.isoformat()})
    call("PUT", f"/{session_id}/end", json={"occurred_at": ended_at.isoformat()})
    return session_id


def now() -> datetime.datetime:
    return datetime.datetime.now(datetime.timezone.utc)


def active_session() -> str:
    """The id of a session that can be updated and ended; generated ids match none."""
    return (call("GET", "/active", params={"min_position": reached_position}).json() or start().json())["id"]


# A global position that the log has reached, so that no query waits until its timeout.
reached_position = int(start().headers["x-global-position"])

used_keys = set()
started_sessions = set()


@schemathesis.hook
def after_call(context, case, response):
    if response.status_code == 201:
        started_sessions.add(response.json()["id"])


@schemathesis.hook
def before_call(context, case, kwargs):
    """Replaces values that are valid by the schema with values that the service
    accepts. This runs just before the call, because they depend on earlier requests."""
    operation = case.operation.definition.raw.get("operationId")
    if is_valid(case, ParameterLocation.PATH) and "id" in case.path_parameters:
        # A scenario continues with the session that it started.
        is_scenario = case.meta is not None and case.meta.phase.name == TestPhase.STATEFUL
        if operation == "correct":
            case.path_parameters["id"] = ended_session()
        elif not (is_scenario and case.path_parameters["id"] in started_sessions):
            case.path_parameters["id"] = active_session()
    if is_valid(case, ParameterLocation.HEADER) and "Idempotency-Key" in case.headers:
        # The service rejects a key that was used for another command.
        if case.headers["Idempotency-Key"] in used_keys:
            case.headers["Idempotency-Key"] = str(uuid.uuid4())
        used_keys.add(case.headers["Idempotency-Key"])
    if is_valid(case, ParameterLocation.QUERY) and "cursor" in case.query:
        set_cursor(case.query)
    # Also in requests with invalid values: a wait that only times out tests nothing.
    min_position = str(case.query.get("min_position"))
    if re.fullmatch("[0-9]+", min_position) and reached_position < int(min_position) < 2**63:
        case.query["min_position"] = reached_position
    if is_valid(case, ParameterLocation.BODY) and isinstance(case.body, dict):
        valid = {"sync": valid_sync, "correct": valid_correction}.get(operation, valid_body)
        case.body = valid(case.body)


def is_valid(case, location: ParameterLocation) -> bool:
    return case.meta is None or not case.meta.is_negative_at(location)


def set_cursor(query: dict) -> None:
    """Sets a cursor of the same reader and filter; the service accepts no other."""
    book = {name: query[name] for name in ["book_id"] if name in query}
    page = call("GET", "/history", params={"page_size": 1, **book}).json()
    if page["next_cursor"] is None:
        del query["cursor"]
    else:
        query["cursor"] = page["next_cursor"]


def valid_body(body: dict) -> dict:
    """The body of a command, with values that the service accepts."""
    body = dict(body)
    for time_of in ["occurred_at", "started_at"]:
        if isinstance(body.get(time_of), str):
            # The service accepts at most 30 days ago and at most a day ahead.
            day = (now() - datetime.timedelta(days=2)).date()
            body[time_of] = DATE.sub(day.isoformat(), body[time_of])
    if isinstance(body.get("sent_at"), str):
        # It shifts all other times.
        body["sent_at"] = now().isoformat()
    if isinstance(body.get("session_id"), str):
        # A start needs a new id, an update in a batch an existing one.
        body["session_id"] = active_session() if "current_position" in body else uuid7()
    if isinstance(body.get("updates"), list):
        body["updates"] = [valid_body(update) for update in body["updates"]]
    return body


def valid_sync(body: dict) -> dict:
    body = valid_body(body)
    body["sessions"] = [valid_body(session) for session in body["sessions"]]
    for session in body["sessions"]:
        if isinstance(session.get("ended_at"), str):
            # Not before the start.
            session["ended_at"] = session["started_at"]
        if isinstance(session.get("observations"), list):
            session["observations"] = [valid_body(each) for each in session["observations"]]
    return body


def valid_correction(body: dict) -> dict:
    body = valid_body(body)
    if isinstance(body.get("ended_at"), str):
        # Within the session, and at least as long after the start as the active time.
        body["ended_at"] = (now() - datetime.timedelta(minutes=90)).isoformat()
    if isinstance(body.get("active_seconds"), (int, float)):
        body["active_seconds"] %= 1_500
    if all(body.get(name) is None for name in ["ended_at", "end_position", "active_seconds"]):
        body["end_position"] = 50
    return body


def uuid7() -> str:
    """A UUID version 7 (RFC 9562): milliseconds and random bits."""
    value = time.time_ns() // 1_000_000 << 80 | secrets.randbits(80)
    value = value & ~(0xF << 76) | 0x7 << 76
    value = value & ~(0x3 << 62) | 0x2 << 62
    return str(uuid.UUID(int=value))


@schemathesis.hook
def filter_failure(context, failure, case, response):
    """Drops failures that follow from rules that no schema can express."""
    operation = case.operation.definition.raw.get("operationId")
    if isinstance(failure, (AcceptedNegativeData, RejectedPositiveData)) and response.status_code == 413:
        # A schema cannot limit the size of the whole body: to 64 KB, or 1 MB for a sync.
        limit = 1024 * 1024 if operation == "sync" else 64 * 1024
        return int(response.request.headers["Content-Length"]) <= limit
    if isinstance(failure, RejectedPositiveData) and operation == "erase":
        # `confirm` must be the id of the calling reader. The hooks never set the right
        # one, because it would erase the data of this run.
        fields = [error["field"] for error in response.json().get("errors", [])]
        return response.status_code != 422 or fields != ["confirm"]
    if isinstance(failure, RejectedPositiveData) and response.status_code == 400:
        # A session that ended during a scenario can be neither updated nor ended: the
        # request is valid but late.
        too_late = {
            "update": "session_inactive",
            "end": "session_already_ended",
        }
        return response.json()["code"] != too_late.get(operation)
    commands = ["start", "update", "end", "batchUpdate", "sync"]
    if isinstance(failure, AcceptedNegativeData) and operation in commands and response.json().get("warnings"):
        # An invalid hint never refuses a command: the service ignores it and reports
        # that in `warnings`. The schema describes the hints that it keeps.
        return False
    if isinstance(failure, AcceptedNegativeData) and operation in ["batchUpdate", "sync"]:
        # An invalid update or session does not block the others: the service accepts
        # the call and reports what it rejected in the response.
        only_body_is_invalid = all(
            is_valid(case, location)
            for location in (ParameterLocation.QUERY, ParameterLocation.HEADER)
        )
        return not (only_body_is_invalid and has_rejected_items(response.json()))
    return True


def has_rejected_items(response: dict) -> bool:
    """Whether the response to a batch or a sync contains rejected items."""
    if "failed_count" in response:
        return response["failed_count"] > 0
    return any(not result["success"] or result["refused"] for result in response["results"])
