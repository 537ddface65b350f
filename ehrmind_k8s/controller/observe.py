"""What the API server and the pods say, as the records that `reconcile` reads. Pure: raw objects in, `records` out.

Everything a pod says about itself is checked here against what we know words for: stages, codes, finite numbers, in bounded amounts. Free
text of a pod never gets further than this file.
"""

import datetime as dt
import json
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, TypeGuard

from ehrmind_k8s import crd
from ehrmind_k8s.controller.records import Child, Object, Pod, Progress, Report
from ehrmind_k8s.spec import STAGES

REPORT_LIMIT = 4096  # bytes of a termination message, by Kubernetes
FIGURES_LIMIT = 16
TEXT_LIMIT = 300
WAITS = ("", "rollouts")

_CODE = re.compile(r"[A-Za-z][A-Za-z0-9]{0,63}")
_NAME = re.compile(r"[a-z][a-z0-9_@.]{0,39}")
_UNIT = re.compile(r"[A-Za-z]{1,24}")
# On their way; not a reason to worry.
_STARTING = ("ContainerCreating", "PodInitializing")
# Labels in which the training operators say which pod of a job it is.
_INDEX = ("training.kubeflow.org/replica-index", "batch.kubernetes.io/job-completion-index")


def seconds(time: str | None) -> float:
    """A time of the API (RFC 3339) in Unix seconds; 0 when there is none or it cannot be read."""
    try:
        return dt.datetime.fromisoformat(time).timestamp() if time else 0.0
    except ValueError:
        return 0.0


def child(raw: Object, run_uid: str) -> Child:
    """An object that carries the labels of a run of this name. It is `ours` when the run of this uid controls it."""
    meta = raw["metadata"]
    labels = meta.get("labels") or {}
    role = labels.get(crd.LABEL_ROLE, "")
    return Child(
        kind=raw["kind"],
        name=meta["name"],
        uid=meta.get("uid", ""),
        ours=owned(raw, run_uid),
        stage=role if role in STAGES else "",
        attempt=_whole(labels.get(crd.LABEL_ATTEMPT)),
        created=seconds(meta.get("creationTimestamp")),
        deleting="deletionTimestamp" in meta,
        object=raw,
    )


def owned(raw: Object, run_uid: str) -> bool:
    """Whether the run of this uid is the controller of an object."""
    owners = raw["metadata"].get("ownerReferences") or ()
    return any(o.get("controller") and o.get("uid") == run_uid and o.get("kind") == crd.KIND for o in owners)


def followed(run: Object) -> bool:
    """Whether a run is to end with whoever follows it."""
    return (run["metadata"].get("annotations") or {}).get(crd.ANNOTATION_FOLLOWED) == "true"


def pod(raw: Object) -> Pod:
    """What matters of a pod. Its leader is the pod that is rank 0: the only one of a Job, the first of a training job.

    torchrun gives ranks in the order of host names, so of several elastic workers, too, the first is rank 0.
    """
    meta, status = raw["metadata"], raw.get("status") or {}
    labels = meta.get("labels") or {}
    role = labels.get(crd.LABEL_ROLE, "")
    containers = status.get("containerStatuses") or []
    conditions = {c.get("type"): c for c in status.get("conditions") or ()}
    waiting = _waiting([*(status.get("initContainerStatuses") or ()), *containers])
    ended, report = _ending(containers)
    scheduled = conditions.get("PodScheduled") or {}
    starts = [seconds(state.get("startedAt")) for c in containers for state in _states(c) if state.get("startedAt")]
    return Pod(
        name=meta["name"],
        uid=meta.get("uid", ""),
        role=role,
        attempt=_whole(labels.get(crd.LABEL_ATTEMPT)),
        phase=status.get("phase") or "Pending",
        ready=(conditions.get("Ready") or {}).get("status") == "True",
        leader=role in STAGES and next((labels[i] for i in _INDEX if i in labels), "0") == "0",
        deleting="deletionTimestamp" in meta,
        gone_by=seconds(meta.get("deletionTimestamp")),  # the server adds the grace period to the time of the request
        created=seconds(meta.get("creationTimestamp")),
        started=min(starts, default=0.0),
        ip=status.get("podIP") or "",
        node=(raw.get("spec") or {}).get("nodeName") or "",
        waiting=waiting.get("reason") or "",
        waiting_message=_line(waiting.get("message")),
        unschedulable=_line(scheduled.get("message")) if scheduled.get("reason") == "Unschedulable" else "",
        exit_code=ended.get("exitCode"),
        exit_reason=status.get("reason") or ended.get("reason") or "",
        disrupted=(conditions.get("DisruptionTarget") or {}).get("status") == "True",
        restarts=sum(c.get("restartCount") or 0 for c in containers),
        report=report,
    )


