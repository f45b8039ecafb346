"""Collects the results: a line for each check as it ends, and a table of the faults."""

import time


class Report:
    def __init__(self):
        self.started = time.monotonic()
        self.failed = []
        self.count = 0
        self.faults = []

    def section(self, title):
        print(f"\n{title} ({time.monotonic() - self.started:.0f} s)", flush=True)

    def line(self, text):
        print(f"  {text}", flush=True)

    def check(self, name, failure="", figure=""):
        """Records one check; `failure` is empty if it passed."""
        self.count += 1
        if failure:
            self.failed.append(name)
        text = failure or figure
        print(f"  {'FAILED' if failure else 'ok':6}  {name}{': ' if text else ''}{text}", flush=True)

    def equal(self, name, found, expected, figure=""):
        self.check(name, "" if found == expected else f"{found!r} instead of {expected!r}", figure)

    def expect(self, name, condition, failure="", figure=""):
        self.check(name, "" if condition else failure or "it does not hold", figure)

    def fault(self, name, attempts, recovered):
        """Adds a row: what clients noticed of a fault."""
        refused = [a for a in attempts if a.status == 503]
        lost = [a for a in attempts if a.status == 0]
        failures = refused + lost
        ends = sorted(a.at for a in failures)
        span = max(a.at + a.seconds for a in failures) - ends[0] if failures else 0
        served = [a.seconds for a in attempts if 0 < a.status < 300]
        self.faults.append((
            name, len(attempts), len(refused), len(lost), f"{span:.1f} s" if failures else "",
            f"{max(served, default=0):.2f} s", f"{max((a.seconds for a in refused), default=0):.2f} s" if refused else "",
            f"{recovered:.0f} s"))

    def finish(self):
        """Prints the table and the result; returns the exit code."""
        print("\nWhat clients noticed. Every refused command was repeated and then acknowledged once.")
        head = ("fault", "requests", "503", "no response", "failures lasted", "slowest served",
                "slowest 503", "healthy after")
        rows = [head, *[tuple(str(cell) for cell in row) for row in self.faults]]
        widths = [max(len(row[i]) for row in rows) for i in range(len(head))]
        for number, row in enumerate(rows):
            print("| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths)) + " |")
            if number == 0:
                print("|" + "|".join("-" * (width + 2) for width in widths) + "|")
        print(f"\n{self.count - len(self.failed)} of {self.count} checks passed "
              f"in {time.monotonic() - self.started:.0f} s.")
        for name in self.failed:
            print(f"FAILED: {name}")
        return 1 if self.failed else 0
