"""The rules that every manifest keeps. Each check yields its faults as sentences."""

import re
from urllib.parse import urlsplit

COMPONENT = "app.kubernetes.io/component"
ROLES = {"api", "relay", "projections", "jobs"}
# The signal, the wait of `preStop` and all stages of the shutdown fit into it.
GRACE_SECONDS = 60
SECRET = re.compile(r"PASSWORD|SECRET|_CREDS|DATABASE_URL|DATABASE_READ_URL|NATS_URL|REDIS_URL")
ISSUER_PORT = 443


def images(manifests):
    """Every container runs the build of this repository."""
    expected = f"reading-sessions:{manifests.version}"
    for name, _, pod in manifests.pods():
        for container in pod["spec"]["containers"]:
            if container["image"] != expected:
                yield f"{name}: image {container['image']} is not {expected}"


def privileges(manifests):
    """No container has more rights than the process needs."""
    for name, _, pod in manifests.pods():
        spec = pod["spec"]
        context = spec.get("securityContext", {})
        required = {"runAsNonRoot": True, "runAsUser": 10001, "runAsGroup": 10001,
                    "seccompProfile": {"type": "RuntimeDefault"}}
        if context != required:
            yield f"{name}: securityContext is {context}"
        for key in ("automountServiceAccountToken", "enableServiceLinks"):
            if spec.get(key) is not False:
                yield f"{name}: {key} is not false"
        for key in ("hostNetwork", "hostPID", "hostIPC", "volumes", "initContainers"):
            if key in spec:
                yield f"{name}: {key} is not needed"
        for container in spec["containers"]:
            required = {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True,
                        "capabilities": {"drop": ["ALL"]}}
            if container.get("securityContext") != required:
                yield f"{name}: securityContext of the container is {container.get('securityContext')}"
        account = manifests.named("ServiceAccount", spec.get("serviceAccountName"))
        if account is None or account.get("automountServiceAccountToken") is not False:
            yield f"{name}: no service account of its own without a token"
        if spec.get("serviceAccountName") != name:
            yield f"{name}: uses the service account {spec.get('serviceAccountName')}"


def resources(manifests):
    """The memory limits are those of compose.yaml, which were measured."""
    for name, _, pod in manifests.pods():
        for container in pod["spec"]["containers"]:
            found = container.get("resources", {})
            limit = found.get("limits", {}).get("memory")
            if limit != f"{manifests.memory[name]}Mi":
                yield f"{name}: memory limit {limit}, compose.yaml has {manifests.memory[name]} MiB"
            if not {"cpu", "memory"} <= found.get("requests", {}).keys():
                yield f"{name}: no requests of cpu and memory"


def probes(manifests):
    """A process is restarted if it hangs, and a role without clients reports that it is not ready."""
    alive = {"startupProbe": "/livez", "livenessProbe": "/livez"}
    for name, kind, pod in manifests.pods():
        if kind != "Deployment":
            continue
        # Without Postgres the API serves active sessions from Redis.
        ready = "/livez" if name == "api" else "/readyz"
        paths = {**alive, "readinessProbe": ready}
        for container in pod["spec"]["containers"]:
            ports = {port["name"]: port["containerPort"] for port in container["ports"]}
            for probe, path in paths.items():
                get = container.get(probe, {}).get("httpGet", {})
                if get.get("path") != path or ports.get(get.get("port")) != 8081:
                    yield f"{name}: {probe} is not {path} of the admin listener"


def availability(manifests):
    """Updates and drained nodes leave at least one process of each role."""
    budgets = manifests.of("PodDisruptionBudget")
    scaled = {d["spec"]["scaleTargetRef"]["name"]: d["spec"]["minReplicas"]
              for d in manifests.of("HorizontalPodAutoscaler")}
    names = set()
    for deployment in manifests.of("Deployment"):
        name, spec = deployment["metadata"]["name"], deployment["spec"]
        names.add(name)
        if name in scaled and "replicas" in spec:
            yield f"{name}: replicas would undo the number of the autoscaler"
        if scaled.get(name, spec.get("replicas", 0)) < 2:
            yield f"{name}: fewer than two processes"
        update = spec.get("strategy", {}).get("rollingUpdate")
        if update != {"maxSurge": 1, "maxUnavailable": 0}:
            yield f"{name}: a rolling update is {update}"
        pod = spec["template"]["spec"]
        if pod.get("terminationGracePeriodSeconds") != GRACE_SECONDS:
            yield f"{name}: terminationGracePeriodSeconds is not {GRACE_SECONDS}"
        keys = {c["topologyKey"] for c in pod.get("topologySpreadConstraints", [])}
        if keys != {"kubernetes.io/hostname", "topology.kubernetes.io/zone"}:
            yield f"{name}: spreads over {keys}"
        labels = spec["template"]["metadata"]["labels"]
        matching = [b for b in budgets if selects(b["spec"]["selector"], labels)]
        if [b["spec"].get("maxUnavailable") for b in matching] != [1]:
            yield f"{name}: not exactly one disruption budget of one process"
        serves = any(selects({"matchLabels": s["spec"]["selector"]}, labels)
                     for s in manifests.of("Service"))
        for container in pod["containers"]:
            waits = "preStop" in container.get("lifecycle", {})
            if serves and not waits:
                yield f"{name}: has a Service and no preStop"
            if container["args"] != ["serve", "--role", name]:
                yield f"{name}: runs {container['args']}"
    if names != ROLES:
        yield f"deployments: {names}"


