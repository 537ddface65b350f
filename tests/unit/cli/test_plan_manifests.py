"""`ehrmind plan --manifests`: YAML that kubectl takes, from a document and a profile, or a sentence about what is missing."""

import json
from pathlib import Path

import pytest
import yaml

from tests.conftest import ROOT

RUN = "{task: medcalc, preset: tiny, rollout: {replicas: 2}}"


@pytest.fixture
def document(tmp_path: Path) -> Path:
    path = tmp_path / "run.yaml"
    path.write_text(RUN)
    return path


def test_it_prints_the_job_templates_that_are_kept(ehrmind, document: Path) -> None:
    code, out, err = ehrmind("plan", str(document), "--manifests", "--store", "s3://research/runs")
    assert (code, err) == (0, "")
    assert out == (ROOT / "manifests" / "jobs" / "medcalc-tiny.yaml").read_text(encoding="utf-8")


def test_a_profile_and_a_namespace_are_followed(ehrmind, document: Path, tmp_path: Path) -> None:
    (tmp_path / "gpu.yaml").write_text("{store: 's3://{namespace}/runs', trainer: {gpus: 2}, images: {trainer: r.example/t:1}}")
    _, out, _ = ehrmind("plan", str(document), "--manifests", "--profile", "gpu.yaml", "-n", "oncology")
    objects = list(yaml.safe_load_all(out))
    assert {o["metadata"]["namespace"] for o in objects} == {"oncology"}
    sft = next(o for o in objects if o["metadata"]["name"] == "medcalc-tiny-sft-1")
    (main,) = sft["spec"]["pytorchReplicaSpecs"]["Master"]["template"]["spec"]["containers"]
    assert (main["image"], main["resources"]["limits"]) == ("r.example/t:1", {"nvidia.com/gpu": "2"})
    assert "s3://oncology/runs/medcalc-tiny" in main["command"]


def test_as_json_it_is_one_list_in_the_same_order(ehrmind, document: Path) -> None:
    arguments = ("plan", str(document), "--manifests", "--store", "s3://research/runs")
    shown = json.loads(ehrmind(*arguments, "-o", "json")[1])
    assert shown["kind"] == "List"
    assert shown["items"] == list(yaml.safe_load_all(ehrmind(*arguments)[1]))


def test_every_part_is_picked_by_the_label_that_its_comment_names(ehrmind, document: Path) -> None:
    out = ehrmind("plan", str(document), "--manifests", "--store", "s3://research/runs")[1]
    parts = [part for part in out.split("\n\n# ")[1:] if "---" in part]
    assert [o["metadata"]["labels"]["ehrmind.dev/role"] for part in parts for o in yaml.safe_load_all(part.partition("---")[2])][5:] == [
        *("prepare", "rollout", "rollout", "rollout", "diagnose", "sft", "rlvr", "evaluate")
    ]
    for part in parts:
        roles = {o["metadata"]["labels"]["ehrmind.dev/role"] for o in yaml.safe_load_all(part.partition("---")[2])}
        assert f"-l ehrmind.dev/role={roles.pop()}\n" in part.partition("---")[0]
        assert not roles


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--manifests"], "has no store: set `store` to s3://bucket/prefix"),
        (["--manifests", "--store", "./runs"], "store: './runs' is a place on this machine"),
        (["--manifests", "--store", "s3://b/r", "--set", "data.uri=/data/medcalc"], "ehrmind data put /data/medcalc"),
        (["--manifests", "--store", "s3://b/r", "--profile", "wrong.yaml"], "profile wrong.yaml: trainer.gpu: unknown key; did you mean 'gpus'?"),
        (["--manifests", "--store", "s3://b/r", "--profile", "nowhere.yaml"], "nowhere.yaml"),
        (["--namespace", "oncology"], "are about --manifests"),
    ],
)
def test_what_pods_could_not_reach_is_refused_with_what_to_do(ehrmind, document: Path, tmp_path: Path, arguments: list[str], said: str) -> None:
    (tmp_path / "wrong.yaml").write_text("trainer: {gpu: 1}")
    code, out, err = ehrmind("plan", str(document), *arguments)
    assert (code, out) == (2, "")
    assert said in err
