"""The composition of this repository as a project of its own: other ports, other
passwords, in a scratch folder. Nothing of another project is touched, and everything is
removed at the end."""

import json
import os
import re
import secrets
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
# The trial needs all of them. Other services are left out if their image cannot be had.
NEEDED = {"nginx", "migrate", "api", "relay", "projections", "jobs", "operator",
          "postgres", "nats", "redis"}
OWN_IMAGE = "reading-sessions:latest"
BUILD_SECONDS = 45 * 60
PULL_SECONDS = 300
COMMAND_SECONDS = 180
# Limits that 30 readers do not reach, so that no request is refused for its rate.
SETTINGS = {"RATE_LIMIT_HIGH_FREQUENCY": 100000, "RATE_LIMIT_NORMAL": 100000,
            "RATE_LIMIT_LOW_FREQUENCY": 100000, "RATE_LIMIT_SYNC": 100000}


class Failed(Exception):
    """A command of docker failed; the message contains its output."""


def run(*command, timeout=COMMAND_SECONDS, check=True, cwd=None, input=None):
    result = subprocess.run(command, capture_output=True, text=True, timeout=timeout, cwd=cwd, input=input)
    if check and result.returncode:
        raise Failed(f"{' '.join(command[:6])} … failed with {result.returncode}: "
                     f"{(result.stderr or result.stdout).strip()[-2000:]}")
    return result


