"""A stage as a batch/v1 Job: prepare, and outside a queue diagnose and evaluate.

One pod, one try. A pod that is lost must not be replaced under the same attempt, whose number it has claimed in the store; retries are the
operator's, under the next number.
"""

from collections.abc import Sequence

from ehrmind_k8s import crd
from ehrmind_k8s.controller.difference import stamped
from ehrmind_k8s.controller.records import Child, Phase, Pod, part
from ehrmind_k8s.controller.resources import metadata, observation, rollout, stage
from ehrmind_k8s.controller.resources.metadata import Object
from ehrmind_k8s.crd import Run
from ehrmind_k8s.plan import Step
from ehrmind_k8s.profile import Profile

KIND, CONTAINER = "Job", "stage"


def render(run: Run, step: Step, attempt: int, profile: Profile) -> list[Object]:
    """The Job. Without `suspend`: a queue sets it, and it is the queue's from then on."""
    name = crd.child_name(run.name, step.stage, attempt)
    job = {
        "apiVersion": "batch/v1",
        "kind": KIND,
        "metadata": metadata.metadata(run, name, step.stage, attempt, metadata.queue_labels(run, profile)),
        "spec": {
            "backoffLimit": 0,
            "podReplacementPolicy": "Failed",
            "template": stage.template(run, step, attempt, profile, CONTAINER, rollout.urls(run)),
        },
    }
    return [stamped(job)]


def observe(child: Child, pods: Sequence[Pod]) -> tuple[Phase, str]:
    """What the Job is doing. SuccessCriteriaMet cannot be taken back, and a cluster whose webhooks fail gets no further than that."""
    return observation.phase(child, pods, ("Complete", "SuccessCriteriaMet"), ("Failed",), part(child.object, "spec").get("suspend"))
