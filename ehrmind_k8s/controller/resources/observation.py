"""What a stage's child is doing, from its conditions and its pods. Shared by the builders, each of which knows its own conditions.

Ends are read from conditions alone, and before anything else: pods of a job that failed are deleted, and a condition that does not hold
any more stays in the list with status False.
"""

from collections.abc import Sequence
from typing import Any

from ehrmind_k8s.controller.records import Child, Object, Phase, Pod, parts

SUSPENDED = "Suspended"
UNSCHEDULABLE = "Unschedulable"


def phase(child: Child, pods: Sequence[Pod], good: Sequence[str], bad: Sequence[str], suspend: Any) -> tuple[Phase, str]:
    """Phase and a reason code ("" when there is nothing to say). `good` and `bad` are conditions of an end, `suspend` what the spec says.

    `queued` is what a queue or somebody holds back: its spec says so before a condition does.
    """
    conditions = holding(child.object)
    for kinds, end in ((good, "succeeded"), (bad, "failed")):
        for kind in kinds:
            if kind in conditions:
                return ("succeeded" if end == "succeeded" else "failed"), conditions[kind]
    if suspend or (suspend is None and SUSPENDED in conditions):
        return "queued", SUSPENDED
    own = [p for p in pods if p.role == child.stage and p.attempt == child.attempt]
    return ("running" if any(p.started or p.phase not in ("Pending", "Unknown") for p in own) else "starting"), stuck(own)


def holding(obj: Object) -> dict[str, str]:
    """The conditions of an object that hold, each with its reason."""
    return {str(c.get("type")): str(c.get("reason") or "") for c in parts(obj, "status", "conditions") if c.get("status") == "True"}


def stuck(pods: Sequence[Pod]) -> str:
    """Why the first pod that cannot start does not, as a code; "" when none is held up."""
    return next((p.waiting or UNSCHEDULABLE for p in pods if p.waiting or p.unschedulable), "")
