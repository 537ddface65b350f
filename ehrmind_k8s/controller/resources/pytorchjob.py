"""A training stage as a PyTorchJob of the training operator (v1).

One node: a Master alone. Several: Workers alone that meet through torchrun's own rendezvous (c10d) at the first of them, all or none. Never
both: Workers beside a Master get an init container that no namespace with `restricted` lets in.

The operator's own run policy does nothing here: it counts restarts of pods that are replaced, and looks at deadlines only when something else
happens. One pod that fails fails the job, and what still runs is deleted.
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

KIND = "PyTorchJob"
CONTAINER = "pytorch"  # its webhook asks for this name
SET_BY_OPERATOR = ("PYTHONUNBUFFERED",)  # a second entry of one name breaks server-side apply of whoever touches the pod


def render(run: Run, step: Step, attempt: int, profile: Profile) -> list[Object]:
    """The PyTorchJob. Without `suspend`: a queue sets it, and it is the queue's from then on."""
    name, size = crd.child_name(run.name, step.stage, attempt), stage.size(step, profile)
    template = stage.template(run, step, attempt, profile, CONTAINER, rollout.urls(run))
    main = template["spec"]["containers"][0]
    main["env"] = [entry for entry in main["env"] if entry["name"] not in SET_BY_OPERATOR]
    restart = template["spec"].pop("restartPolicy")  # said in the replica's own field: in both places it is a warning
    replica = {"replicas": size.nodes, "restartPolicy": restart, "template": template}  # written out: its webhook wants the 1 of a Master
    spec: Object = {
        "runPolicy": {"cleanPodPolicy": "Running", "backoffLimit": 0},
        "nprocPerNode": str(size.processes),  # `auto` would be the cores of a node without GPUs
        "pytorchReplicaSpecs": {"Master" if size.nodes == 1 else "Worker": replica},
    }
    if size.nodes > 1:
        spec["elasticPolicy"] = {"rdzvBackend": "c10d", "minReplicas": size.nodes, "maxReplicas": size.nodes, "maxRestarts": 0}
    meta = metadata.metadata(run, name, step.stage, attempt, metadata.queue_labels(run, profile))
    return [stamped({"apiVersion": "kubeflow.org/v1", "kind": KIND, "metadata": meta, "spec": spec})]


def observe(child: Child, pods: Sequence[Pod]) -> tuple[Phase, str]:
    """What the PyTorchJob is doing."""
    return observation.phase(child, pods, ("Succeeded",), ("Failed",), part(child.object, "spec", "runPolicy").get("suspend"))
