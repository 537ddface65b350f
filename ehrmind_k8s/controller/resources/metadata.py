"""What every object of a run carries: its labels, its owner, and the queue it waits in.

    demo-rlvr-2, labels app.kubernetes.io/{name: ehrmind, instance: demo, component: rlvr, ...}, ehrmind.dev/{run-uid, role: rlvr, attempt: 2}

Objects that belong to no attempt, such as the rollout Deployment, have no attempt label: a trainer's retry must not restart vLLM.
"""

from typing import Any

from ehrmind_k8s import crd
from ehrmind_k8s.crd import Run
from ehrmind_k8s.profile import Profile

Object = dict[str, Any]

NAME_LIMIT = 63  # of a label's value and of a host name
SHARED = "run"  # the role of objects that all pods of a run share
QUEUE = "kueue.x-k8s.io/queue-name"
QUEUE_PRIORITY = "kueue.x-k8s.io/priority-class"


def labels(run: Run, role: str, attempt: int | None = None) -> dict[str, str]:
    """Labels of an object or pod in a role: a stage, `rollout`, or `run`."""
    made = {
        "app.kubernetes.io/name": "ehrmind",
        crd.LABEL_INSTANCE: run.name,
        "app.kubernetes.io/component": role,
        "app.kubernetes.io/part-of": "ehrmind",
        crd.LABEL_MANAGED_BY: crd.MANAGED_BY,
        crd.LABEL_RUN_UID: run.uid,
        crd.LABEL_ROLE: role,
    }
    return made if attempt is None else made | {crd.LABEL_ATTEMPT: str(attempt)}


def selector(run: Run, role: str | None = None) -> dict[str, str]:
    """Labels that select the pods of a run, of all roles or of one."""
    return {crd.LABEL_RUN_UID: run.uid} | ({crd.LABEL_ROLE: role} if role else {})


def metadata(run: Run, name: str, role: str, attempt: int | None = None, more: dict[str, str] | None = None) -> Object:
    """Metadata of an object that the run owns: when the run goes, so does it."""
    owner = {
        "apiVersion": crd.API_VERSION,
        "kind": crd.KIND,
        "name": run.name,
        "uid": run.uid,
        "controller": True,
        "blockOwnerDeletion": True,
    }
    return {
        "name": name,
        "namespace": run.namespace,
        "labels": labels(run, role, attempt) | (more or {}),
        "ownerReferences": [owner],
    }


def queue(run: Run, profile: Profile) -> str:
    """Name of the Kueue queue that a run waits in: its own label, else its profile's; "" where there is none."""
    return run.labels.get(QUEUE) or profile.queue or ""


def queue_labels(run: Run, profile: Profile) -> dict[str, str]:
    """Labels that put an object into the run's queue. They are for the object alone: a pod with them would be queued a second time."""
    wanted = {QUEUE: queue(run, profile), QUEUE_PRIORITY: run.labels.get(QUEUE_PRIORITY, "")}
    return {key: value for key, value in wanted.items() if value} if wanted[QUEUE] else {}
