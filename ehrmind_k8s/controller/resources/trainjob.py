"""A stage as a TrainJob of Kubeflow Trainer (v2), with the TrainingRuntime that holds its pod template.

Both are made anew for each attempt: the fields that matter are immutable, and a TrainJob made again under its old name hangs, because the new
pods meet those of the old one.

In a queue the rollout servers are part of it, as a second replicated job: one workload, admitted whole or not at all. Apart from each other,
two runs that each hold one half would wait for ever. Their number is fixed then.
"""

from collections.abc import Sequence

from ehrmind_k8s import crd
from ehrmind_k8s.controller.difference import stamped
from ehrmind_k8s.controller.records import Child, Phase, Pod, part
from ehrmind_k8s.controller.resources import metadata, observation, rollout, stage
from ehrmind_k8s.controller.resources.metadata import NAME_LIMIT, Object
from ehrmind_k8s.controller.resources.pod import ROLLOUT_PORT
from ehrmind_k8s.crd import Run
from ehrmind_k8s.errors import SpecError
from ehrmind_k8s.plan import Step
from ehrmind_k8s.profile import Profile

API_VERSION = "trainer.kubeflow.org/v1alpha1"
KIND, RUNTIME = "TrainJob", "TrainingRuntime"
NODE, ROLLOUT = "node", "rollout"  # replicated jobs; `node` is also the one container that is told the rendezvous
ANCESTOR = {"trainer.kubeflow.org/trainjob-ancestor-step": "trainer"}
PERSISTENCE = 1000  # rollout servers are started again and again: they end when the training does
LAST_ATTEMPT = 99  # as far as names are checked when a run is taken on


def render(run: Run, step: Step, attempt: int, profile: Profile) -> list[Object]:
    """The TrainJob and its TrainingRuntime, which must be created before it and deleted after it. Raises SpecError when names get too long."""
    name, size, inside = crd.child_name(run.name, step.stage, attempt), stage.size(step, profile), holds_rollouts(run, step, profile)
    _check_names(run, name, size.nodes, inside)
    urls = rollout_urls(name, run.spec.rollout.replicas) if inside else rollout.urls(run)
    node = {
        "name": NODE,
        "template": {
            "metadata": {"labels": ANCESTOR},
            "spec": {
                "backoffLimit": 0,
                "podReplacementPolicy": "Failed",
                "template": stage.template(run, step, attempt, profile, NODE, urls),
            },
        },
    }
    jobs: Object = {"replicatedJobs": [node]}
    if inside:
        servers = {"backoffLimit": PERSISTENCE, "template": rollout.template(run, profile, attempt, restart="OnFailure")}
        jobs["replicatedJobs"].insert(0, {"name": ROLLOUT, "replicas": run.spec.rollout.replicas, "template": {"spec": servers}})
        jobs["successPolicy"] = {"operator": "All", "targetReplicatedJobs": [NODE]}
    # Without `trainer` no pod is told the rendezvous; without its numProcPerNode there would be one process per CPU that is asked for.
    training = {"numNodes": size.nodes, "numProcPerNode": size.processes}
    queue = metadata.queue_labels(run, profile)
    job = {
        "apiVersion": API_VERSION,
        "kind": KIND,
        "metadata": metadata.metadata(run, name, step.stage, attempt, queue),
        "spec": {"runtimeRef": {"apiGroup": API_VERSION.partition("/")[0], "kind": RUNTIME, "name": name}, "trainer": training},
    }
    runtime = {
        "apiVersion": API_VERSION,
        "kind": RUNTIME,
        "metadata": metadata.metadata(run, name, step.stage, attempt),
        "spec": {"mlPolicy": {"numNodes": size.nodes, "torch": {}}, "template": {"spec": jobs}},
    }
    return [stamped(job), stamped(runtime)]


def observe(child: Child, pods: Sequence[Pod]) -> tuple[Phase, str]:
    """What the TrainJob is doing. It has no condition for running, and its column STATE says Suspended of one that was resumed."""
    return observation.phase(child, pods, ("Complete",), ("Failed",), part(child.object, "spec").get("suspend"))


def holds_rollouts(run: Run, step: Step, profile: Profile) -> bool:
    """Whether a TrainJob of this step brings the rollout servers that it needs."""
    return step.wants_rollout and bool(metadata.queue(run, profile))


def rollout_urls(name: str, replicas: int) -> str:
    """EHRMIND_ROLLOUT_URLS of the servers inside the TrainJob `name`: JobSet gives each a host name, whether it is ready or not."""
    return ",".join(f"http://{name}-{ROLLOUT}-{i}-0.{name}:{ROLLOUT_PORT}" for i in range(replicas))


def check(run: Run, steps: Sequence[Step], profile: Profile) -> None:
    """Raises SpecError when a TrainJob of one of these steps would be refused for its name, now or in a later attempt."""
    for step in steps:
        inside = holds_rollouts(run, step, profile)
        _check_names(run, crd.child_name(run.name, step.stage, LAST_ATTEMPT), stage.size(step, profile).nodes, inside)


def _check_names(run: Run, name: str, nodes: int, inside: bool) -> None:
    """JobSet refuses a name whose longest pod name, with the five characters that Kubernetes adds, is too long for a host name."""
    longest = max(len(f"{name}-{NODE}-0-{nodes - 1}-xxxxx"), len(f"{name}-{ROLLOUT}-{run.spec.rollout.replicas - 1}-0-xxxxx") if inside else 0)
    if longest > NAME_LIMIT:
        raise SpecError(
            f"run {run.name}: its name is too long for a TrainJob, whose pods are named {name}-{NODE}-0-0-xxxxx, {NAME_LIMIT} characters at most;"
            f" choose one of {len(run.name) - longest + NAME_LIMIT} characters, or a profile that says `trainer: {{kind: pytorchjob}}`"
        )
