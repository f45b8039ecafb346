"""Compares what readers had acknowledged with the log, the stream and the read tables."""

import json
import time
from concurrent.futures import ThreadPoolExecutor

import nats
from client import READING

CONVERGE_SECONDS = 60
PAGE = 100
KINDS = {"started": "start", "position_updated": "update"}


def compare(stack, readers, report, name):
    """Records the checks of the ledger; bounded by `CONVERGE_SECONDS` each."""
    faults = [fault for reader in readers for fault in reader.faults]
    report.check(f"{name}: every command was acknowledged, with the right version", "; ".join(faults[:3]))
    for reader in readers:
        reader.faults = []
    log = log_events(stack)
    found = log_faults(readers, log)
    acknowledged = sum(len(s.events) for r in readers for s in r.sessions)
    report.check(f"{name}: the log contains each acknowledged command once", "; ".join(found[:3]),
                 f"{acknowledged} events of {sum(len(r.sessions) for r in readers)} sessions")
    found = history_faults(readers)
    report.check(f"{name}: history and active sessions are those of the ledger", "; ".join(found[:3]))
    failure, seconds = until(lambda: stream_fault(stack, log))
    report.check(f"{name}: the stream equals the log", failure, f"{len(log)} events, after {seconds:.1f} s")
    for command in ("doctor", "verify"):
        failure, seconds = until(lambda command=command: operator_fault(stack, command))
        report.check(f"{name}: {command}", failure, f"after {seconds:.1f} s")


def until(fault):
    """Waits until `fault` returns nothing. Returns the last fault and the seconds."""
    started = time.monotonic()
    while True:
        found, seconds = fault(), time.monotonic() - started
        if not found or seconds > CONVERGE_SECONDS:
            return found, seconds
        time.sleep(0.5)


def log_events(stack):
    output = stack.operator("events", "tail", "--from-position", "1", "--until-end", "-o", "json").stdout
    return [json.loads(line) for line in output.splitlines() if line.startswith("{")]


def log_faults(readers, log):
    """Differences between the sessions of the ledger and their events in the log."""
    events = {}
    for event in log:
        events.setdefault(event["subject"], []).append(event)
    owners = {reader.id for reader in readers}
    known = {session.id for reader in readers for session in reader.sessions}
    faults = [f"session {subject} was never acknowledged" for subject, found in events.items()
              if found[0]["partitionkey"] in owners and subject not in known]
    for reader in readers:
        for session in reader.sessions:
            found = events.get(session.id, [])
            sequences = [int(event["sequence"]) for event in found]
            stored = [describe(event) for event in found]
            if sequences != list(range(1, len(found) + 1)):
                faults.append(f"session {session.id} has the sequences {sequences}")
            elif stored != session.events:
                faults.append(f"session {session.id} has {stored}, acknowledged were {session.events}")
    return faults


def describe(event):
    kind, data = event["type"].split(".")[2], event["data"]
    if kind == "ended" and data["reason"] == "superseded":
        return "supersede", None
    return KINDS.get(kind, "end" if kind == "ended" else kind), data["position"]


def stream_fault(stack, log):
    try:
        return difference(nats.stream(stack), log)
    except ConnectionError as error:
        return f"the stream cannot be read: {error}"


def difference(stream, log):
    found = [(event["id"], event["globalposition"]) for event in stream]
    expected = [(event["id"], event["globalposition"]) for event in log]
    if found == expected:
        return ""
    first = next((n for n, pair in enumerate(zip(found, expected)) if pair[0] != pair[1]), "the end")
    return f"{len(found)} events in the stream, {len(expected)} in the log; they differ at {first}"


def planted_faults(stack, readers, report):
    """Changes the log in memory, and checks that the comparisons notice each change."""
    log = log_events(stack)
    ours = {session.id for reader in readers for session in reader.sessions}
    last = max(n for n, event in enumerate(log) if event["subject"] in ours)
    doubled = {**log[last], "sequence": str(int(log[last]["sequence"]) + 1)}
    other = {**log[last], "subject": "unknown", "sequence": "1"}
    for name, changed in (("loss", log[:last] + log[last + 1:]), ("repetition", [*log, doubled]),
                          ("foreign session", [*log, other])):
        report.expect(f"the ledger notices a {name}", log_faults(readers, changed))
        report.expect(f"the stream notices a {name}", difference(log, changed))


def operator_fault(stack, command):
    result = stack.operator(command, check=False)
    if result.returncode == 0:
        return ""
    lines = [l for l in result.stdout.splitlines() if not l.startswith("ok")]
    return f"exit code {result.returncode}: " + " / ".join(lines[-5:]) + result.stderr.strip()[-300:]


def history_faults(readers):
    with ThreadPoolExecutor(10) as pool:
        return [fault for faults in pool.map(reader_faults, readers) for fault in faults]


def reader_faults(reader):
    """Compares all pages of the history and the active session, up to the last command."""
    if reader.seen is None:
        return []
    found, cursor = {}, ""
    while cursor is not None:
        path = f"{READING}/history?page_size={PAGE}&min_position={reader.seen}{cursor}"
        response = reader.client.call("GET", path)
        if response.status != 200:
            return [f"history of {reader.id} returned {response.status}: {response.text[:200]}"]
        for session in response.body["sessions"]:
            found[session["id"]] = (session["end_position"], session["end_reason"], session["version"])
        following = response.body["next_cursor"]
        cursor = f"&cursor={following}" if following else None
    expected = {s.id: (s.position, s.reason, len(s.events)) for s in reader.sessions}
    faults = [f"history has {found.get(key)} of session {key}, acknowledged was {value}"
              for key, value in expected.items() if found.get(key) != value]
    if len(found) != len(expected):
        faults.append(f"history of {reader.id} has {len(found)} sessions instead of {len(expected)}")
    response = reader.client.call("GET", f"{READING}/active?min_position={reader.seen}")
    active = (response.body or {}).get("id"), (response.body or {}).get("end_position")
    wanted = (reader.active.id, reader.active.position) if reader.active else (None, None)
    if response.status != 200 or active != wanted:
        faults.append(f"active session of {reader.id} is {active} instead of {wanted}")
    return faults
