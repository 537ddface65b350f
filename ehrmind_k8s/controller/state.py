"""Where a run is, as records: what `reconcile` thinks with. `memory` reads them from `.status` and writes them there.

A stage goes

    pending -> starting -> (queued ->) running -> succeeded | skipped | failed
       ^                                  |
       +---- next attempt ----------------+

and every way through it has a number of its own, the attempt.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from ehrmind_k8s import crd

ACTIVE = ("queued", "starting", "running")  # a child exists, or is about to
DONE = ("succeeded", "skipped")
AHEAD_S = 60.0
# Keys of `resolved`: hashes of what the ConfigMaps of a run hold. Nothing else under their names is believed.
FROZEN_SPEC, FROZEN_PROFILE = VOUCHERS = ("frozenSpec", "frozenProfile")


@dataclass(frozen=True, slots=True)
class Stage:
    """One stage and its newest attempt. `uid` is empty until the child was seen; `ended` of an active stage: it ended, how is not known yet."""

    name: str
    state: str = "pending"
    attempt: int = 0
    retries: int = 0
    kind: str = ""
    child: str = ""
    uid: str = ""
    started: float = 0.0
    ended: float = 0.0
    reason: str = ""
    exit_code: int | None = None
    score: float | None = None
    seconds: float | None = None

    @property
    def active(self) -> bool:
        """Whether its newest attempt is under way."""
        return self.state in ACTIVE

    @property
    def done(self) -> bool:
        """Whether what follows may begin."""
        return self.state in DONE


@dataclass(frozen=True, slots=True)
class Condition:
    """One aspect of a run, as metav1.Condition has it. `since`: when `status` changed last."""

    status: str
    reason: str
    message: str
    since: float
    generation: int


@dataclass(frozen=True, slots=True)
class Advance:
    """How far the newest attempt of the current stage is, as it is shown."""

    done: int = 0
    total: int = 0
    unit: str = ""
    figures: Mapping[str, float] = field(default_factory=dict)
    updated: float = 0.0


@dataclass(frozen=True, slots=True)
class State:
    """Where a run is. `state` is "" before the operator has looked at it. The last four are thoughts of one pass and are not written."""

    state: str = ""
    attempt: int = 0
    generation: int = 0
    uri: str = ""
    started: float = 0.0
    completed: float = 0.0
    stages: tuple[Stage, ...] = ()
    conditions: Mapping[str, Condition] = field(default_factory=dict)
    progress: Advance | None = None
    rollout: Mapping[str, Any] = field(default_factory=dict)
    resolved: Mapping[str, str] = field(default_factory=dict)
    score: float | None = None
    message: str = ""

    reason: str = ""  # why the run ended, as a code
    note: str = ""  # what the next attempt waits for
    headline: Mapping[str, float] = field(default_factory=dict)
    wake_s: float | None = None  # when to look again even if nothing happens

    @property
    def ended(self) -> bool:
        """Whether it is over, unless `spec.attempt` is raised."""
        return self.state in crd.TERMINAL

    def revived(self, attempt: int) -> bool:
        """Whether this `spec.attempt` leads out of its end. Nobody goes back behind a success."""
        return self.ended and self.state != crd.SUCCEEDED and attempt > self.attempt

    @property
    def accepted(self) -> bool:
        """Whether it was taken on; from then on its recipe is frozen."""
        return bool(self.resolved.get("specHash"))

    @property
    def current(self) -> Stage | None:
        """The first stage that is not done."""
        return next((s for s in self.stages if not s.done), None)

    def stage(self, name: str) -> Stage:
        """The stage of this name, untouched where there is none yet."""
        return next((s for s in self.stages if s.name == name), Stage(name))

    def having(self, stage: Stage) -> "State":
        """This with one of its stages replaced."""
        return replace(self, stages=tuple(stage if s.name == stage.name else s for s in self.stages))

    def holds(self, condition: str) -> bool:
        """Whether a condition is True."""
        return condition in self.conditions and self.conditions[condition].status == "True"

    def waking(self, after_s: float | None) -> "State":
        """This, looked at again after so many seconds at the latest."""
        times = [t for t in (self.wake_s, after_s) if t is not None]
        return replace(self, wake_s=min(times, default=None))


def left_s(since: float, wait_s: float, now: float) -> float:
    """What is left of a wait that began at `since`. A beginning far ahead of now was written by a wrong clock: that wait is over."""
    return 0.0 if since > now + AHEAD_S else max(0.0, min(wait_s, since + wait_s - now))
