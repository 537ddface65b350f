"""What is kept of the builders: one file of objects per case, and the job templates of manifests/jobs.

python -m tests.unit.controller.resources.cases      after an intended change: writes both anew; read the diff
"""

import sys
from collections.abc import Callable
from typing import Any

import yaml

from ehrmind_k8s import plan, profile, spec
from ehrmind_k8s.controller.resources import document, network, rollout, templates, trainer
from ehrmind_k8s.crd import Run
from ehrmind_k8s.plan import Step
from ehrmind_k8s.profile import Profile
from tests.conftest import ROOT

Object = dict[str, Any]
GOLDEN = ROOT / "tests" / "golden" / "resources"
JOBS = ROOT / "manifests" / "jobs"
NAMESPACE = "research"
UID = "5d4c1f7e-9a0b-4c3d-8e2f-a1b2c3d4e5f6"

# A test cluster with its store beside it.
TINY = """
s3: {endpoint_url: "http://10.123.0.1:7070"}
resources: {prepare: &small {requests: {cpu: 100m}}, sft: *small, rlvr: *small, evaluate: *small, rollout: *small}
shared_memory: 256Mi
scratch: 2Gi
"""
# A hospital's: its own registry and authority, GPUs of one kind.
GPUS = """
store: s3://{namespace}/runs
images: {ehrmind: r.example/ehrmind:1, trainer: r.example/trainer:1, rollout: r.example/rollout:1, pull_secrets: [registry]}
s3: {endpoint_url: "https://s3.hospital.example", addressing: virtual, ca_config_map: hospital-ca}
service_account: ehrmind-runs
trainer: {gpus: 8}
rollout_gpus: 1
resources:
  rlvr: {requests: {cpu: "32", memory: 256Gi}, limits: {cpu: "64", memory: 512Gi}}
  rollout: {requests: {cpu: "8", memory: 64Gi}, limits: {memory: 64Gi}}
shared_memory: 16Gi
node_selector: {nvidia.com/gpu.product: NVIDIA-H100-80GB-HBM3}
tolerations: [{key: nvidia.com/gpu, operator: Exists, effect: NoSchedule}]
runtime_class: nvidia
priority_class: research
rollout_priority_class: research-low
env: {NCCL_IB_DISABLE: "1", OMP_NUM_THREADS: "12"}
pod_labels: {cost-centre: oncology}
pod_annotations: {sidecar.istio.io/inject: "false"}
egress: [10.8.0.0/16]
"""


def run(*overrides: str, name: str = "demo", labels: dict[str, str] | None = None, **document: Any) -> Run:
    """A run of the object `research/demo`, as the operator has it."""
    written = {"task": "medcalc", "preset": "tiny", "name": name, "store": "s3://bucket/runs", **document}
    return Run(name, NAMESPACE, UID, 1, spec.load(written, overrides), labels=labels or {})


def a_profile(text: str = TINY, **more: Any) -> Profile:
    """A profile with some of its values replaced."""
    return Profile.model_validate({**profile.parse("test", text).model_dump(), **more})


def step(of: Run, stage: str, with_profile: Profile) -> Step:
    """A stage of a run."""
    return next(s for s in plan.build(of.spec, document.run_uri(of, with_profile)) if s.stage == stage)


def stage_objects(of: Run, stage: str, with_profile: Profile, chosen: str = "pytorchjob", attempt: int = 1) -> list[Object]:
    """The objects of one attempt."""
    wanted = step(of, stage, with_profile)
    return trainer.render(trainer.kind(of, wanted, with_profile, chosen), of, wanted, attempt, with_profile)


CASES: dict[str, Callable[[], list[Object]]] = {
    "document": lambda: [document.render(run())],
    "prepare-job": lambda: stage_objects(run(store=None), "prepare", a_profile(GPUS)),
    "sft-pytorchjob": lambda: stage_objects(run(), "sft", a_profile()),
    "rlvr-pytorchjob-two-nodes": lambda: stage_objects(run(), "rlvr", a_profile(trainer={"nodes": 2}), attempt=3),
    "rlvr-pytorchjob-eight-gpus": lambda: stage_objects(run(), "rlvr", a_profile(GPUS)),
    "sft-trainjob-two-nodes": lambda: stage_objects(run(), "sft", a_profile(trainer={"nodes": 2}), "trainjob"),
    "rlvr-trainjob-queue": lambda: stage_objects(
        run("rollout.replicas=2", labels={"kueue.x-k8s.io/queue-name": "gpus", "kueue.x-k8s.io/priority-class": "high"}),
        "rlvr",
        a_profile(trainer={"nodes": 2}),
        "trainjob",
    ),
    "evaluate-job": lambda: stage_objects(run(), "evaluate", a_profile(queue="cpus")),
    "evaluate-job-inside": lambda: stage_objects(run("rollout.engine=transformers"), "evaluate", a_profile(GPUS)),
    "evaluate-trainjob-queue": lambda: stage_objects(run(), "evaluate", a_profile(queue="cpus"), "trainjob"),
    "rollout": lambda: rollout.render(run("rollout.replicas=2"), a_profile()),
    "rollout-gpu": lambda: rollout.render(run(), a_profile(GPUS, queue="gpus")),
    "network": lambda: network.render(run(), a_profile()),
    "network-closed": lambda: network.render(run(), a_profile(s3={"endpoint_url": "http://minio.storage.svc:9000"}), "ehrmind-system"),
}
# Job templates: what `ehrmind plan --manifests` prints for medcalc tiny.
TEMPLATES: dict[str, Profile] = {
    "medcalc-tiny": Profile(),
    "medcalc-tiny-two-nodes": Profile.model_validate({"trainer": {"nodes": 2}}),
    "medcalc-tiny-trainjob-queue": Profile.model_validate({"trainer": {"kind": "trainjob"}, "queue": "research"}),
}


def golden(case: str) -> str:
    """The objects of a case as its file holds them."""
    return yaml.dump_all(CASES[case](), Dumper=templates.Dumper, sort_keys=False, width=150)


def template(name: str) -> str:
    """The job templates as their file holds them."""
    document = spec.load({"task": "medcalc", "preset": "tiny", "store": "s3://research/runs", "rollout": {"replicas": 2}})
    return templates.text(templates.render(document, TEMPLATES[name], None))


def main() -> int:
    """Write the files that are kept."""
    for case in CASES:
        (GOLDEN / f"{case}.yaml").write_text(golden(case), encoding="utf-8")
    for name in TEMPLATES:
        (JOBS / f"{name}.yaml").write_text(template(name), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
