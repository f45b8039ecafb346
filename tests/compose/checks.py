"""Checks of the composition without traffic: calls, admin, permissions, containers."""

import json
import time
from datetime import datetime, timedelta, timezone

import nats
from client import ADMIN, READING, Client, new_id, token
from stack import run

ALIVE_SECONDS = 20


def all_checks(stack, report):
    containers(stack, report)
    calls(stack, report)
    limits_by_address(stack, report)
    admin(stack, report)
    log_without_queries(stack, report)
    nats_permissions(stack, report)
    operators(stack, report)


def containers(stack, report):
    report.section("containers")
    ids = stack.compose("ps", "-q", "--all").stdout.split()
    for container in json.loads(run("docker", "inspect", *ids).stdout):
        name = container["Config"]["Labels"]["com.docker.compose.service"]
        host = container["HostConfig"]
        faults = []
        if not host["ReadonlyRootfs"]:
            faults.append("its root file system is writable")
        if host["CapDrop"] != ["ALL"] or host["CapAdd"]:
            faults.append(f"capabilities: {host['CapDrop']} {host['CapAdd']}")
        if "no-new-privileges:true" not in (host["SecurityOpt"] or []):
            faults.append("it may gain privileges")
        bindings = [b for bound in (host["PortBindings"] or {}).values() for b in bound]
        if any(binding["HostIp"] != "127.0.0.1" for binding in bindings):
            faults.append(f"ports are published: {bindings}")
        if not host["Memory"]:
            faults.append("no limit of memory")
        report.check(f"{name} has no privileges, and limits", ", ".join(faults))


def calls(stack, report):
    report.section("calls through nginx")
    secret = stack.variables["JWT_SECRET"]
    reader, other = new_id(), new_id()
    client = Client(stack.http, token(secret, reader), "198.51.100.1")
    stranger = Client(stack.http, token(secret, other), "198.51.100.2")
    book = new_id()
    now = datetime.now(timezone.utc)
    # Ids for later paths, and the global position of the last command.
    seen = {"position": "", "reader": reader, "offline": uuid7(now - timedelta(hours=3))}

    def call(status, method, path, body=None, by=client, key=None, prefix=READING):
        response = by.call(method, prefix + path.format(**seen), body, key)
        seen["position"] = response.headers.get("x-global-position", seen["position"])
        report.expect(f"{method} {path.partition('min_')[0]} returns {status}", response.status == status,
                      f"{response.status} {response.text[:300]}")
        return response.body

    started = call(201, "POST", "/start", {"book_id": book, "start_position": 10,
                                           "book": {"title": "Middlemarch", "total_pages": 800}})
    seen["id"] = started["id"]
    call(200, "PUT", "/{id}/update", {"current_position": 12.5})
    call(200, "POST", "/batch-update", {"updates": [{"session_id": seen["id"], "current_position": 20}]})
    call(200, "GET", "/active?min_position={position}")
    call(200, "GET", "/{id}")
    call(404, "GET", "/{id}", by=stranger)
    call(404, "PUT", "/{id}/update", {"current_position": 13}, by=stranger)
    ended = call(200, "PUT", "/{id}/end", {"end_position": 25}, key="end")
    again = call(200, "PUT", "/{id}/end", {"end_position": 25}, key="end")
    report.equal("a repeat with the same key returns the same response", again, ended)
    call(400, "PUT", "/{id}/update", {"current_position": 30})
    call(200, "PATCH", "/{id}", {"end_position": 26})
    history = call(200, "GET", "/history?min_position={position}")
    report.equal("history contains the corrected session",
                 [(s["id"], s["end_position"]) for s in history["sessions"]], [(seen["id"], 26)])
    for name in ("daily?days=7&", "weekly?", "streak?days=7&", "patterns?days=7&"):
        call(200, "GET", f"/stats/{name}min_position={{position}}")
    earlier = (now - timedelta(hours=3)).isoformat()
    offline = {"session_id": seen["offline"], "book_id": new_id(), "started_at": earlier,
               "observations": [{"current_position": 5, "occurred_at": earlier}]}
    call(200, "POST", "/sync", {"sent_at": now.isoformat(), "sessions": [offline]})
    call(204, "DELETE", "/{offline}")
    call(404, "GET", "/{offline}")
    call(200, "GET", "/export")
    call(202, "DELETE", "?confirm={reader}")
    call(200, "GET", "/history")
    call(401, "GET", "/active", by=Client(stack.http, None, "198.51.100.3"))
    call(422, "POST", "/start", {"book_id": 1})
    call(413, "POST", "/start", {"book_id": book, "locator": "x" * 200_000})
    call(200, "GET", "/openapi.json", prefix="")
    call(404, "GET", "/nginx-health", prefix="")


