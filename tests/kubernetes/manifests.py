"""Reads the manifests of deploy/kubernetes and what they must agree with. Checks nothing."""

import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "deploy/kubernetes"
# A template for operators: it contains no secret, and no kustomization applies it.
TEMPLATE = FOLDER / "example/secrets.yaml"


@dataclass
class Manifests:
    """The documents of all files, with the facts of the repository that they repeat."""

    documents: list
    # Names of settings that docs/reference/settings.md describes.
    settings: set
    # The memory limit of each service of compose.yaml, in MiB.
    memory: dict
    version: str

    def of(self, *kinds):
        return [document for document in self.documents if document["kind"] in kinds]

    def named(self, kind, name):
        found = [d for d in self.of(kind) if d["metadata"]["name"] == name]
        return found[0] if found else None

    def pods(self):
        """Name, kind and pod of everything that runs containers."""
        for document in self.of("Deployment", "Job"):
            yield document["metadata"]["name"], document["kind"], document["spec"]["template"]
        for document in self.of("Pod"):
            yield document["metadata"]["name"], "Pod", document


def load(path):
    return [document for document in yaml.safe_load_all(path.read_text()) if document]


def files():
    """All files of manifests, without the kustomizations."""
    return sorted(f for f in FOLDER.rglob("*.yaml") if f.name != "kustomization.yaml")


def kustomizations():
    return sorted(FOLDER.rglob("kustomization.yaml"))


def read():
    settings = (ROOT / "docs/reference/settings.md").read_text()
    compose = yaml.safe_load((ROOT / "compose.yaml").read_text())["services"]
    cargo = (ROOT / "Cargo.toml").read_text()
    return Manifests(
        documents=[document for file in files() for document in load(file)],
        settings=set(re.findall(r"`([A-Z][A-Z0-9_]+)`", settings)),
        memory={name: int(service["mem_limit"].rstrip("m")) if service["mem_limit"].endswith("m")
                else 1024 * int(service["mem_limit"].rstrip("g"))
                for name, service in compose.items() if "mem_limit" in service},
        version=re.search(r'^version = "(.+)"$', cargo, re.MULTILINE).group(1),
    )


def build(folder):
    """The result of kustomize for a folder, or None if kubectl is not installed."""
    if not shutil.which("kubectl"):
        return None
    command = ["kubectl", "kustomize", str(folder)]
    output = subprocess.run(command, capture_output=True, text=True, timeout=60)
    if output.returncode:
        raise SystemExit(f"{' '.join(command)} failed: {output.stderr}")
    return [document for document in yaml.safe_load_all(output.stdout) if document]
