"""`<run>/model/`: a folder that opens by itself, and the line that serves it."""

import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from ehrmind_k8s import artifacts, spec, storage
from ehrmind_k8s.artifacts import Claim
from ehrmind_k8s.evaluation import export
from ehrmind_k8s.evaluation.generate import Subject
from ehrmind_k8s.rollout.base import Policy
from ehrmind_k8s.spec import RunSpec

WEIGHTS = {"full": ("config.json", "model.safetensors"), "lora": ("adapter_config.json", "adapter_model.safetensors")}
START = ("config.json", "tokenizer.json", "tokenizer_config.json", "generation_config.json", "model.safetensors", "model.safetensors.index.json")


def run_spec(tuning: str) -> RunSpec:
    return spec.load({"task": "medcalc", "preset": "tiny", "name": "demo"}, [f"model.tuning={tuning}"])


def publish(tuning: str, tmp_path: Path, beside: Mapping[str, str] | None = None) -> tuple[Path, str]:
    """Export a policy of this kind; returns the model folder and the serving line."""
    run = storage.open(str(tmp_path / "run"))
    for name, files in (("start", START), ("policy", WEIGHTS[tuning])):
        (tmp_path / name).mkdir()
        for file in files:
            (tmp_path / name / file).write_text(f"{name} {file}")
    for name, text in (beside or {}).items():
        (tmp_path / "policy" / name).write_text(text)
    uri = storage.join(run.uri, "rlvr/policy/v3-a1")
    meta = {"name": "v3-a1", "kind": tuning, "tokenizer": "f1"}
    weights = artifacts.publish(storage.open(uri), "", tmp_path / "policy", "policy", meta)
    newest = Subject("rlvr", Policy("v3-a1", uri), weights)
    claim = Claim(storage.open(storage.join(run.uri, "evaluate")), 1)
    served = export.publish(run_spec(tuning), run.uri, newest, tmp_path / "start", f"{run.uri}/prepare/model", claim, tmp_path)
    return tmp_path / "run" / "model", served.command


def test_a_whole_model_has_the_policy_s_weights_and_the_start_model_s_tokenizer(tmp_path: Path) -> None:
    folder, command = publish("full", tmp_path)
    assert sorted(p.name for p in folder.iterdir()) == sorted([*START[:-1], "manifest.json"])
    assert (folder / "model.safetensors").read_text() == "policy model.safetensors"
    assert (folder / "config.json").read_text() == "policy config.json"
    assert command == f"vllm serve {folder} --served-model-name demo --max-model-len 8192"


@pytest.mark.parametrize("tuning", ["full", "lora"])
def test_the_terms_of_the_data_go_where_the_weights_go(tuning: str, tmp_path: Path) -> None:
    folder, _ = publish(tuning, tmp_path, {"DATA_TERMS.txt": "For research."})
    assert (folder / "DATA_TERMS.txt").read_text() == "For research."


def test_an_adapter_names_its_start_model_and_cannot_pass_for_a_whole_one(tmp_path: Path) -> None:
    folder, command = publish("lora", tmp_path)
    names = {p.name for p in folder.iterdir()}
    assert {"adapter_config.json", "adapter_model.safetensors", "tokenizer.json", "base.json"} <= names
    assert not names & {"config.json", "model.safetensors"}
    assert json.loads((folder / "base.json").read_text())["uri"].endswith("/run/prepare/model")
    start = folder.parent / "prepare" / "model"
    assert command == f"vllm serve {start} --enable-lora --max-lora-rank 16 --lora-modules demo={folder} --max-model-len 8192"


@pytest.mark.parametrize("tuning", ["full", "lora"])
def test_a_result_in_a_bucket_is_copied_before_it_is_served(tuning: str) -> None:
    command = export.command(run_spec(tuning), "s3://bucket/runs/demo", tuning, "s3://bucket/runs/demo/prepare/model")
    copies = command.split(" && ")[:-1]
    assert copies[0] == "aws s3 cp --recursive s3://bucket/runs/demo/model ./model"
    assert len(copies) == (2 if tuning == "lora" else 1)
    assert "s3://" not in command.split(" && ")[-1]


def test_a_result_in_a_folder_with_a_space_is_served_from_where_it_is(tmp_path: Path) -> None:
    folder = tmp_path / "my runs" / "demo"
    command = export.command(run_spec("full"), folder.as_uri(), "full", f"{folder.as_uri()}/prepare/model")
    assert command == f"vllm serve '{folder}/model' --served-model-name demo --max-model-len 8192"


@pytest.mark.parametrize(("rank", "room"), [(4, 8), (16, 16), (24, 32)])
def test_an_adapter_of_any_rank_is_served_with_a_rank_that_vllm_knows(rank: int, room: int) -> None:
    lora = spec.load({"task": "medcalc", "preset": "tiny"}, ["model.tuning=lora", f"model.lora_rank={rank}"])
    assert f"--max-lora-rank {room} " in export.command(lora, "file:///runs/demo", "lora", "file:///runs/demo/prepare/model")
