"""The status of a run as records: what `reconcile` thinks with, and what becomes `.status` of the object.

The status is the operator's only memory, so everything here can be read back as it was written: times are whole seconds, and what cannot be
read counts as not there. A stage goes

    pending -> starting -> (queued ->) running -> succeeded | skipped | failed
       ^                                  |
       +---- next attempt ----------------+

and every way through it has a number of its own, the attempt.
"""

import datetime as dt
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ehrmind_k8s import crd
from ehrmind_k8s.controller import observe

Object = Mapping[str, Any]

ACTIVE = ("queued", "starting", "running")  # a child exists, or is about to
DONE = ("succeeded", "skipped")
AHEAD_S = 60.0


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


def read(obj: Object) -> State:
    """The status of an object, whatever is in it."""
    found = _mapping(obj.get("status"))
    stages = tuple(_stage(s) for s in _list(found.get("stages")) if _text(s, "name"))
    conditions = {_text(c, "type"): _condition(c) for c in _list(found.get("conditions")) if _text(c, "type")}
    progress = _mapping(found.get("progress"))
    return State(
        state=_text(found, "state"),
        attempt=_whole(found, "attempt"),
        generation=_whole(found, "observedGeneration"),
        uri=_text(found, "uri"),
        started=_time(found, "startTime"),
        completed=_time(found, "completionTime"),
        stages=stages,
        conditions=conditions,
        progress=_advance(progress) if progress else None,
        rollout=_mapping(found.get("rollout")),
        resolved={k: v for k, v in _mapping(found.get("resolved")).items() if isinstance(v, str)},
        score=_number(found, "score"),
        message=_text(found, "message"),
    )


def render(state: State) -> dict[str, Any]:
    """What is written as `.status`. Texts are cut to what the schema takes."""
    current, advance = state.current or (state.stages[-1] if state.stages else None), state.progress
    return _filled(
        observedGeneration=state.generation,
        state=state.state,
        stage=current.name if current else "",
        step=f"{advance.done}/{advance.total}" if advance and advance.total else "",
        score=state.score,
        message=line(state.message),
        uri=state.uri[:1024],
        startTime=rfc3339(state.started),
        completionTime=rfc3339(state.completed),
        attempt=state.attempt,
        progress=_written_advance(advance) if advance else None,
        stages=[_written_stage(s) for s in state.stages],
        rollout=dict(state.rollout),
        resolved=dict(state.resolved),
        conditions=[_written_condition(kind, c) for kind, c in state.conditions.items()],
    )


def line(text: str) -> str:
    """A text as one line within the bounds of the status: those are characters to the schema and bytes to us."""
    joined = " ".join(text.split())
    cut = joined.encode("utf-8", "replace")[: crd.MESSAGE_LIMIT]
    return joined if len(cut) < crd.MESSAGE_LIMIT else cut[: crd.MESSAGE_LIMIT - 3].decode("utf-8", "ignore") + "..."


def rfc3339(time: float) -> str:
    """Unix seconds as the API writes times; "" for 0."""
    return dt.datetime.fromtimestamp(time, dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ") if time else ""


def _stage(found: Object) -> Stage:
    child = _mapping(found.get("child"))
    return Stage(
        name=_text(found, "name"),
        state=_text(found, "state") or "pending",
        attempt=_whole(found, "attempt"),
        retries=_whole(found, "retries"),
        kind=_text(child, "kind"),
        child=_text(child, "name"),
        uid=_text(child, "uid"),
        started=_time(found, "startTime"),
        ended=_time(found, "endTime"),
        reason=_text(found, "reason"),
        exit_code=_whole(found, "exitCode") if "exitCode" in found else None,
        score=_number(found, "score"),
        seconds=_number(found, "seconds"),
    )


def _written_stage(stage: Stage) -> dict[str, Any]:
    return _filled(
        name=stage.name,
        state=stage.state,
        attempt=stage.attempt,
        retries=stage.retries,
        child=_filled(kind=stage.kind, name=stage.child, uid=stage.uid),
        startTime=rfc3339(stage.started),
        endTime=rfc3339(stage.ended),
        reason=stage.reason[:64],
        exitCode=stage.exit_code,
        score=stage.score,
        seconds=stage.seconds,
    )


def _condition(found: Object) -> Condition:
    texts = (_text(found, key) for key in ("status", "reason", "message"))
    return Condition(*texts, _time(found, "lastTransitionTime"), _whole(found, "observedGeneration"))


def _written_condition(kind: str, condition: Condition) -> dict[str, Any]:
    return {
        "type": kind,
        "status": condition.status,
        "reason": condition.reason,
        "message": line(condition.message),
        "lastTransitionTime": rfc3339(condition.since),
        "observedGeneration": condition.generation,
    }


def _advance(found: Object) -> Advance:
    figures = {k: float(v) for k, v in _mapping(found.get("figures")).items() if _finite(v)}
    return Advance(_whole(found, "done"), _whole(found, "total"), _text(found, "unit"), figures, _time(found, "updated"))


def _written_advance(advance: Advance) -> dict[str, Any]:
    whole = {"done": advance.done, "total": advance.total}
    return whole | _filled(unit=advance.unit, figures=dict(advance.figures), updated=rfc3339(advance.updated))


def _filled(**fields: Any) -> dict[str, Any]:
    """The fields that say something: a status without empty ones is easier to read."""
    return {k: v for k, v in fields.items() if v not in (None, "", [], {})}


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _list(value: Any) -> Sequence[Mapping[str, Any]]:
    return [v for v in value if isinstance(v, Mapping)] if isinstance(value, list) else []


def _text(found: Object, key: str) -> str:
    value = found.get(key)
    return value if isinstance(value, str) else ""


def _whole(found: Object, key: str) -> int:
    value = found.get(key)
    return value if isinstance(value, int) and not isinstance(value, bool) else 0


def _number(found: Object, key: str) -> float | None:
    value = found.get(key)
    return float(value) if _finite(value) else None


def _time(found: Object, key: str) -> float:
    return observe.seconds(_text(found, key))


def _finite(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e300 and math.isfinite(value)
