"""The sft and rlvr stages in this process: what they publish, what they say, and what they do when nobody samples."""

import json
from pathlib import Path
from typing import Any

import pytest

from ehrmind_k8s import artifacts, spec, stages, storage
from ehrmind_k8s.artifacts import RunDocument
from ehrmind_k8s.errors import RolloutUnavailable
from tests.integration import small_twin
from tests.integration.rollout_servers import free_port

pytest.importorskip("torch", reason="needs torch: pip install 'ehrmind_k8s[train]'")

SETTINGS = [
    *["model.context=512", "data.max_prompt_tokens=256", "rollout.engine=transformers"],
    *["sft.batch_size=8", "sft.micro_batch_size=8", "sft.epochs=0.5", "model.lora_rank=8"],
    *["rlvr.steps=3", "rlvr.prompts_per_step=2", "rlvr.samples_per_prompt=2", "rlvr.micro_batch_size=4", "rlvr.max_completion_tokens=40"],
    *["diagnose.limit=1", "diagnose.samples=2", "rlvr.checkpoint_every=2", "rlvr.validate_every=2", "rlvr.validate_limit=2"],
]
LINE = {
    *["step", "attempt", "reward", "reward_std", "accuracy", "kl", "entropy", "clip_ratio", "learning_rate", "grad_norm", "loss"],
    *["completion_tokens", "completion_tokens_total", "prompt_tokens_total", "outcomes", "dropped", "retries", "seconds"],
}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty train rows and four test rows of the synthetic twin."""
    return small_twin.write(tmp_path_factory.mktemp("data"), train=20, test=4)


def run(data: Path, folder: Path, *settings: str, until: str = "rlvr") -> Path:
    """Run the stages up to `until`; returns the run directory."""
    document = spec.load({"task": "medcalc", "preset": "tiny"}, [*SETTINGS, f"data.uri={data}", *settings])
    RunDocument.new(document).write(storage.open(str(folder)))
    for stage in document.stages[: document.stages.index(until) + 1]:
        stages.run_stage(stage, str(folder), 1)
    return folder


def meta(folder: Path, stage: str, key: str = "") -> dict[str, Any]:
    manifest = artifacts.load(storage.open(str(folder / stage)), key)
    assert manifest is not None
    return dict(manifest.meta)


def lines(folder: Path, stage: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / stage / artifacts.METRICS).read_text(encoding="utf-8").splitlines()]


def test_sft_never_publishes_the_start_model_and_says_so(data: Path, tmp_path: Path) -> None:
    folder = run(data, tmp_path / "run", "sft.mode=never", until="sft")
    made = meta(folder, "sft")
    assert (made["skipped"], made["rows"], made["result"]["reason"]) == (True, 0, "skipped")
    assert "never" in made["result"]["message"]
    assert made["policies"] == {"sft": "policy/sft"}, "the diagnosis has published the start model"
    base, sft = ((folder / place / "model.safetensors").read_bytes() for place in ("diagnose/policy/base", "sft/policy/sft"))
    assert base == sft
    assert lines(folder, "sft") == []


@pytest.mark.parametrize("tuning", ["full", "lora"])
def test_both_tunings_publish_policies_curves_and_sums(data: Path, tmp_path: Path, tuning: str) -> None:
    folder = run(data, tmp_path / "run", f"model.tuning={tuning}", "rlvr.kl=0.01")
    assert [set(line) for line in lines(folder, "sft")] == [{"step", "epoch", "loss", "learning_rate", "tokens", "seconds"}] * 2
    steps = lines(folder, "rlvr")
    assert [set(line) - LINE for line in steps] == [set(), {"validation_accuracy"}, {"validation_accuracy"}]
    assert all(set(line) >= LINE and sum(line["outcomes"].values()) == 4 for line in steps)
    assert steps[0]["kl"] == pytest.approx(0, abs=1e-6)  # the reference is the policy RLVR starts from
    made = meta(folder, "rlvr")
    assert made["policies"] == {"rlvr": "policy/v3-a1"} and meta(folder, "rlvr", "policy/v3-a1")["kind"] == tuning
    assert made["ledger"] == json.loads((folder / "rlvr" / "ledger.json").read_text()) and made["ledger"]["trained"] == 6
    saved = meta(folder, "rlvr", "checkpoint/step-2-a1")
    assert (saved["position"], saved["policy"], saved["score"]) == (4, "v2-a1", steps[1]["validation_accuracy"])


def test_a_complete_stage_run_again_returns_its_result(data: Path, tmp_path: Path) -> None:
    folder = run(data, tmp_path / "run", until="sft")
    before = {item.key for item in storage.open(str(folder)).list()}
    assert stages.run_stage("sft", str(folder), 2).message == meta(folder, "sft")["result"]["message"]
    assert {item.key for item in storage.open(str(folder)).list()} == before


def test_without_a_server_the_stage_ends_to_be_tried_again(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = run(data, tmp_path / "run", "rollout.engine=vllm", "rollout.wait_s=1", "stages=[prepare,sft,rlvr]", until="sft")
    monkeypatch.setenv("EHRMIND_ROLLOUT_URLS", f"http://127.0.0.1:{free_port()}")
    monkeypatch.setenv("EHRMIND_RUN_TOKEN", "token")
    with pytest.raises(RolloutUnavailable) as caught:
        stages.run_stage("rlvr", str(folder), 1)
    assert caught.value.exit_code == 75
    assert artifacts.load(storage.open(str(folder / "rlvr"))) is None
