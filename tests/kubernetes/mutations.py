"""Faults that the checks must find. A check that finds none of its faults proves nothing."""

import checks


def deployment(manifests, name):
    return manifests.named("Deployment", name)["spec"]


def pod(manifests, name):
    return deployment(manifests, name)["template"]["spec"]


def container(manifests, name):
    return pod(manifests, name)["containers"][0]


def remove(manifests, kind, name):
    manifests.documents.remove(manifests.named(kind, name))


def replace(mapping, **values):
    mapping.update(values)


# The check that must find the fault, and the change that makes it.
ALL = [
    (checks.images, lambda m: replace(container(m, "api"), image="reading-sessions:latest")),
    (checks.privileges, lambda m: pod(m, "jobs")["securityContext"].pop("runAsNonRoot")),
    (checks.privileges, lambda m: container(m, "relay")["securityContext"].pop("capabilities")),
    (checks.privileges, lambda m: replace(pod(m, "api"), automountServiceAccountToken=True)),
    (checks.privileges, lambda m: replace(pod(m, "relay"), serviceAccountName="jobs")),
    (checks.resources, lambda m: container(m, "api")["resources"]["limits"].pop("memory")),
    (checks.resources, lambda m: m.memory.update(relay=64)),
    (checks.probes, lambda m: container(m, "projections").pop("startupProbe")),
    (checks.probes, lambda m: replace(container(m, "api")["readinessProbe"]["httpGet"], path="/readyz")),
    (checks.availability, lambda m: replace(deployment(m, "relay"), replicas=1)),
    (checks.availability, lambda m: replace(deployment(m, "api"), replicas=2)),
    (checks.availability, lambda m: remove(m, "PodDisruptionBudget", "projections")),
    (checks.availability, lambda m: container(m, "api").pop("lifecycle")),
    (checks.availability, lambda m: pod(m, "jobs").pop("terminationGracePeriodSeconds")),
    (checks.settings, lambda m: m.named("ConfigMap", "settings")["data"].update(RUST_LOGS="info")),
    (checks.settings, lambda m: m.named("ConfigMap", "settings")["data"].update(JWT_SECRET="0")),
    (checks.references, lambda m: remove(m, "Secret", "jobs")),
    (checks.references, lambda m: replace(m.named("Service", "admin")["spec"]["ports"][0], targetPort="http")),
    (checks.network, lambda m: remove(m, "NetworkPolicy", "default-deny")),
    (checks.network, lambda m: m.named("Secret", "relay")["stringData"].update(
        REDIS_URL="rediss://redis.example:6379/0")),
    (checks.network, lambda m: m.named("NetworkPolicy", "to-redis")["spec"]["podSelector"]
        ["matchExpressions"][0]["values"].append("relay")),
    (checks.network, lambda m: m.named("NetworkPolicy", "from-ingress")["spec"]["ingress"][0].pop("from")),
]
