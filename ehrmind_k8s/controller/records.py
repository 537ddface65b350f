"""What `reconcile` sees and what it decides. Plain data: no I/O, no clock, nothing of the client library.

Times are Unix seconds (float); object names are Kubernetes names; `object` is an API object as plain dicts, as the server sent it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from ehrmind_k8s.profile import Profile

Object = Mapping[str, Any]


def part(obj: Any, *keys: str) -> Object:
    """The mapping at this place of an object; {} where there is none, whatever there is instead."""
    for key in keys:
        obj = obj.get(key) if isinstance(obj, Mapping) else None
    return obj if isinstance(obj, Mapping) else {}


def parts(obj: Any, *keys: str) -> list[Object]:
    """The mappings of the list at this place of an object."""
    *outer, last = keys
    found = part(obj, *outer).get(last)
    return [item for item in found if isinstance(item, Mapping)] if isinstance(found, list | tuple) else []


# What a stage's child is doing, whatever its kind.
# queued: a queue or suspend holds it; starting: no container runs yet; lost: it ended without a trace of how.
Phase = Literal["queued", "starting", "running", "succeeded", "failed"]


@dataclass(frozen=True, slots=True)
class Report:
    """The termination message of rank 0 (`progress.write_report`): how a stage ended, as codes, without free text."""

    stage: str
    attempt: int
    reason: str
    exit_code: int
    score: float | None = None
    seconds: float = 0.0
    headline: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Pod:
    """What matters of a pod. `role` is a stage or `rollout`; `leader` is rank 0, the one that reports."""

    name: str
    uid: str
    role: str
    attempt: int
    phase: str  # Pending, Running, Succeeded, Failed, Unknown
    ready: bool = False
    leader: bool = False
    deleting: bool = False
    created: float = 0.0
    started: float = 0.0  # first container, 0 when not yet
    ip: str = ""
    node: str = ""
    waiting: str = ""  # reason code of a waiting container: ImagePullBackOff, CreateContainerConfigError, CrashLoopBackOff ...
    waiting_message: str = ""
    unschedulable: str = ""  # the scheduler's message
    exit_code: int | None = None
    exit_reason: str = ""  # OOMKilled, Evicted, Error, Completed, DeadlineExceeded ...
    disrupted: bool = False  # condition DisruptionTarget: preempted, evicted, drained
    restarts: int = 0
    gone_by: float = 0.0  # when a pod that is deleted is to be gone, 0 for others
    report: Report | None = None


@dataclass(frozen=True, slots=True)
class Child:
    """An object that carries this run's labels (or has a name this run wants). `ours`: its controller owner reference has the run's uid."""

    kind: str
    name: str
    uid: str
    ours: bool
    stage: str = ""
    attempt: int = 0
    created: float = 0.0
    deleting: bool = False
    object: Object = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Progress:
    """What the leader of the running stage answered at /progress."""

    pod_uid: str
    stage: str
    attempt: int
    done: int
    total: int
    unit: str
    figures: Mapping[str, float]
    waiting: str  # code of what it waits for (`rollouts`), or ""
    read: float  # when it was read
    changed: float  # when `done` last grew, as the reader saw it


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything a decision may depend on, apart from the time.

    `served` holds the kinds of other projects that the API server has: PyTorchJob, TrainJob, Workload. `workloads` are Kueue's.
    `silent_s`: how long there has been no sign of life of who follows the run; None where it does not depend on anybody.
    `refusals` are what the API server refuses of what the run needs and a person can mend, as `Code Kind/name: sentence` (refusals.py).
    """

    run: Object
    profile: Profile | None
    profile_error: str = ""
    served: frozenset[str] = frozenset()
    children: tuple[Child, ...] = ()
    pods: tuple[Pod, ...] = ()
    progress: Progress | None = None
    workloads: tuple[Object, ...] = ()
    refusals: tuple[str, ...] = ()
    silent_s: float | None = None
    operator_namespace: str = ""  # where the operator itself is, which NetworkPolicies let in


@dataclass(frozen=True, slots=True)
class Delete:
    """Delete one object if it still has this uid; its pods go with it (background propagation)."""

    kind: str
    name: str
    uid: str


@dataclass(frozen=True, slots=True)
class Event:
    """One line in `kubectl describe`. `message` is a fixed template with names, numbers and codes only."""

    type: Literal["Normal", "Warning"]
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Decision:
    """What to do now, in this order: status (when not None), deletes, applies of NetworkPolicies, creates, other applies, events (only if the
    status write succeeded). While a NetworkPolicy is refused, neither creates nor other applies are done: no pod comes to life unfenced.

    The status comes first: an attempt is counted before its child exists, so that a crash between two writes never counts backwards.
    `creates` are made once and never touched again (Job, PyTorchJob, TrainJob, TrainingRuntime, ConfigMap); one that is there already is fine.
    `applies` are server-side applied with our field manager whenever they differ from what is there (Service, Deployment, NetworkPolicy, PDB).
    """

    status: Object | None = None
    deletes: tuple[Delete, ...] = ()
    creates: tuple[Object, ...] = ()
    applies: tuple[Object, ...] = ()
    events: tuple[Event, ...] = ()
    requeue_after_s: float | None = None
