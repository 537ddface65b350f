"""The rollout servers: from about one stage before the first that wants them (`plan.serving_from`) to the end of the last.

They outlive the attempts of a trainer, whose retry must not restart vLLM, and follow `spec.rollout.replicas` at any time.
"""

from dataclasses import dataclass
from typing import Literal

from ehrmind_k8s import crd, plan
from ehrmind_k8s.controller.policies import placement
from ehrmind_k8s.controller.policies.admission import Case
from ehrmind_k8s.controller.records import Child, Delete, Object, Pod, Snapshot, part
from ehrmind_k8s.controller.resources import rollout
from ehrmind_k8s.controller.state import State

ROLE = "rollout"


@dataclass(frozen=True, slots=True)
class Servers:
    """How many rollout servers there are to be, and are ready; `held`: what keeps one of the others from it, where that is known."""

    wanted: int = 0
    ready: int = 0
    held: str = ""

    def __str__(self) -> str:
        return f"{self.ready}/{self.wanted} rollouts"


def needed(current: State, case: Case) -> bool:
    """Whether the run has rollout servers now, wherever they are."""
    return _has_pods(current) and _when(current, case) == "now"


def _has_pods(current: State) -> bool:
    return not current.ended and current.state != crd.SUSPENDED


def _when(current: State, case: Case) -> Literal["never", "later", "now", "over"]:
    """Whether the stages that are done have come to those that want servers."""
    first = plan.serving_from(case.steps)
    if first is None:
        return "never"
    at = next((i for i, step in enumerate(case.steps) if not current.stage(step.stage).done), len(case.steps))
    if not any(step.wants_rollout for step in case.steps[at:]):
        return "over"
    begun = case.steps[at].wants_rollout if placement.together(case) else at >= first
    return "now" if begun else "later"


def count(current: State, case: Case, snapshot: Snapshot) -> Servers:
    """Servers wanted and ready now."""
    if not case.run or not needed(current, case):
        return Servers()
    return Servers(case.run.spec.rollout.replicas, sum(p.ready and not p.deleting for p in pods(snapshot)))


def pods(snapshot: Snapshot) -> list[Pod]:
    """The pods of the rollout servers."""
    return [p for p in snapshot.pods if p.role == ROLE]


def objects(current: State, case: Case) -> list[Object]:
    """What to apply: Deployment, Service and PDB, where they are not part of the training job."""
    if not case.run or not case.profile or placement.together(case) or not needed(current, case):
        return []
    return list(rollout.render(case.run, case.profile, case.servers))


def superfluous(current: State, case: Case, snapshot: Snapshot) -> tuple[Delete, ...]:
    """Their objects, once nothing needs them. Where they are needed later, they are there only because this copy of the run is old."""
    if _has_pods(current) and _when(current, case) in ("later", "now") and not placement.together(case):
        return ()
    mine = [c for c in snapshot.children if c.ours and not c.deleting and _is_rollout(c)]
    return tuple(Delete(c.kind, c.name, c.uid) for c in mine)


def status(current: State, case: Case, servers: Servers) -> dict[str, object]:
    """The `rollout` part of the status, which the scale subresource reads."""
    if not case.run or not any(step.wants_rollout for step in case.steps):
        return {}
    selector = f"{crd.LABEL_RUN_UID}={case.run.uid},{crd.LABEL_ROLE}={ROLE}"
    return {"replicas": servers.wanted, "ready": servers.ready, "selector": selector}


def _is_rollout(child: Child) -> bool:
    labels = part(child.object, "metadata", "labels")
    return child.kind in ("Deployment", "Service", "PodDisruptionBudget") and labels.get(crd.LABEL_ROLE) == ROLE
