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
    if is_valid(case, ParameterLocation.PATH) and "id" in case.path_parameters:
        # A scenario continues with the session that it started.
        is_scenario = case.meta is not None and case.meta.phase.name == TestPhase.STATEFUL
        if not (is_scenario and case.path_parameters["id"] in started_sessions):
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
        case.body = valid_body(case.body)


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
    if isinstance(body.get("occurred_at"), str):
        # The service accepts at most 30 days ago and at most a day ahead.
        today = datetime.datetime.now(datetime.timezone.utc).date()
        day = today - datetime.timedelta(days=2)
        body["occurred_at"] = DATE.sub(day.isoformat(), body["occurred_at"])
    if isinstance(body.get("session_id"), str):
        # A start needs a new id, an update in a batch an existing one.
        body["session_id"] = active_session() if "current_position" in body else uuid7()
    if isinstance(body.get("updates"), list):
        body["updates"] = [valid_body(update) for update in body["updates"]]
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
        # A schema cannot limit the size of the whole body to 64 KB.
        return int(response.request.headers["Content-Length"]) <= 64 * 1024
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
    if isinstance(failure, AcceptedNegativeData) and operation == "batchUpdate":
        # An invalid update in a batch does not block the others: the service accepts
        # the batch and reports the rejected updates in the response.
        only_body_is_invalid = all(
            is_valid(case, location)
            for location in (ParameterLocation.QUERY, ParameterLocation.HEADER)
        )
        return not (only_body_is_invalid and response.json()["failed_count"] > 0)
    return True