def settings(manifests):
    """Every setting exists, and no secret is in a ConfigMap."""
    for document in manifests.of("ConfigMap", "Secret"):
        name = f"{document['kind']} {document['metadata']['name']}"
        for key in [*document.get("data", {}), *document.get("stringData", {})]:
            if key not in manifests.settings:
                yield f"{name}: docs/reference/settings.md has no setting {key}"
            if document["kind"] == "ConfigMap" and SECRET.search(key):
                yield f"{name}: {key} belongs into a Secret"
    for name, _, pod in manifests.pods():
        for container in pod["spec"]["containers"]:
            for variable in container.get("env", []):
                if variable["name"] not in manifests.settings:
                    yield f"{name}: docs/reference/settings.md has no setting {variable['name']}"


def references(manifests):
    """What a manifest names exists."""
    for name, _, pod in manifests.pods():
        for container in pod["spec"]["containers"]:
            for source in container["envFrom"]:
                for key, kind in (("configMapRef", "ConfigMap"), ("secretRef", "Secret")):
                    if key in source and manifests.named(kind, source[key]["name"]) is None:
                        yield f"{name}: no {kind} {source[key]['name']}"
    for service in manifests.of("Service"):
        found = [pod for _, _, pod in manifests.pods()
                 if selects({"matchLabels": service["spec"]["selector"]}, pod["metadata"]["labels"])]
        ports = {port["name"] for pod in found for c in pod["spec"]["containers"]
                 for port in c.get("ports", [])}
        if len(found) != 1 or not {p["targetPort"] for p in service["spec"]["ports"]} <= ports:
            yield f"Service {service['metadata']['name']}: selects {len(found)} pods with {ports}"
    for ingress in manifests.of("Ingress"):
        for rule in ingress["spec"]["rules"]:
            for path in rule["http"]["paths"]:
                backend = path["backend"]["service"]
                if backend["name"] != "api" or backend["port"] != {"name": "http"}:
                    yield f"Ingress {ingress['metadata']['name']}: {backend} is not for client apps"


def network(manifests):
    """Each pod connects to the servers in its Secret and to nothing else."""
    policies = manifests.of("NetworkPolicy")
    deny = {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    if deny not in [policy["spec"] for policy in policies]:
        yield "no policy denies everything else"
    for name, kind, pod in manifests.pods():
        labels = pod["metadata"]["labels"]
        if labels.get(COMPONENT) != name:
            yield f"{name}: the label {COMPONENT} is {labels.get(COMPONENT)}"
        selected = [p["spec"] for p in policies
                    if p["spec"]["podSelector"] and selects(p["spec"]["podSelector"], labels)]
        out = {port["port"] for spec in selected for rule in spec.get("egress", [])
               for port in rule["ports"]}
        needed = {53} | destinations(manifests, pod)
        if out != needed:
            yield f"{name}: may connect to ports {sorted(out)}, needs {sorted(needed)}"
        into = {port["port"] for spec in selected for rule in spec.get("ingress", [])
                for port in rule["ports"]}
        ports = {p["name"] for c in pod["spec"]["containers"] for p in c.get("ports", [])}
        if into != ports:
            yield f"{name}: accepts connections to {sorted(into)}, has the ports {sorted(ports)}"
        for spec in selected:
            for rule in [*spec.get("egress", []), *spec.get("ingress", [])]:
                if not rule.get("to") and not rule.get("from"):
                    yield f"{name}: a policy names no peers"


def destinations(manifests, pod):
    """The ports of the servers whose addresses the pod gets."""
    ports = set()
    for container in pod["spec"]["containers"]:
        for source in container["envFrom"]:
            if "secretRef" in source:
                secret = manifests.named("Secret", source["secretRef"]["name"]) or {}
                urls = {k: v for k, v in secret.get("stringData", {}).items() if k.endswith("_URL")}
                ports |= {urlsplit(url).port for url in urls.values()}
            else:
                config = manifests.named("ConfigMap", source["configMapRef"]["name"]) or {}
                if "JWKS_URL" in config.get("data", {}):
                    ports.add(ISSUER_PORT)
    return ports


def selects(selector, labels):
    """Whether a label selector matches these labels."""
    if any(labels.get(k) != v for k, v in selector.get("matchLabels", {}).items()):
        return False
    for rule in selector.get("matchExpressions", []):
        if rule["operator"] != "In":
            raise ValueError(f"unexpected operator {rule['operator']}")
        if labels.get(rule["key"]) not in rule["values"]:
            return False
    return True


ALL = [images, privileges, resources, probes, availability, settings, references, network]