def report(message: str) -> Report | None:
    """A termination message as a report; None when it is anything else, so that text of a crash stays where it is."""
    found = _json_object(message.encode()[: REPORT_LIMIT + 1]) if len(message.encode()) <= REPORT_LIMIT else None
    if not found or found.get("stage") not in STAGES or not _CODE.fullmatch(str(found.get("reason"))):
        return None
    attempt, code = found.get("attempt"), found.get("exit_code")
    if not _is_whole(attempt) or not _is_whole(code):
        return None
    took = _finite(found.get("seconds"))
    return Report(found["stage"], attempt, found["reason"], code, _finite(found.get("score")), max(0.0, took or 0.0), _figures(found.get("headline")))


def progress(body: bytes, leader: Pod, now: float, before: Progress | None) -> Progress | None:
    """The answer of a leader at /progress; None when it is not one, or another stage's or attempt's. `before`: the last one read, of any pod."""
    found = _json_object(body)
    if not found or found.get("stage") != leader.role or found.get("attempt") != leader.attempt:
        return None
    done, total, unit = found.get("done"), found.get("total"), str(found.get("unit") or "")
    if not _is_whole(done) or not _is_whole(total) or (unit and not _UNIT.fullmatch(unit)):
        return None
    waiting = found.get("waiting") if found.get("waiting") in WAITS else ""
    same = before is not None and before.pod_uid == leader.uid
    changed = before.changed if same and before and before.done >= done else now
    return Progress(leader.uid, leader.role, leader.attempt, done, total, unit, _figures(found.get("figures")), waiting or "", now, changed)


def _ending(containers: Sequence[Mapping[str, Any]]) -> tuple[Mapping[str, Any], Report | None]:
    """How the container that matters ended ({} while it has not), and its report. Sidecars that a cluster injects write none."""
    ends = [c["state"]["terminated"] for c in containers if (c.get("state") or {}).get("terminated")]
    for end in ends:
        if found := report(end.get("message") or ""):
            return end, found
    return (next((e for e in ends if e.get("exitCode")), ends[0]) if ends else {}), None


def _waiting(containers: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """What the first container that cannot start waits for."""
    waits = [(c.get("state") or {}).get("waiting") or {} for c in containers]
    return next((w for w in waits if w.get("reason") and w["reason"] not in _STARTING), {})


def _states(container: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [s for which in ("state", "lastState") for s in (container.get(which) or {}).values()]


def _figures(found: Any) -> dict[str, float]:
    items = found.items() if isinstance(found, dict) else ()
    known = {k: v for k, value in items if _NAME.fullmatch(k) and (v := _finite(value)) is not None}
    return dict(list(known.items())[:FIGURES_LIMIT])


def _json_object(text: bytes) -> dict[str, Any] | None:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _is_whole(value: Any) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 53


def _finite(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e300 and math.isfinite(value) else None


def _whole(text: str | None) -> int:
    return int(text) if text and text.isascii() and text.isdigit() and len(text) < 10 else 0


def _line(text: str | None) -> str:
    return " ".join((text or "").split())[:TEXT_LIMIT]
