"""Tries the composition: first start, checks, faults with traffic, and a rolling upgrade.

Run it with `make try-compose`. It needs Docker with Compose 2.24 or newer and nothing
else. It uses its own project, ports, volumes and image tags, and removes them at the end.
Exit code 1: a check failed.
"""

import argparse
import signal
import subprocess
import sys
import time

import checks
import faults
import ledger
from readers import COUNT, Reader
from report import Report
from stack import Failed, Stack, docker_or_exit, is_well, run

# The bound of everything after the image is built.
LIMIT_SECONDS = 14 * 60
# Lines of the log of a container that is not well.
LOG_LINES = 20


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--image", help="use this image of the service instead of building it")
    parser.add_argument("--previous", help="image of the last release, from which to upgrade")
    parser.add_argument("--override", help="a compose file with settings of this machine")
    parser.add_argument("--only", nargs="*", help="words of the names of the faults to try")
    arguments = parser.parse_args()
    chosen = [(name, fault) for name, fault in faults.ALL
              if not arguments.only or any(word in name for word in arguments.only)]
    if not chosen:
        parser.error("no fault has such a name: " + ", ".join(name for name, _ in faults.ALL))
    docker_or_exit()
    report = Report()
    stack = Stack(arguments.override)
    # Also a program that is stopped removes what it made.
    signal.signal(signal.SIGTERM, stopped)
    try:
        prepare(stack, report, arguments)
        signal.signal(signal.SIGALRM, expired)
        signal.alarm(LIMIT_SECONDS)
        attempt(stack, report, chosen)
    except (Failed, OSError, subprocess.TimeoutExpired, RuntimeError) as error:
        report.check("the trial runs to its end", str(error))
        explain(stack, report)
    finally:
        signal.alarm(0)
        report.section("cleaning")
        stack.remove()
    return report.finish()


def expired(*_):
    raise RuntimeError(f"not finished within {LIMIT_SECONDS} s")


def stopped(*_):
    raise SystemExit(143)


def explain(stack, report):
    """Prints the containers that do not run as they should, with the end of their logs."""
    try:
        for service, *status in (s for s in stack.statuses() if not is_well(s)):
            log = "\n    ".join(stack.logs(service).splitlines()[-LOG_LINES:])
            report.line(f"{service}: {status}\n    {log}")
    except (Failed, OSError, subprocess.TimeoutExpired) as error:
        report.line(f"the containers cannot be listed: {error}")


def prepare(stack, report, arguments):
    report.section("images")
    for line in stack.choose_images():
        report.line(line)
    new = f"{stack.image}-new"
    if arguments.image:
        stack.tag(arguments.image, new)
    else:
        stack.build()
        stack.tag(stack.image, new)
    previous = f"{stack.image}-previous"
    if arguments.previous:
        stack.tag(arguments.previous, previous)
    else:
        report.line("no --previous: the upgrade replaces the processes by another image of the same build")
        layer = f"FROM {new}\nLABEL trial=previous\n"
        run("docker", "build", "--quiet", "--tag", previous, "-", input=layer)
    stack.tag(previous, stack.image)


def attempt(stack, report, chosen):
    report.section("first start")
    started = time.monotonic()
    stack.up()
    stack.until_healthy()
    report.check("every container is healthy", figure=f"after {time.monotonic() - started:.1f} s")
    checks.all_checks(stack, report)
    readers = [Reader(number, stack.http, stack.variables["JWT_SECRET"]) for number in range(COUNT)]
    for name, fault in chosen:
        faults.with_traffic(stack, readers, report, name, fault)
    report.section("at the end")
    ledger.planted_faults(stack, readers, report)
    checks.after_everything(stack, report)


if __name__ == "__main__":
    sys.exit(main())
