"""Policies leave training and come back as they were; old versions go, the newest stay."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="needs torch: pip install 'ehrmind_k8s[train]'")
from accelerate import Accelerator  # noqa: E402
from safetensors.torch import load_file  # noqa: E402

from ehrmind_k8s import artifacts, storage  # noqa: E402
from ehrmind_k8s import spec as document  # noqa: E402
from ehrmind_k8s.artifacts import Claim  # noqa: E402
from ehrmind_k8s.context import Context  # noqa: E402
from ehrmind_k8s.errors import Fenced, IntegrityError  # noqa: E402
from ehrmind_k8s.rollout import weights  # noqa: E402
from ehrmind_k8s.rollout.base import Policy  # noqa: E402
from ehrmind_k8s.rollout.inprocess import InProcess, canary, logprobs  # noqa: E402
from ehrmind_k8s.spec import RunSpec  # noqa: E402
from ehrmind_k8s.tokenization import Tokenizer  # noqa: E402
from ehrmind_k8s.training import loading  # noqa: E402
from ehrmind_k8s.training.policies import Policies  # noqa: E402

PROBE = (5, 6, 7, 8, 9)


def spec_of(tuning: str = "full", dtype: str = "float32", engine: str = "vllm") -> RunSpec:
    settings = [f"model.tuning={tuning}", f"model.dtype={dtype}", f"rollout.engine={engine}", "model.lora_rank=4", "rlvr.checkpoint_every=3"]
    return document.load({"task": "medcalc", "preset": "tiny"}, settings)


def perturbed(spec: RunSpec, folder: Path) -> Any:
    """The start model with everything that is trained moved a little."""
    model = loading.start_model(spec.model, folder, 0)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.requires_grad:
                weight.add_(0.02 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(1)))
    return model


def publish(spec: RunSpec, claim: Claim, model: Any, tokenizer: Tokenizer, folder: Path) -> Policy:
    loading.save(model, folder, spec.model.dtype)
    kind = spec.model.tuning
    return weights.publish(claim.store, "sft", folder, kind=kind, tokenizer=tokenizer.fingerprint, canary=canary(model, tokenizer), claim=claim)


@pytest.mark.parametrize("tuning", ["full", "lora"])
def test_a_published_policy_is_trained_on_from_exactly_there(
    model_folder: Path, tokenizer: Tokenizer, claim: Claim, tmp_path: Path, tuning: str
) -> None:
    spec = spec_of(tuning)
    made = perturbed(spec, model_folder)
    policy = publish(spec, claim, made, tokenizer, tmp_path / "out")
    again = loading.policy_model(spec.model, model_folder, policy, tmp_path / "in")
    assert logprobs(again, PROBE) == logprobs(made, PROBE) != logprobs(loading.start_model(spec.model, model_folder, 0), PROBE)
    assert {n for n, w in again.named_parameters() if w.requires_grad} == {n for n, w in made.named_parameters() if w.requires_grad}
    again.save_pretrained(tmp_path / "checkpoint")  # a warning here is peft asking a hub for the start model


def test_a_fresh_adapter_changes_nothing(model_folder: Path) -> None:
    adapter, bare = (loading.start_model(spec_of(tuning).model, model_folder, 0) for tuning in ("lora", "full"))
    assert logprobs(adapter, PROBE) == logprobs(bare, PROBE)


def test_a_policy_of_the_other_tuning_is_refused(model_folder: Path, tokenizer: Tokenizer, claim: Claim, tmp_path: Path) -> None:
    policy = publish(spec_of("full"), claim, perturbed(spec_of("full"), model_folder), tokenizer, tmp_path / "out")
    with pytest.raises(IntegrityError, match=r"full, but model\.tuning is lora"):
        loading.policy_model(spec_of("lora").model, model_folder, policy, tmp_path / "in")


def test_whole_weights_are_trained_in_fp32_and_published_in_the_served_precision(model_folder: Path, tmp_path: Path) -> None:
    model = loading.start_model(spec_of(dtype="bfloat16").model, model_folder, 0)
    assert {w.dtype for w in model.parameters()} == {torch.float32}
    loading.save(model, tmp_path / "out", "bfloat16")
    assert {w.dtype for w in load_file(tmp_path / "out" / "model.safetensors").values()} == {torch.bfloat16}
    assert '"dtype": "bfloat16"' in (tmp_path / "out" / "config.json").read_text()
    assert {w.dtype for w in model.parameters()} == {torch.float32}


@pytest.fixture
def followed(model_folder: Path, tokenizer: Tokenizer, claim: Claim, tmp_path: Path) -> Any:
    """A `Policies` with a sampler around the model it publishes, and the trainer as far as it needs one."""

    def make(engine: str) -> tuple[Policies, Any]:
        spec = spec_of(engine=engine)
        model = loading.start_model(spec.model, model_folder, 0)
        prepare = storage.open(str(tmp_path / "prepare"))
        context = Context(spec, "unused", "uid", "rlvr", claim.attempt, claim, claim.store, {"prepare": prepare}, tmp_path)
        trainer = SimpleNamespace(model=model, accelerator=Accelerator(cpu=True))
        return Policies(context, InProcess(tokenizer, model=model), tokenizer, Policy("sft", "elsewhere")), trainer

    return make


def kept(claim: Claim) -> list[int]:
    return [version for version, attempt in artifacts.versions(claim.store) if artifacts.load(claim.store, f"policy/v{version}-a{attempt}")]


def test_the_newest_and_two_behind_it_are_kept(followed: Any, claim: Claim) -> None:
    policies, trainer = followed("vllm")
    for step in range(6):
        policies.follow(trainer, step)
        assert policies.generator.policy == ("sft" if step == 0 else f"v{step}-a1")
    assert kept(claim) == [3, 4, 5]


def test_a_step_is_published_once_however_often_it_is_followed(followed: Any, claim: Claim) -> None:
    policies, trainer = followed("vllm")
    policies.follow(trainer, 1)
    before = {item.key for item in claim.store.list()}
    claim.store.delete("policy/v1-a1/manifest.json")
    policies.follow(trainer, 1)
    assert {item.key for item in claim.store.list()} == before - {"policy/v1-a1/manifest.json"}


def test_a_sampler_that_shares_the_weights_needs_only_checkpoint_steps_and_the_last(followed: Any, claim: Claim) -> None:
    policies, trainer = followed("transformers")
    for step in (0, 1, 2, 3, 4, 30):
        policies.follow(trainer, step)
    assert kept(claim) == [3, 30]


def test_versions_of_a_dead_attempt_go_before_those_of_the_living(followed: Any, claim: Claim) -> None:
    for step in (7, 8, 9):
        storage.open(claim.store.uri).put_bytes(f"policy/v{step}-a0/manifest.json", b"{}")
    policies, trainer = followed("vllm")
    policies.follow(trainer, 4)
    assert artifacts.versions(claim.store) == [(4, 1), (8, 0), (9, 0)]


def test_a_fenced_attempt_publishes_no_version(followed: Any, claim: Claim) -> None:
    policies, trainer = followed("vllm")
    Claim(claim.store, 2).take()
    with pytest.raises(Fenced):
        policies.follow(trainer, 1)
    assert kept(claim) == []


def test_the_terms_of_the_data_lie_beside_the_weights_that_learned_from_it(followed: Any, claim: Claim, tmp_path: Path) -> None:
    (tmp_path / "rows").mkdir()
    (tmp_path / "rows" / "train.parquet").write_bytes(b"rows")
    policies, trainer = followed("vllm")
    policies.follow(trainer, 1)
    artifacts.publish(policies.context.inputs["prepare"], "", tmp_path / "rows", "prepare", {"terms": "For research."})
    policies.follow(trainer, 2)
    assert claim.store.head("policy/v1-a1/DATA_TERMS.txt") is None
    assert claim.store.get_bytes("policy/v2-a1/DATA_TERMS.txt") == b"For research.\n"
