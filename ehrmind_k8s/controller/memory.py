"""The status of a run is the operator's only memory: what is written here is all that the next pass, or the next operator, knows.

So whatever is written can be read back as it was: times are whole seconds, and what makes no sense counts as not there. What is cut to the
bounds of the schema (`crd/status.py`) is text for people alone.
"""

import datetime as dt
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from ehrmind_k8s import crd
from ehrmind_k8s.controller import observe
from ehrmind_k8s.controller.state import VOUCHERS, Advance, Condition, Stage, State
from ehrmind_k8s.crd.names import STATES
from ehrmind_k8s.crd.status import FIGURES, STAGE_STATES
from ehrmind_k8s.spec import STAGES

Object = Mapping[str, Any]

URI_LIMIT = 1024
_REASON = re.compile("[A-Za-z][A-Za-z0-9]*")
RESOLVED = ("operatorVersion", "profile", "profileHash", "specHash", "trainer", *VOUCHERS)


def read(obj: Object) -> State:
    """The status of an object, whatever is in it."""
    found = _mapping(obj.get("status"))
    stages = tuple(_stage(s) for s in _list(found.get("stages")) if _text(s, "name") in STAGES)
    conditions = {_text(c, "type"): made for c in _list(found.get("conditions")) if _is_whole_condition(made := _condition(c))}
    progress, rollout = _mapping(found.get("progress")), _mapping(found.get("rollout"))
    return State(
        state=_one_of(found, "state", STATES),
        attempt=_whole(found, "attempt"),
        generation=_whole(found, "observedGeneration"),
        uri=_text(found, "uri", URI_LIMIT),
        started=_time(found, "startTime"),
        completed=_time(found, "completionTime"),
        stages=stages,
        conditions=conditions,
        progress=_advance(progress) if progress else None,
        rollout=_rollout(rollout) if rollout else {},
        resolved={key: text for key in RESOLVED if (text := _text(_mapping(found.get("resolved")), key))},
        score=_number(found, "score"),
        message=_text(found, "message", crd.MESSAGE_LIMIT),
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
        uri=state.uri[:URI_LIMIT],
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
    encoded = " ".join(text.split()).encode("utf-8", "replace")
    cut = encoded if len(encoded) <= crd.MESSAGE_LIMIT else encoded[: crd.MESSAGE_LIMIT - 3] + b"..."
    return cut.decode("utf-8", "ignore")


def rfc3339(time: float) -> str:
    """Unix seconds as the API writes times; "" for 0."""
    return dt.datetime.fromtimestamp(time, dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ") if time else ""


def _stage(found: Object) -> Stage:
    child = _mapping(found.get("child"))
    return Stage(
        name=_text(found, "name"),
        state=_one_of(found, "state", STAGE_STATES) or "pending",
        attempt=_whole(found, "attempt"),
        retries=_whole(found, "retries"),
        kind=_text(child, "kind", 32),
        child=_text(child, "name", 63),
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
    status, reason, message = (
        _one_of(found, "status", ("True", "False", "Unknown")),
        _text(found, "reason"),
        _text(found, "message", crd.MESSAGE_LIMIT),
    )
    return Condition(status, reason, message, _time(found, "lastTransitionTime"), _whole(found, "observedGeneration"))


def _is_whole_condition(found: Condition) -> bool:
    return bool(found.status and found.since and _REASON.fullmatch(found.reason))


def _written_condition(kind: str, condition: Condition) -> dict[str, Any]:
    return {
        "type": kind,
        "status": condition.status,
        "reason": condition.reason,
        "message": line(condition.message),
        "lastTransitionTime": rfc3339(condition.since),
        "observedGeneration": condition.generation,
    }


def _rollout(found: Object) -> dict[str, Any]:
    return {"replicas": _whole(found, "replicas"), "ready": _whole(found, "ready"), "selector": _text(found, "selector", 512)}


def _advance(found: Object) -> Advance:
    figures = {k: float(v) for k, v in list(_mapping(found.get("figures")).items())[:FIGURES] if _finite(v)}
    return Advance(_whole(found, "done"), _whole(found, "total"), _text(found, "unit", 32), figures, _time(found, "updated"))


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


def _text(found: Object, key: str, limit: int = 64) -> str:
    """A text that is not longer than the schema takes: most are names and codes."""
    value = found.get(key)
    return value[:limit] if isinstance(value, str) else ""


def _one_of(found: Object, key: str, known: Sequence[str]) -> str:
    value = _text(found, key)
    return value if value in known else ""


def _whole(found: Object, key: str) -> int:
    value = found.get(key)
    return value if isinstance(value, int) and not isinstance(value, bool) else 0


def _number(found: Object, key: str) -> float | None:
    value = found.get(key)
    return float(value) if value is not None and _finite(value) else None


def _time(found: Object, key: str) -> float:
    try:
        return max(0.0, observe.seconds(_text(found, key)))
    except OverflowError:
        return 0.0


def _finite(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e300 and math.isfinite(value)
