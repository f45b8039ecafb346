"""A small client of NATS's text protocol, over a connection from a container of the
service: no port of NATS is published."""

import json
import os
import select
import subprocess
import time

# `cat` copies in both directions, and the shell ends with its input.
PIPE = "exec 3<>/dev/tcp/nats/4222; cat <&3 & cat >&3; kill $!"
TIMEOUT_SECONDS = 15


class Connection:
    def __init__(self, stack, user, password):
        files = [part for file in stack.files for part in ("-f", file)]
        command = ["docker", "compose", "-p", stack.project, *files,
                   "exec", "-T", "relay", "bash", "-c", PIPE]
        self.process = subprocess.Popen(command, cwd=stack.folder, stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        self.buffer = b""
        self.inbox = f"_INBOX_{user}.trial"
        self.line()  # INFO
        options = {"user": user, "pass": password, "verbose": False, "pedantic": False,
                   "headers": True, "no_responders": True, "name": "trial"}
        self.send(f"CONNECT {json.dumps(options)}\r\n")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.stdin.close()
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def send(self, text):
        self.process.stdin.write(text.encode())
        self.process.stdin.flush()

    def fill(self):
        until = time.monotonic() + TIMEOUT_SECONDS
        ready, _, _ = select.select([self.process.stdout], [], [], TIMEOUT_SECONDS)
        data = os.read(self.process.stdout.fileno(), 1 << 20) if ready else b""
        if not data:
            waited = TIMEOUT_SECONDS - (until - time.monotonic())
            raise ConnectionError(f"NATS sent nothing for {waited:.0f} s or closed the connection")
        self.buffer += data

    def line(self):
        while b"\r\n" not in self.buffer:
            self.fill()
        line, _, self.buffer = self.buffer.partition(b"\r\n")
        return line.decode()

    def take(self, size):
        while len(self.buffer) < size + 2:
            self.fill()
        data, self.buffer = self.buffer[:size], self.buffer[size + 2:]
        return data

    def permitted(self, verb, subject):
        """Whether the server accepts an empty message or a subscription."""
        self.send(f"PUB {subject} 0\r\n\r\n" if verb == "PUB" else f"SUB {subject} 7\r\nUNSUB 7\r\n")
        self.send("PING\r\n")
        refused = False
        while (line := self.line()) != "PONG":
            if line.startswith("-ERR"):
                if "Permissions Violation" not in line:
                    raise ConnectionError(line)
                refused = True
            elif line.startswith(("MSG ", "HMSG ")):
                self.take(int(line.split()[-1]))
        return not refused

    def messages(self, subject, body):
        """Sends a request, and yields status and data of each message to its inbox."""
        data = json.dumps(body)
        self.send(f"PUB {subject} {self.inbox} {len(data)}\r\n{data}\r\n")
        while True:
            line = self.line()
            if line == "PING":
                self.send("PONG\r\n")
            elif line.startswith("-ERR"):
                raise ConnectionError(line)
            elif line.startswith("HMSG "):
                head, size = (int(part) for part in line.split()[-2:])
                message = self.take(size)
                first = message[:head].split(b"\r\n")[0].split()
                yield int(first[1]) if len(first) > 1 else 200, message[head:]
            elif line.startswith("MSG "):
                yield 200, self.take(int(line.split()[-1]))


def stream(stack):
    """All events of the stream READING, as the user `analytics` receives them."""
    with Connection(stack, "analytics", stack.variables["NATS_ANALYTICS_PASSWORD"]) as connection:
        connection.send(f"SUB {connection.inbox} 1\r\n")
        name = f"trial-{time.monotonic_ns()}"
        config = {"name": name, "deliver_policy": "all", "ack_policy": "none",
                  "mem_storage": True, "inactive_threshold": 60 * 10**9}
        created = next(connection.messages(
            f"$JS.API.CONSUMER.CREATE.READING.{name}.reading.sessions.>",
            {"stream_name": "READING", "config": {**config, "filter_subject": "reading.sessions.>"}}))
        created = json.loads(created[1])
        if "error" in created:
            raise ConnectionError(created["error"]["description"])
        events = []
        while len(events) < created["num_pending"]:
            request = {"batch": 500, "no_wait": True}
            for status, data in connection.messages(f"$JS.API.CONSUMER.MSG.NEXT.READING.{name}", request):
                if status != 200:
                    break
                events.append(json.loads(data))
                if len(events) % 500 == 0 or len(events) == created["num_pending"]:
                    break
        return events
