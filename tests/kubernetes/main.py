"""Validates the manifests and checks their rules. Exits with 1 if a fault was found."""

import copy
import sys

import kubernetes_validate

import checks
import manifests
import mutations

# docs/operations/kubernetes.md names the oldest version: `preStop.sleep` needs it.
VERSIONS = ["1.30", kubernetes_validate.latest_version()]


def schema_faults(documents):
    """What the API server would refuse or ignore: wrong types and unknown fields."""
    for document in documents:
        name = f"{document['kind']} {document['metadata']['name']}"
        for version in VERSIONS:
            try:
                kubernetes_validate.validate(document, version, strict=True)
            except kubernetes_validate.ValidationError as error:
                path = ".".join(str(part) for part in error.path)
                yield f"{name}, Kubernetes {version}: {path}: {error.message}"


def listing_faults():
    """Every file is applied by exactly one kustomization, and every listed file exists."""
    listed = []
    for file in manifests.kustomizations():
        for document in manifests.load(file):
            for name in [*document.get("resources", []), *document.get("components", [])]:
                path = (file.parent / name).resolve()
                if not path.exists():
                    yield f"{file}: {name} does not exist"
                if path.is_file():
                    listed.append(path)
    for file in manifests.files():
        expected = 0 if file == manifests.TEMPLATE else 1
        if listed.count(file) != expected:
            yield f"{file}: {listed.count(file)} kustomizations list it"


def build_faults(all_manifests):
    """The example builds, and its images are pinned by digest."""
    for folder in ("example", "example/migrate", "example/operator"):
        documents = manifests.build(manifests.FOLDER / folder)
        if documents is None:
            print("Skipped: building the example needs kubectl")
            return
        yield from schema_faults(documents)
        built = copy.copy(all_manifests)
        built.documents = documents
        for document in documents:
            namespace = document["metadata"].get("namespace")
            if document["kind"] != "Namespace" and namespace != "reading-sessions":
                yield f"{folder}: {document['metadata']['name']} has the namespace {namespace}"
        for name, _, pod in built.pods():
            for container in pod["spec"]["containers"]:
                if "@sha256:" not in container["image"]:
                    yield f"{folder}: the image of {name} has no digest"


def undetected(all_manifests):
    """Planted faults that their check does not find."""
    for number, (check, plant) in enumerate(mutations.ALL):
        changed = copy.deepcopy(all_manifests)
        plant(changed)
        if not list(check(changed)):
            yield f"the check {check.__name__} does not find the planted fault {number}"
    broken = copy.deepcopy(all_manifests.documents[:1])
    broken[0]["unknown"] = True
    if len(list(schema_faults(broken))) != len(VERSIONS):
        yield "the schemas accept an unknown field"


def main():
    found = manifests.read()
    faults = [*listing_faults(), *schema_faults(found.documents)]
    for check in checks.ALL:
        faults += [f"{check.__name__}: {fault}" for fault in check(found)]
    faults += [*build_faults(found), *undetected(found)]
    for fault in faults:
        print(f"FAULT {fault}", file=sys.stderr)
    print(f"{len(found.documents)} manifests are checked against Kubernetes {' and '.join(VERSIONS)}, "
          f"{len(checks.ALL)} rules with {len(mutations.ALL)} planted faults: {len(faults)} faults")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
