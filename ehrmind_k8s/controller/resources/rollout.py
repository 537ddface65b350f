"""The rollout servers of a run: vLLM behind a headless Service, none of which matters alone.

Trainers find them by asking DNS each second, and choose by what a server says of itself; so the Service names servers that are not ready
too, and a server that is told to end refuses new work at once (`rollout.server.drain`). A pause before that (preStop) would only let it take
on work that it cannot finish: DNS names it until it is gone.

The Deployment belongs to the run, not to an attempt: a trainer's retry must not restart vLLM. It never starts a pod beyond its number, which
a full quota would hold back for ever.
"""

import math

from ehrmind_k8s.controller.difference import stamped
from ehrmind_k8s.controller.resources import document, metadata, pod
from ehrmind_k8s.controller.resources.metadata import Object
from ehrmind_k8s.controller.resources.pod import ROLLOUT_PORT
from ehrmind_k8s.crd import Run
from ehrmind_k8s.profile import Profile

ROLE, CONTAINER = "rollout", "vllm"
# For a model to arrive and load (seconds). A large one takes minutes from a busy store; the CPU build takes 45-80 s with the toy model.
START_S = 1200
TICK_S = 5


def render(run: Run, profile: Profile, servers: Object | None = None) -> list[Object]:
    """Deployment, Service and PodDisruptionBudget, all of one name. `servers`: the pod template that the run began with, else a new one."""
    selector = {"matchLabels": metadata.selector(run, ROLE)}
    made: list[tuple[str, str, Object, dict[str, str]]] = [
        ("apps/v1", "Deployment", _deployment(run, servers or template(run, profile), selector), metadata.queue_labels(run, profile)),
        ("v1", "Service", _service(run), {}),
        # One at a time, ready or not. `minAvailable` would make the drain of a node wait for ever where there is one server.
        (
            "policy/v1",
            "PodDisruptionBudget",
            {"maxUnavailable": 1, "unhealthyPodEvictionPolicy": "AlwaysAllow", "selector": selector},
            {},
        ),
    ]
    return [
        stamped({"apiVersion": version, "kind": kind, "metadata": metadata.metadata(run, name(run), ROLE, more=more), "spec": spec})
        for version, kind, spec, more in made
    ]


def name(run: Run) -> str:
    """Name of Deployment, Service and budget."""
    return f"{run.name}-rollout"


def urls(run: Run) -> str:
    """EHRMIND_ROLLOUT_URLS of the Service."""
    return f"dns://{name(run)}:{ROLLOUT_PORT}"


def template(run: Run, profile: Profile, attempt: int | None = None, restart: str = "Always") -> Object:
    """The pod template of a server."""
    uri = document.run_uri(run, profile)
    command = ["python", "-m", "ehrmind_k8s.rollout.server", "--run", uri, "--host", "0.0.0.0", "--port", str(ROLLOUT_PORT)]  # noqa: S104
    spread = {
        "maxSkew": 1,
        "topologyKey": "kubernetes.io/hostname",
        "whenUnsatisfiable": "ScheduleAnyway",
        "labelSelector": {"matchLabels": metadata.selector(run, ROLE)},
    }
    return pod.template(
        run,
        profile,
        "rollout",
        attempt,
        CONTAINER,
        command,
        profile.images.rollout,
        port=ROLLOUT_PORT,
        gpus=profile.rollout_gpus,
        restart=restart,
        more=_probes(run),
        more_pod={"topologySpreadConstraints": [spread]},
    )


def _deployment(run: Run, servers: Object, selector: Object) -> Object:
    return {
        "replicas": run.spec.rollout.replicas,
        "selector": selector,
        "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 0, "maxUnavailable": 1}},
        "progressDeadlineSeconds": _patience_s(run) + 60,
        "revisionHistoryLimit": 1,
        "template": servers,
    }


def _service(run: Run) -> Object:
    return {
        "clusterIP": "None",
        "publishNotReadyAddresses": True,
        "selector": metadata.selector(run, ROLE),
        "ports": [{"name": "http", "port": ROLLOUT_PORT, "targetPort": ROLLOUT_PORT, "protocol": "TCP"}],
    }


def _probes(run: Run) -> Object:
    """/health answers without the run's token. A server may be started while prepare still works, and under load it answers slowly."""
    ask = {"httpGet": {"path": "/health", "port": ROLLOUT_PORT}}
    return {
        "startupProbe": {**ask, "periodSeconds": TICK_S, "timeoutSeconds": 5, "failureThreshold": math.ceil(_patience_s(run) / TICK_S)},
        "readinessProbe": {**ask, "periodSeconds": TICK_S, "timeoutSeconds": 5, "failureThreshold": 3},
        "livenessProbe": {**ask, "periodSeconds": 10, "timeoutSeconds": 10, "failureThreshold": 6},
    }


def _patience_s(run: Run) -> int:
    """The longest that a server may take before it answers: it waits for prepare, and then for its model (seconds)."""
    return run.spec.rollout.wait_s + START_S
