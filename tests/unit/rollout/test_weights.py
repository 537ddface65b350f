"""Policies as artifacts, and their canary. No torch: what is published here is a toy start model."""

import json
import math
from pathlib import Path

import pytest

from ehrmind_k8s import storage
from ehrmind_k8s.artifacts import Claim
from ehrmind_k8s.errors import Fenced, IntegrityError, ModelError
from ehrmind_k8s.rollout import weights
from ehrmind_k8s.rollout.base import Policy, Sampling
from ehrmind_k8s.rollout.weights import Canary
from ehrmind_k8s.storage import ObjectStore
from ehrmind_k8s.tokenization import Tokenizer

CANARY = Canary((5, 6, 7), (-1.0, -2.0))


@pytest.fixture
def out(tmp_path: Path) -> ObjectStore:
    return storage.open(str(tmp_path / "store"))


def published(out: ObjectStore, folder: Path, name: str = "v3-a1") -> Policy:
    return weights.publish(out, name, folder, kind="full", tokenizer="f" * 8, canary=CANARY, version=3)


def test_a_fetched_policy_is_what_was_published(out: ObjectStore, model_folder: Path, tmp_path: Path) -> None:
    policy = published(out, model_folder)
    meta = weights.fetch(policy, tmp_path / "copy")
    assert (tmp_path / "copy" / "model.safetensors").read_bytes() == (model_folder / "model.safetensors").read_bytes()
    assert meta == weights.load(policy)
    assert (meta.name, meta.kind, meta.version, meta.canary, meta.lora) == ("v3-a1", "full", 3, CANARY, None)


def test_nothing_pickled_is_published(out: ObjectStore, model_folder: Path, tmp_path: Path) -> None:
    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).write_bytes((model_folder / name).read_bytes())
    (tmp_path / "training_args.bin").write_bytes(b"pickle")
    (tmp_path / "optimizer.pt").write_bytes(b"pickle")
    published(out, tmp_path)
    assert {o.key.rsplit("/")[-1] for o in out.list()} == {"config.json", "model.safetensors", "manifest.json"}


def test_a_folder_without_weights_is_refused_by_name(out: ObjectStore, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ModelError, match=r"model\*\.safetensors"):
        published(out, tmp_path)
    assert not list(out.list())


def test_an_adapter_carries_its_rank_alpha_and_targets(out: ObjectStore, tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text(json.dumps({"r": 8, "lora_alpha": 16, "target_modules": ["v_proj", "q_proj"], "bias": "none"}))
    (tmp_path / "adapter_model.safetensors").write_bytes(b"weights")
    policy = weights.publish(out, "base", tmp_path, kind="lora", tokenizer="f", canary=CANARY)
    assert weights.load(policy).lora == {"r": 8, "lora_alpha": 16, "target_modules": ["q_proj", "v_proj"]}


def test_a_flipped_byte_is_refused(out: ObjectStore, model_folder: Path, tmp_path: Path) -> None:
    policy = published(out, model_folder)
    path = Path(policy.uri.removeprefix("file://")) / "model.safetensors"
    raw = bytearray(path.read_bytes())
    raw[-1] ^= 1
    path.write_bytes(raw)
    with pytest.raises(IntegrityError, match=r"model\.safetensors"):
        weights.fetch(policy, tmp_path / "copy")
    assert not (tmp_path / "copy").exists()


def test_a_policy_under_another_name_is_refused(out: ObjectStore, model_folder: Path) -> None:
    policy = published(out, model_folder)
    with pytest.raises(IntegrityError, match=r"expected policy v4-a1, found 'v3-a1'"):
        weights.load(Policy("v4-a1", policy.uri))


def test_an_unfinished_policy_is_refused(out: ObjectStore, model_folder: Path) -> None:
    policy = published(out, model_folder)
    out.delete("policy/v3-a1/manifest.json")
    with pytest.raises(IntegrityError, match="never published whole"):
        weights.load(policy)


def test_a_fenced_writer_publishes_no_policy(out: ObjectStore, model_folder: Path) -> None:
    Claim(out, 2).take()
    with pytest.raises(Fenced):
        weights.publish(out, "v3-a1", model_folder, kind="full", tokenizer="f", canary=CANARY, claim=Claim(out, 1))
    with pytest.raises(IntegrityError):
        weights.load(Policy("v3-a1", storage.join(out.uri, "policy/v3-a1")))


@pytest.mark.parametrize(
    ("found", "difference"),
    [
        pytest.param([-1.0, -2.25], 0.25, id="the largest difference counts"),
        pytest.param([-1.0], math.inf, id="a missing value is infinitely far"),
        pytest.param([-1.0, None], math.inf, id="a null is infinitely far"),
        pytest.param([-1.0, math.nan], math.inf, id="a NaN is infinitely far"),
    ],
)
def test_canary_difference(found: list[float | None], difference: float) -> None:
    assert CANARY.difference(found) == difference


def test_a_canary_over_tolerance_names_server_policy_and_both_figures() -> None:
    with pytest.raises(IntegrityError, match=r"http://a:1: the canary of policy v1-a1 differs by 0\.25 nats, allowed 0\.001"):
        weights.check(Policy("v1-a1", ""), CANARY, [-1.0, -2.25], 1e-3, "http://a:1")
    with pytest.raises(IntegrityError):
        weights.check(Policy("v1-a1", ""), CANARY, [-1.0, math.nan], 1e-3, "http://a:1")


def test_the_canary_sequence_is_fixed_and_short(tokenizer: Tokenizer) -> None:
    ids = weights.canary_ids(tokenizer)
    assert ids == weights.canary_ids(tokenizer)
    assert 2 <= len(ids) <= 64


def test_seeds_of_prompts_depend_on_seed_and_id_alone_and_lie_apart() -> None:
    seeds = {Sampling(8, 16, seed=s).seed_for(p) for s in (1, 2) for p in ("a", "b", "2/a")}
    assert len(seeds) == 6
    assert Sampling(1, 99, seed=1).seed_for("a") == Sampling(8, 16, seed=1).seed_for("a")
    assert all(0 <= s < 2**62 for s in seeds)
