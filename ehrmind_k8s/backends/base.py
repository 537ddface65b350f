"""What every place to run offers: submit, status, logs, cancel. One module per place, found by name."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol

from ehrmind_k8s.errors import SpecError, nearest
from ehrmind_k8s.settings import Settings
from ehrmind_k8s.spec import RunSpec

# unfinished: the store shows a run that is not complete, and nobody here knows whether it is going on elsewhere.
RunState = Literal["running", "succeeded", "failed", "cancelled", "interrupted", "unfinished"]

BACKENDS: tuple[str, ...] = ("local", "kubernetes", "kfp")


@dataclass(frozen=True, slots=True)
class Attempt:
    """One try of one stage. `reason` is a code: `running`, `ok`, `skipped`, `complete` (done before), or what ended it."""

    stage: str
    attempt: int
    reason: str
    message: str = ""
    seconds: float = 0.0


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


class Backend(Protocol):
    """A place to run. `run_uri` is always the URI of an existing run directory."""

    def submit(self, spec: RunSpec) -> RunStatus:
        """Run a document, or continue it. Returns how it ended; raises the error that stopped it."""

    def status(self, run_uri: str) -> RunStatus:
        """Where a run is."""

    def logs(self, run_uri: str, source: str | None, follow: bool) -> Iterator[str]:
        """Lines of a run's log: of its newest stage, or of `source` (a stage, or `rollout-<i>`)."""

    def cancel(self, run_uri: str) -> RunStatus:
        """Stop a run and wait until it has stopped. A run that does not go on is left as it is."""

    def delete(self, run_uri: str) -> int:
        """Delete a run from its store and whatever this place keeps about it; returns the number of objects. Raises Busy while it goes on."""


def open(name: str, settings: Settings) -> Backend:
    """The backend called `name`. Raises SpecError for one that is unknown or not built yet."""
    if name == "local":
        from ehrmind_k8s.backends.local.backend import LocalBackend

        return LocalBackend(settings)
    if name in BACKENDS:
        raise SpecError(f"backend {name!r} is not built yet in this release; pass --backend local (or set EHRMIND_BACKEND=local)")
    raise SpecError(f"backend {name!r} is unknown; {nearest(name, BACKENDS)}")
