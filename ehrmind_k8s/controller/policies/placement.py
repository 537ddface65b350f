"""Which object runs a stage, and whether the rollout servers are part of it.

With a queue, a TrainJob holds trainer and rollout servers together, so that both are admitted or neither: two runs that each hold half would
wait for each other for ever.
"""

from collections.abc import Sequence

from ehrmind_k8s.controller.policies.admission import Case
from ehrmind_k8s.controller.records import Child, Object, Phase, Pod, Snapshot
from ehrmind_k8s.controller.resources import metadata, trainer
from ehrmind_k8s.plan import Step

ENDED = ("succeeded", "failed")


def kind(step: Step, case: Case) -> str:
    """Kind of the object that runs a step."""
    assert case.run and case.profile
    return trainer.kind(case.run, step, case.profile, case.trainer)


def render(step: Step, attempt: int, case: Case) -> list[Object]:
    """The objects of one attempt; the first is the child, any other must be created before it. Raises SpecError."""
    assert case.run and case.profile
    return list(trainer.render(kind(step, case), case.run, step, attempt, case.profile))


def observe(child: Child, pods: Sequence[Pod]) -> Phase:
    """What a child is doing."""
    return trainer.observe(child, pods)[0]


def working(child: Child, pods: Sequence[Pod]) -> bool:
    """Whether a child has not ended yet."""
    return observe(child, pods) not in ENDED


def together(case: Case) -> bool:
    """Whether the rollout servers are part of the jobs that sample from them."""
    if not case.run or not case.profile:
        return False
    sampling = [s for s in case.steps if s.wants_rollout]
    return any(trainer.holds_rollouts(case.run, s, case.profile, kind(s, case)) for s in sampling)


def primaries(snapshot: Snapshot, stage: str = "") -> list[Child]:
    """The run's own objects that run attempts of a stage, or of any."""
    return [c for c in snapshot.children if c.ours and c.kind in trainer.OBSERVE and c.stage and stage in ("", c.stage)]


def visible(snapshot: Snapshot) -> frozenset[str]:
    """Kinds that run stages and that the API server has."""
    return frozenset(k for k in trainer.OBSERVE if k == "Job" or k in snapshot.served)


def queue(case: Case) -> str:
    """Name of the queue that the run's jobs wait in, "" where there is none."""
    return metadata.queue(case.run, case.profile) if case.run and case.profile else ""
