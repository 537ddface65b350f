"""Which object runs a stage, and what it is doing: the one place that knows all kinds."""

from collections.abc import Sequence
from typing import Literal

from ehrmind_k8s import plan
from ehrmind_k8s.controller.records import Child, Phase, Pod
from ehrmind_k8s.controller.resources import job, metadata, pytorchjob, trainjob
from ehrmind_k8s.controller.resources.metadata import Object
from ehrmind_k8s.crd import Run
from ehrmind_k8s.errors import SpecError
from ehrmind_k8s.plan import Step
from ehrmind_k8s.profile import Profile

Trainer = Literal["pytorchjob", "trainjob"]

RENDER = {job.KIND: job.render, pytorchjob.KIND: pytorchjob.render, trainjob.KIND: trainjob.render}
OBSERVE = {job.KIND: job.observe, pytorchjob.KIND: pytorchjob.observe, trainjob.KIND: trainjob.observe}
INSTALL = {
    "PyTorchJob": "the Kubeflow training operator (v1), which serves PyTorchJob",
    "TrainJob": "Kubeflow Trainer (v2) with JobSet, which serve TrainJob",
}


def choose(profile: Profile, served: frozenset[str], queue: str, together: bool = False) -> Trainer:
    """How training stages run on a cluster that serves these kinds. Raises SpecError saying what to install.

    PyTorchJob where it is served; in a queue TrainJob where both are, since that is admitted together with its rollout servers. `together`: the
    run has such servers, so that nothing else will do in a queue unless the profile insists.
    """
    wanted = {"pytorchjob": ("PyTorchJob",), "trainjob": ("TrainJob",)}.get(profile.trainer.kind, ("PyTorchJob", "TrainJob"))
    found = [kind for kind in (reversed(wanted) if queue else wanted) if kind in served]
    if queue and together and profile.trainer.kind == "auto" and "TrainJob" not in served:
        raise SpecError(
            f"in queue {queue} a job and the rollout servers that it samples from have to be admitted together, or two runs that hold half each would"
            f" wait for ever: install {INSTALL['TrainJob']}; or take the run out of the queue"
        )
    if not found:
        raise SpecError(f"this cluster cannot train: install {' or '.join(INSTALL[kind] for kind in wanted)}{_instead(profile, served)}")
    return "pytorchjob" if found[0] == "PyTorchJob" else "trainjob"


def kind(run: Run, step: Step, profile: Profile, chosen: str) -> str:
    """Kind of the object that runs a step; `chosen` is what `choose` said, "" where it was not asked.

    Evaluation in a queue is a TrainJob too where there are any: a Job and its rollout servers would be admitted apart from each other.
    """
    together = step.wants_rollout and metadata.queue(run, profile)
    if chosen == "trainjob" and (step.stage in plan.TRAINING or together):
        return trainjob.KIND
    return pytorchjob.KIND if step.stage in plan.TRAINING else job.KIND


def holds_rollouts(run: Run, step: Step, profile: Profile, kind: str) -> bool:
    """Whether an object of this kind brings its own rollout servers, so that the run needs no Deployment of them."""
    return kind == trainjob.KIND and trainjob.holds_rollouts(run, step, profile)


def render(kind: str, run: Run, step: Step, attempt: int, profile: Profile) -> list[Object]:
    """The objects of one attempt; the first is the child, any other must be created before it. Raises SpecError."""
    return RENDER[kind](run, step, attempt, profile)


def observe(child: Child, pods: Sequence[Pod]) -> tuple[Phase, str]:
    """What the child of a stage is doing, and why if it does not get on: "" or a code."""
    return OBSERVE[child.kind](child, pods)


def _instead(profile: Profile, served: frozenset[str]) -> str:
    """What else would help: a kind that is served, but not the one that the profile asks for."""
    others = {"pytorchjob": "TrainJob", "trainjob": "PyTorchJob"}
    other = others.get(profile.trainer.kind)
    return f"; {other} is served here: `trainer: {{kind: auto}}` in the profile would use it" if other in served else ""