def uuid7(time):
    milliseconds = int(time.timestamp() * 1000)
    text = f"{milliseconds:012x}" + "7" + new_id().replace("-", "")[13:]
    return "-".join((text[:8], text[8:12], text[12:16], "8" + text[17:20], text[20:]))


def limits_by_address(stack, report):
    """Bad tokens of one address do not affect another one."""
    for address, expected in (("198.51.100.10", 429), ("198.51.100.11", 401)):
        client = Client(stack.http, "nonsense", address)
        attempts = 6 if expected == 429 else 1
        statuses = [client.call("GET", f"{READING}/active").status for _ in range(attempts)]
        report.equal(f"bad token {attempts} of one address", statuses[-1], expected)


def admin(stack, report):
    report.section("admin API")
    secret = stack.variables["JWT_SECRET"]
    operator = Client(stack.admin, token(secret, new_id(), is_admin=True))
    for path in ("/projections", "/jobs", "/dead-letters", "/stats/daily"):
        response = operator.call("GET", ADMIN + path)
        report.equal(f"an operator gets {path}", response.status, 200)
    response = operator.call("POST", f"{ADMIN}/projections/history/pause")
    report.equal("an operator pauses a projection", response.status, 200)
    response = operator.call("POST", f"{ADMIN}/projections/history/resume")
    report.equal("an operator resumes a projection", response.status, 200)
    reader = Client(stack.admin, token(secret, new_id()))
    report.equal("a reader is refused", reader.call("GET", f"{ADMIN}/projections").status, 403)
    stranger = Client(stack.admin)
    report.equal("no token is refused", stranger.call("GET", f"{ADMIN}/projections").status, 401)
    report.equal("/metrics is not published", stranger.call("GET", "/metrics").status, 404)
    report.equal("/readyz", stranger.call("GET", "/readyz").status, 200)


def log_without_queries(stack, report):
    """While no API process runs, nginx reports errors. They contain no query string."""
    reader = new_id()
    stack.compose("stop", "api")
    response = Client(stack.http, None, "198.51.100.4").call("DELETE", f"{READING}?confirm={reader}")
    report.equal("without an API process nginx returns 503", response.status, 503)
    report.equal("with Retry-After", response.headers.get("retry-after"), "1")
    report.equal("and a problem document", response.body.get("code"), "unavailable")
    stack.compose("start", "api")
    stack.until_healthy()
    until = time.monotonic() + ALIVE_SECONDS
    while time.monotonic() < until:
        if Client(stack.http).call("GET", "/openapi.json").status == 200:
            break
        time.sleep(0.5)
    logs = stack.logs("nginx")
    report.expect("nginx logs the failed request", '"status":503' in logs)
    report.expect("nginx logs no query string", reader not in logs, "the log contains the reader's id")