class Stack:
    def __init__(self, override=None):
        self.id = secrets.token_hex(4)
        self.project = f"reading-sessions-trial-{self.id}"
        self.image = f"reading-sessions:trial-{self.id}"
        self.folder = Path(tempfile.mkdtemp(prefix="reading-sessions-trial-"))
        self.files = ["compose.yaml", "trial.json"]
        self.services = []
        shutil.copy(ROOT / "compose.yaml", self.folder)
        for name in ("deploy", "nats"):
            shutil.copytree(ROOT / name, self.folder / name)
        if override:
            shutil.copy(override, self.folder / "override.yaml")
            self.files.append("override.yaml")
        self.variables = self.environment()
        self.write(".env", self.variables)
        self.write("settings.env", SETTINGS)
        (self.folder / "trial.json").write_text("{}")
        self.http = int(self.variables["HTTP_PORT"])
        self.admin = int(self.variables["ADMIN_PORT"])

    def environment(self):
        """A password for each empty variable of deploy/example.env, and a free port for
        each published one."""
        example = (ROOT / "deploy/example.env").read_text()
        variables = {name: secrets.token_hex(32) for name in re.findall(r"^([A-Z_]+)=$", example, re.M)}
        compose = (ROOT / "compose.yaml").read_text()
        for name in sorted(set(re.findall(r"\$\{([A-Z_]+_PORT):-", compose))):
            with socket.socket() as free:
                free.bind(("127.0.0.1", 0))
                variables[name] = free.getsockname()[1]
        return variables

    def write(self, name, variables):
        lines = "".join(f"{key}={value}\n" for key, value in variables.items())
        (self.folder / name).touch(mode=0o600)
        (self.folder / name).write_text(lines)

    # Images

    def choose_images(self):
        """Replaces images that cannot be had. Returns lines that describe it."""
        config = json.loads(self.compose("--profile", "*", "config", "--format", "json").stdout)
        services = dict(sorted(config["services"].items()))
        missing, lines, override = {}, [], {}
        for name, image in ((name, service["image"]) for name, service in services.items()):
            if image == OWN_IMAGE:
                override[name] = {"image": self.image}
            elif (found := available(image)) is None:
                missing[name] = f"its image {image} cannot be had"
            elif found != image:
                override[name] = {"image": found}
                lines.append(f"{name} runs {found} instead of {image}")
        # Compose would start what a service depends on.
        while dependent := [(n, d) for n, s in services.items() for d in s.get("depends_on", {})
                            if d in missing and n not in missing]:
            missing.update((name, f"it depends on {needed}") for name, needed in dependent)
        if unavoidable := NEEDED & missing.keys():
            raise Failed("; ".join(f"{name} cannot run: {missing[name]}" for name in unavoidable))
        lines += [f"{name} is left out: {reason}" for name, reason in missing.items()]
        self.services = [n for n, s in services.items() if n not in missing and "profiles" not in s]
        override["migrate"]["build"] = {"context": str(ROOT)}
        (self.folder / "trial.json").write_text(json.dumps({"services": override}))
        return lines

    def build(self):
        self.compose("build", "migrate", timeout=BUILD_SECONDS)

    def tag(self, source, target):
        run("docker", "tag", source, target)

    # Containers

    def compose(self, *args, **options):
        files = [part for file in self.files for part in ("-f", file)]
        return run("docker", "compose", "-p", self.project, *files, *args, cwd=self.folder, **options)

    def up(self, *args):
        return self.compose("up", "-d", "--wait", *args, *self.services)

    def operator(self, *args, check=True):
        """Runs a command as operators do, without starting the services that it needs."""
        return self.compose("run", "--rm", "-T", "--no-deps", "operator", *args, check=check)

    def containers(self, service):
        return self.compose("ps", "-q", "--all", service).stdout.split()

    def statuses(self):
        """Service, state and health of each container, and the exit code of ended ones."""
        output = self.compose("ps", "--all", "--format", "json").stdout.strip()
        found = json.loads(output) if output.startswith("[") else [json.loads(l) for l in output.splitlines()]
        return [(c["Service"], c["State"], c.get("Health", ""), c.get("ExitCode", 0)) for c in found]

    def until_healthy(self, seconds=90):
        """Waits until every container is healthy; returns the seconds that it took."""
        started = time.monotonic()
        while True:
            unhealthy = [status for status in self.statuses() if not is_well(status)]
            if not unhealthy:
                return time.monotonic() - started
            if time.monotonic() - started > seconds:
                raise Failed(f"after {seconds} s not healthy: {unhealthy}")
            time.sleep(0.5)

    def logs(self, service, seconds=None):
        """All lines, or those of the last seconds."""
        since = [] if seconds is None else ["--since", f"{seconds:.0f}s"]
        result = self.compose("logs", "--no-log-prefix", "--no-color", *since, service)
        return result.stdout + result.stderr

    def remove(self):
        """Removes containers, volumes, networks, images and files of this trial."""
        try:
            self.compose("--profile", "*", "down", "--volumes", "--remove-orphans", "--timeout", "5")
        finally:
            shutil.rmtree(self.folder, ignore_errors=True)
        tags = run("docker", "image", "ls", "--format", "{{.Repository}}:{{.Tag}}", "reading-sessions")
        mine = [tag for tag in tags.stdout.split() if tag.startswith(self.image)]
        if mine:
            run("docker", "image", "rm", *mine)


def is_well(status):
    service, state, health, code = status
    if service == "migrate":
        return state == "exited" and code == 0
    return state == "running" and health in ("healthy", "")


def available(image):
    """The image if it exists here or can be pulled, otherwise one of the same name."""
    if run("docker", "image", "inspect", image, check=False).returncode == 0:
        return image
    if run("docker", "pull", "--quiet", image, check=False, timeout=PULL_SECONDS).returncode == 0:
        return image
    tag = image.partition("@")[0]
    repository = tag.rpartition(":")[0] or tag
    found = run("docker", "image", "ls", "--format", "{{.Repository}}:{{.Tag}}", repository).stdout.split()
    found = [name for name in found if not name.endswith(":<none>")]
    return tag if tag in found else next(iter(found), None)


def docker_or_exit():
    """Ends the program if there is no Docker with Compose."""
    for command in (["docker", "compose", "version"], ["docker", "info"]):
        try:
            run(*command, timeout=30)
        except (OSError, Failed, subprocess.TimeoutExpired) as error:
            raise SystemExit(f"this trial needs Docker with Compose 2.24 or newer: {error}")
