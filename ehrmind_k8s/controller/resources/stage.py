"""The pod of one attempt of a stage, the same whichever object starts it.

    prepare, diagnose,
    evaluate              python -m ehrmind_k8s.stages prepare --run URI --attempt K
    sft, rlvr             python -m torch.distributed.run -m -- ehrmind_k8s.stages sft --run URI --attempt K

The launcher gets no rendezvous flags: training operators say them in the environment (PET_*). The stage holds EHRMIND_WORLD_SIZE against the
number of processes that the launcher started, because one that was told nothing trains alone in every pod, and succeeds.
"""

from dataclasses import dataclass
from typing import cast

from ehrmind_k8s import plan
from ehrmind_k8s.controller.resources import document, pod
from ehrmind_k8s.controller.resources.metadata import Object
from ehrmind_k8s.crd import Run
from ehrmind_k8s.plan import Step
from ehrmind_k8s.profile import Profile, Role

LAUNCHER = ("python", "-m", "torch.distributed.run", "-m", "--")


@dataclass(frozen=True, slots=True)
class Size:
    """Pods of a stage, GPUs of each, and processes in each."""

    nodes: int
    gpus: int
    processes: int

    @property
    def world(self) -> int:
        """Processes in all."""
        return self.nodes * self.processes


def size(step: Step, profile: Profile) -> Size:
    """How large a stage is. Training spreads over all GPUs; a stage that samples by itself takes one, for it is one process.

    Beside servers no stage but training needs any: diagnose computes the canary of the start model, a few tokens, on the CPU.
    """
    if step.stage in plan.TRAINING:
        return Size(profile.trainer.nodes, profile.trainer.gpus, max(1, profile.trainer.gpus))
    return Size(1, min(1, profile.trainer.gpus) if step.image == "ehrmind-trainer" and not step.wants_rollout else 0, 1)


def template(run: Run, step: Step, attempt: int, profile: Profile, container: str, rollout_urls: str) -> Object:
    """The pod template, with `container` as the name that the object wants. `rollout_urls` reach a stage that samples with vLLM."""
    made, argv = size(step, profile), step.argv(document.run_uri(run, profile), attempt)
    role = cast(Role, step.stage)
    env = {"EHRMIND_ROLLOUT_URLS": rollout_urls} if step.wants_rollout else {}
    if step.stage in plan.TRAINING:
        command = [*LAUNCHER, *argv[1:]]
        # The launcher gives its processes 30 s to save after SIGTERM, the pod more: what is left of that is for the launcher itself.
        env |= {"EHRMIND_WORLD_SIZE": str(made.world), "TORCH_ELASTIC_SHUTDOWN_TIMEOUT": str(pod.GRACE_S[role] - 10)}
    else:
        command = ["python", *argv]
    image = {"ehrmind": profile.images.ehrmind, "ehrmind-trainer": profile.images.trainer}[step.image]
    return pod.template(run, profile, role, attempt, container, command, image, gpus=made.gpus, processes=made.processes, env=env)