# The messages and subscriptions that each user may, and may not, send.
PERMISSIONS = {
    "api": (
        ["PUB reading.wake", "PUB reading.flush.trial", "SUB _INBOX_api.trial"],
        ["PUB reading.sessions.started.p0", "PUB $JS.API.STREAM.INFO.READING", "SUB reading.sessions.>",
         "SUB reading.wake", "SUB _INBOX.>"]),
    "relay": (
        ["PUB $JS.API.STREAM.INFO.READING", "SUB reading.wake", "SUB _INBOX.trial"],
        ["PUB $JS.API.STREAM.DELETE.READING", "PUB $JS.API.STREAM.PURGE.READING", "PUB reading.dead.history",
         "SUB reading.sessions.>", "SUB _INBOX_api.>"]),
    "projections": (
        ["PUB $JS.API.CONSUMER.INFO.READING.trial", "PUB $JS.API.STREAM.INFO.READING_DEAD",
         "SUB reading.flush.trial"],
        ["PUB reading.sessions.started.p0", "PUB $JS.API.STREAM.DELETE.READING",
         "PUB $JS.API.CONSUMER.DELETE.READING.trial", "SUB reading.wake"]),
    "operator": (
        ["PUB $JS.API.STREAM.NAMES", "PUB $JS.API.CONSUMER.LIST.READING", "SUB reading.>"],
        ["PUB reading.sessions.started.p0", "PUB $JS.API.STREAM.DELETE.READING",
         "PUB $JS.API.STREAM.PURGE.READING", "SUB _INBOX.>"]),
    "analytics": (
        ["PUB $JS.API.STREAM.INFO.READING", "SUB _INBOX_analytics.trial"],
        ["PUB reading.wake", "PUB reading.sessions.started.p0", "PUB $JS.API.STREAM.INFO.READING_DEAD",
         "SUB reading.>", "SUB _INBOX.>"]),
}


def nats_permissions(stack, report):
    report.section("permissions of NATS")
    for user, (allowed, denied) in PERMISSIONS.items():
        password = stack.variables[f"NATS_{user.upper()}_PASSWORD"]
        faults = []
        with nats.Connection(stack, user, password) as connection:
            for expected, actions in ((True, allowed), (False, denied)):
                for action in actions:
                    if connection.permitted(*action.split()) != expected:
                        faults.append(f"{action} is {'refused' if expected else 'permitted'}")
        report.check(f"user {user}", "; ".join(faults), f"{len(allowed)} permitted, {len(denied)} refused")
    try:
        with nats.Connection(stack, "relay", "wrong") as connection:
            connection.permitted("PUB", "reading.wake")
        failure = "it was accepted"
    except ConnectionError as error:
        failure = "" if "Authorization Violation" in str(error) else str(error)
    report.check("a wrong password is refused", failure)


def operators(stack, report):
    report.section("commands of operators")
    for command in (["doctor"], ["verify"], ["projections"], ["jobs"], ["dead-letters"],
                    ["events", "tail", "--from-position", "1", "--until-end"], ["config"]):
        result = stack.compose("run", "--rm", "-T", "operator", *command, check=False)
        report.expect(f"operator {' '.join(command[:2])}", result.returncode == 0,
                      f"exit code {result.returncode}: {result.stdout[-1000:]} {result.stderr[-300:]}")
    result = stack.compose("exec", "-T", "jobs", "reading-sessions", "jobs", "run", "partitions", check=False)
    report.expect("exec jobs: jobs run partitions", result.returncode == 0, result.stderr[-500:])


def after_everything(stack, report):
    """Memory in use, as a figure; and no process was killed for its memory."""
    ids = stack.compose("ps", "-q").stdout.split()
    killed = [c["Name"] for c in json.loads(run("docker", "inspect", *ids).stdout) if c["State"]["OOMKilled"]]
    report.expect("no container reached its limit of memory", not killed, ", ".join(killed))
    stats = run("docker", "stats", "--no-stream", "--format", "{{.Name}} {{.MemUsage}}", *ids).stdout
    for line in sorted(stats.splitlines()):
        report.line(line.removeprefix(f"{stack.project}-"))
