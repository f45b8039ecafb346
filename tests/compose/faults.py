"""Faults and changes of the running composition, each with traffic.

After each one nothing that was acknowledged is lost or doubled, and clients received no
error but 503 with `Retry-After`.
"""

import json
import time
from collections import Counter

import ledger
from readers import Traffic
from stack import run

BEFORE_SECONDS = 3
AFTER_SECONDS = 5
# How long a killed API process stays away.
DOWN_SECONDS = 10
FROZEN_SECONDS = 8
# After that time nginx sends requests to a new process; see docs/operations/upgrade.md.
NGINX_SECONDS = 10


def kill(stack, service, down=0.0):
    """kill -9 of the first container of a service, and a start after `down` seconds."""
    container = stack.containers(service)[0]
    run("docker", "kill", "--signal", "KILL", container)
    time.sleep(down)
    run("docker", "start", container)


def restart(stack, service):
    stack.compose("restart", service)


def kill_api(stack):
    kill(stack, "api", DOWN_SECONDS)


def kill_relay(stack):
    kill(stack, "relay")


def lose_nats(stack):
    """NATS starts again without its volume."""
    container = stack.containers("nats")[0]
    volume = f"{stack.project}_nats"
    run("docker", "rm", "--force", container)
    run("docker", "volume", "rm", volume)
    stack.compose("up", "-d", "--no-deps", "--wait", "nats")


def restart_redis(stack):
    restart(stack, "redis")


def kill_redis(stack):
    kill(stack, "redis")


def restart_postgres(stack):
    restart(stack, "postgres")


def kill_postgres(stack):
    kill(stack, "postgres")


def freeze_postgres(stack):
    container = stack.containers("postgres")[0]
    run("docker", "pause", container)
    time.sleep(FROZEN_SECONDS)
    run("docker", "unpause", container)


def stop_and_start(stack):
    stack.compose("stop")
    stack.up()


def scale(stack):
    """The API from two processes to four and back."""
    for count in (4, 2):
        stack.compose("up", "-d", "--scale", f"api={count}", "--wait", "api")
        time.sleep(AFTER_SECONDS)


def upgrade(stack):
    """The commands of docs/operations/upgrade.md, from the last build to the new one."""
    stack.tag(f"{stack.image}-new", stack.image)
    stack.compose("run", "--rm", "-T", "migrate")
    for old in stack.containers("api"):
        stack.compose("up", "-d", "--no-deps", "--no-recreate", "--scale", "api=3", "--wait", "api")
        time.sleep(NGINX_SECONDS)
        run("docker", "stop", old)
        run("docker", "rm", old)
    stack.up()


ALL = [
    ("API scaled to four processes and back to two", scale),
    ("one API process killed, away for 10 s", kill_api),
    ("relay killed", kill_relay),
    ("NATS lost its volume", lose_nats),
    ("Redis restarted", restart_redis),
    ("Redis killed", kill_redis),
    ("Postgres restarted", restart_postgres),
    ("Postgres killed", kill_postgres),
    ("Postgres frozen for 8 s", freeze_postgres),
    ("rolling upgrade", upgrade),
    ("everything stopped and started", stop_and_start),
]
# nginx itself is stopped there, so connections are refused.
WITHOUT_NGINX = stop_and_start


def refusals(stack, seconds):
    """Where nginx got its 503 responses from: the status of each API process that it
    tried. 502 and 504 are its own: it could not connect, or the process closed the
    connection or did not respond."""
    found = Counter()
    for line in stack.logs("nginx", seconds).splitlines():
        if '"status":503' in line:
            entry = json.loads(line)
            found[f"{entry['method']}, processes returned {entry['upstream_status']}"] += 1
    return found


def with_traffic(stack, readers, report, name, fault):
    """Runs one fault beside readers, and compares everything with their ledger."""
    report.section(name)
    with Traffic(readers) as traffic:
        time.sleep(BEFORE_SECONDS)
        since = time.monotonic()
        fault(stack)
        recovered = stack.until_healthy()
        recovered = time.monotonic() - since
        time.sleep(AFTER_SECONDS)
    attempts = traffic.attempts(since)
    others = [a for a in attempts if not (200 <= a.status < 300 or (a.status == 503 and a.retry_after))
              and not (a.status == 0 and fault is WITHOUT_NGINX)]
    report.check(f"{name}: no error but 503 with Retry-After",
                 "; ".join(sorted({f"{a.status or 'no response'} {a.code}" for a in others})),
                 f"{sum(a.status == 503 for a in attempts)} of {len(attempts)} requests")
    for line, count in refusals(stack, time.monotonic() - since).items():
        report.line(f"{count} × 503: {line}")
    report.fault(name, attempts, recovered)
    ledger.compare(stack, readers, report, name)
