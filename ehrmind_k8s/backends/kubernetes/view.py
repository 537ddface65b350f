"""An EHRMindRun object as the status that people and scripts see, the same as of a run on this machine. Pure."""

import datetime as dt
from collections.abc import Mapping
from typing import Any

from ehrmind_k8s import crd
from ehrmind_k8s.backends.base import Attempt, RunStatus
from ehrmind_k8s.spec import STAGES

UNSEEN = "waiting for the operator"  # message of a run that it has not looked at yet


def status(obj: Mapping[str, Any]) -> RunStatus:
    """Where a run is. A state that the spec has overtaken does not count any more: an end of an earlier attempt, a suspension that was lifted."""
    meta, spec, found = obj["metadata"], obj.get("spec") or {}, obj.get("status") or {}
    progress, rollout = found.get("progress") or {}, found.get("rollout") or {}
    seen = bool(found.get("state")) and not _overtaken(spec, found)
    times = [progress.get("updated"), found.get("completionTime"), found.get("startTime")]
    return RunStatus(
        name=meta["name"],
        uri=found.get("uri") or "",
        task=spec.get("task") or "",
        state=found["state"] if seen else "pending",
        stage=found.get("stage") or "",
        done=progress.get("done") or 0,
        total=progress.get("total") or 0,
        unit=progress.get("unit") or "",
        figures=progress.get("figures") or {},
        score=found.get("score"),
        message=(found.get("message") or "") if seen else UNSEEN,
        attempts=tuple(_attempt(stage) for stage in _in_order(found.get("stages") or ())),
        rollouts_ready=rollout.get("ready") or 0,
        rollouts_wanted=rollout.get("replicas") or 0,
        started=seconds(meta.get("creationTimestamp")),
        updated=max(map(seconds, times)),
        namespace=meta.get("namespace") or "",
        uid=meta.get("uid") or "",
    )


def _overtaken(spec: Mapping[str, Any], found: Mapping[str, Any]) -> bool:
    """Whether the run was asked to go on, and the operator has not seen it yet."""
    if found.get("state") == crd.SUSPENDED:
        return not spec.get("suspend")
    return found.get("state") in crd.TERMINAL and (found.get("attempt") or 1) < (spec.get("attempt") or 1)


def _attempt(stage: Mapping[str, Any]) -> Attempt:
    retries, why = stage.get("retries") or 0, stage.get("reason") or ""
    ended = stage["state"] in ("succeeded", "failed", "skipped")
    notes = [f"{retries} {'retry' if retries == 1 else 'retries'}"] if retries else []
    if why and not ended:  # how the attempt before ended
        notes.insert(0, f"after {why}")
    took = stage.get("seconds")
    if took is None and ended and stage.get("startTime") and stage.get("endTime"):
        took = seconds(stage["endTime"]) - seconds(stage["startTime"])
    return Attempt(
        stage["name"],
        stage.get("attempt") or 0,
        why or "failed" if stage["state"] == "failed" else stage["state"],
        ", ".join(notes),
        float(took or 0),
        stage.get("exitCode"),
    )


def _in_order(stages: Any) -> list[Mapping[str, Any]]:
    """The stages as a run goes through them: a list keyed by name may come in any order."""
    return sorted(stages, key=lambda stage: STAGES.index(stage["name"]) if stage["name"] in STAGES else len(STAGES))


def seconds(time: str | None) -> float:
    """A time of the API (RFC 3339) in Unix seconds; 0 when there is none."""
    return dt.datetime.fromisoformat(time).timestamp() if time else 0.0
