"""What every place to run offers: submit, status, logs, cancel. One module per place, found by name."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol

from ehrmind_k8s.errors import SpecError, nearest

if TYPE_CHECKING:  # so that `ehrmind doctor --help` loads no models
    from ehrmind_k8s.settings import Settings
    from ehrmind_k8s.spec import RunSpec

# unfinished: the store shows a run that is not complete, and nobody here knows whether it is going on elsewhere.
# pending, queued and suspended are states of a run in a cluster: nothing of it runs yet, or any more.
RunState = Literal["pending", "queued", "running", "suspended", "succeeded", "failed", "cancelled", "interrupted", "unfinished"]
ENDS: tuple[RunState, ...] = ("succeeded", "failed", "cancelled")

BACKENDS: tuple[str, ...] = ("local", "kubernetes", "kfp")


@dataclass(frozen=True, slots=True)
class Attempt:
    """One try of one stage. `reason` is a code: `running`, `ok`, `skipped`, `complete` (done before), or what ended it.

    In a cluster there is one of each stage, its newest; 0 is the attempt of a stage that has not begun, and `reason` its state.
    """

    stage: str
    attempt: int
    reason: str
    message: str = ""
    seconds: float = 0.0
    exit_code: int | None = None


@dataclass(frozen=True, slots=True)
class LogLine:
    """One line of a log. `origin` names who wrote it where several write at once, such as the pods of a stage."""

    text: str
    origin: str = ""


@dataclass(frozen=True, slots=True)
class RunStatus:
    """What a person sees of a run. `done` of `total` `unit` in the current stage; `figures` are its latest numbers; times are Unix seconds."""

    name: str
    uri: str
    task: str
    state: RunState
    stage: str = ""
    done: int = 0
    total: int = 0
    unit: str = ""
    figures: Mapping[str, float] = field(default_factory=dict)
    score: float | None = None
    message: str = ""
    attempts: tuple[Attempt, ...] = ()
    rollouts_ready: int = 0
    rollouts_wanted: int = 0
    rollout_restarts: int = 0
    started: float = 0.0
    updated: float = 0.0
    namespace: str = ""  # in a cluster
    uid: str = ""  # of the object in a cluster: one made again under the same name has another


@dataclass(frozen=True, slots=True)
class Check:
    """One line of `ehrmind doctor`. `warn`: works without, with less; `fail`: no run could work; `fix` is what to do about it."""

    name: str
    state: Literal["ok", "warn", "fail"]
    found: str
    fix: str = ""


class Backend(Protocol):
    """A place to run. `run` is what names an existing run there: its URI where this machine runs it, its name in a cluster."""

    def submit(self, spec: "RunSpec", written: Mapping[str, Any]) -> RunStatus:
        """Run a document, or continue it; `written` is what its author wrote of `spec`, for a place that resolves it itself.

        A place in the foreground returns how the run ended, or raises the error that stopped it; a cluster returns at once.
        """

    def follow(self, run: str) -> RunStatus:
        """Stay until a run has ended, and say what happens on standard error. Returns how it ended; raises the error that stopped it."""

    def status(self, run: str) -> RunStatus:
        """Where a run is."""

    def logs(self, run: str, source: str | None, follow: bool) -> Iterator[LogLine]:
        """Lines of a run's log: of its newest stage, or of `source` (a stage, one attempt of it, or `rollout-<i>`)."""

    def cancel(self, run: str) -> RunStatus:
        """Stop a run and wait until it has stopped. A run that does not go on is left as it is."""

    def suspend(self, run: str) -> RunStatus:
        """Free what a run holds until it is resumed."""

    def resume(self, run: str) -> RunStatus:
        """Let a suspended run go on from its last checkpoint."""

    def delete(self, run: str) -> int:
        """Delete what this place keeps of a run; returns the number of objects. Raises Busy while it goes on."""


def open(name: str, settings: "Settings", namespace: str | None = None, context: str | None = None, kubeconfig: str | None = None) -> Backend:
    """The backend called `name`; what follows says which cluster. Raises SpecError for one that is unknown."""
    if name == "local":
        from ehrmind_k8s.backends.local.backend import LocalBackend

        return LocalBackend(settings)
    if name == "kubernetes":
        from ehrmind_k8s.backends.kubernetes.backend import KubernetesBackend

        return KubernetesBackend(namespace, context, kubeconfig)
    if name == "kfp":
        from ehrmind_k8s.backends.kfp.backend import KfpBackend

        return KfpBackend(settings, namespace, context, kubeconfig)
    raise SpecError(f"backend {name!r} is unknown; {nearest(name, BACKENDS)}")
