"""What cluster owners may decide, and how a profile that would fail in every pod is refused once."""

import json

import pytest

from ehrmind_k8s import profile
from ehrmind_k8s.errors import SpecError
from ehrmind_k8s.profile import Profile

WHOLE = """
store: s3://research/{namespace}/runs
s3: {endpoint_url: "https://s3.hospital.example", ca_config_map: hospital-ca}
trainer: {kind: trainjob, nodes: 2, gpus: 8}
resources:
  rlvr: {requests: {cpu: 8, memory: 64Gi}, limits: {memory: 1.5e11}}
tolerations: [{key: gpu, operator: Exists, tolerationSeconds: 60}]
egress: [10.20.0.0/16, "fd00::/8"]
env: {HTTPS_PROXY: "http://proxy:3128", HF_HUB_OFFLINE: "0"}
pod_labels: {team: research}
"""


def test_an_empty_profile_is_a_whole_one() -> None:
    assert profile.parse("default", "") == Profile() == profile.parse("default", "{}")


def test_a_profile_says_what_it_was_told() -> None:
    read = profile.parse("gpu", WHOLE)
    assert (read.trainer.nodes, read.trainer.gpus, read.tolerations[0].tolerationSeconds) == (2, 8, 60)
    assert read.resources["rlvr"].requests == {"cpu": "8", "memory": "64Gi"}
    assert read.run_store("oncology") == "s3://research/oncology/runs"


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("trainer: {nods: 2}", "trainer.nods: unknown key; did you mean 'nodes'?"),
        ("resources: {sft: {limitz: {}}}", "resources.sft.limitz: unknown key; did you mean 'limits'?"),
        ("tolerations: [{ky: a}]", "tolerations.0.ky: unknown key; did you mean 'key'?"),
        ("host_network: true", "host_network: unknown key"),
        ("resources: {stf: {}}", "found 'stf': Input should be 'prepare', 'diagnose'"),
        ("resources: {sft: {limits: {memory: 64GB}}}", "resources.sft.limits.memory: found '64GB'"),
        ("resources: {sft: {limits: {cpu: true}}}", "resources.sft.limits.cpu: found True"),
        ("resources: {sft: {limits: {nvidia.com/gpu: 1}}}", "resources.sft names nvidia.com/gpu; its GPUs are counted in trainer.gpus"),
        ("gpu_resource: amd.com/gpu\nresources: {rollout: {limits: {amd.com/gpu: 1}}}", "its GPUs are counted in rollout_gpus"),
        ("trainer: {nodes: 0}", "trainer.nodes: found 0: Input should be greater than or equal to 1"),
        ("store: /data/runs", "store: found '/data/runs'"),
        ("store: s3://bucket/{user}", "store: found"),
        ("store: s3://bucket/runs", "store s3://bucket/runs: runs of one name in two namespaces would share a directory; put {namespace} into it"),
        ("store: s3://bucket/runs\nallowed_namespaces: [a, b]", "let allowed_namespaces name the only one"),
        ("s3: {endpoint_url: s3.hospital.example}", "s3.endpoint_url: found"),
        ("s3: {secret: Not_A_Name}", "s3.secret: found 'Not_A_Name'"),
        ("images: {trainer: 'a b'}", "images.trainer: found 'a b'"),
        ("egress: [10.0.0.1/8]", "egress.0: found '10.0.0.1/8': 10.0.0.1/8 has host bits set"),
        ("env: {EHRMIND_S3_REGION: x}", "env: EHRMIND_S3_REGION is set by the operator"),
        ("env: {WORLD_SIZE: '2'}", "env: WORLD_SIZE is set by the operator"),
        ("pod_labels: {ehrmind.dev/run-uid: x}", "pod_labels: ehrmind.dev/run-uid is set by the operator"),
        ("[1, 2]", "found [1, 2]: Input should be a valid dictionary"),
        ("a: [", "not valid YAML"),
        ("a: 2025-13-01", "not valid YAML"),
    ],
)
def test_a_profile_that_would_fail_in_every_pod_is_refused_with_a_sentence(text: str, sentence: str) -> None:
    with pytest.raises(SpecError) as error:
        profile.parse("gpu", text)
    assert str(error.value).startswith("profile gpu: ") and sentence in str(error.value)


def test_a_store_of_one_namespace_needs_not_name_it() -> None:
    assert profile.parse("mine", "store: s3://bucket/runs\nallowed_namespaces: [a]").run_store("a") == "s3://bucket/runs"


def test_all_problems_of_a_profile_are_told_at_once() -> None:
    with pytest.raises(SpecError, match=r"s3\.regin.*; trainer\.nods"):
        profile.parse("gpu", "trainer: {nods: 2}\ns3: {regin: x}")


def test_an_unknown_profile_is_refused_with_the_nearest() -> None:
    profiles = {"default": "", "gpu": "trainer: {gpus: 1}"}
    assert profile.find("gpu", profiles).trainer.gpus == 1
    with pytest.raises(SpecError, match=r"profile 'gpus' is unknown; did you mean 'gpu'\?"):
        profile.find("gpus", profiles)


def test_the_digest_is_that_of_the_content() -> None:
    one, other = profile.parse("p", "node_selector: {a: x, b: y}"), profile.parse("p", "node_selector: {b: y, a: x}")
    assert one.digest() == other.digest() != Profile().digest()
    assert len(one.digest()) == 16


def test_the_schema_lets_a_quantity_be_a_number() -> None:
    schema = json.dumps(Profile.model_json_schema()["$defs"]["Resources"]["properties"]["limits"]["additionalProperties"])
    assert '"integer"' in schema and '"pattern"' in schema
