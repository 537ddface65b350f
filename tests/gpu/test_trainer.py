"""The trainer's path at the shapes of Qwen3-0.6B with random weights, on a GPU: SFT, then GRPO that samples with transformers.

Real weights, and vLLM on a GPU, are not what this shows.
"""

import json
from pathlib import Path

import pytest

from ehrmind_k8s import artifacts, spec, stages, storage, toymodel
from ehrmind_k8s.artifacts import RunDocument
from ehrmind_k8s.records import Example
from ehrmind_k8s.tasks import registry
from ehrmind_k8s.training import ledger
from tests.conftest import needs

torch = pytest.importorskip("torch", reason="needs torch: pip install 'ehrmind_k8s[train]'")
from transformers import AutoModelForCausalLM, Qwen3Config  # noqa: E402

pytestmark = pytest.mark.gpu
SHAPES = {
    "vocab_size": 151936,
    "hidden_size": 1024,
    "intermediate_size": 3072,
    "num_hidden_layers": 28,
    "num_attention_heads": 16,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "tie_word_embeddings": True,
}
STEPS = 3


@pytest.fixture(autouse=True)
def _gpu() -> None:
    needs("a CUDA device", "run on a machine with an NVIDIA GPU", there=torch.cuda.is_available(), kind="gpu")


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The toy's tokenizer and template beside random weights of the real shapes."""
    folder = tmp_path_factory.mktemp("shapes")
    rows = [Example(str(i), "t", "train", str(i), "c", ({"role": "user", "content": f"age {i} years"},), {}) for i in range(99)]
    toymodel.write(folder, rows, seed=0)
    toy = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config = Qwen3Config(**SHAPES, max_position_embeddings=8192, eos_token_id=toy["eos_token_id"], pad_token_id=toy["pad_token_id"])
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("tuning", ["lora", "full"])
def test_sft_and_grpo_train_at_real_shapes(model_folder: Path, tmp_path: Path, tuning: str) -> None:
    settings = [
        *["preset=small", f"model.uri={model_folder}", f"model.tuning={tuning}", "rollout.engine=transformers"],
        *["model.context=8192", "stages=[prepare,sft,rlvr]", "sft.mode=always", "sft.percent=5", "sft.epochs=1", "sft.learning_rate=1e-4"],
        *[f"rlvr.steps={STEPS}", "rlvr.prompts_per_step=4", "rlvr.samples_per_prompt=8", "rlvr.micro_batch_size=16", "rlvr.kl=0.001"],
        *["rlvr.max_completion_tokens=256", "rlvr.checkpoint_every=2", "rlvr.validate_every=0"],
        f"data.uri={_twin(tmp_path / 'twin')}",
    ]
    run = storage.open(str(tmp_path / "run"))
    RunDocument.new(spec.load({"task": "medcalc"}, settings)).write(run)
    for stage in ("prepare", "sft", "rlvr"):
        stages.run_stage(stage, run.uri, 1)
    losses = [json.loads(line)["loss"] for line in run.get_bytes(f"sft/{artifacts.METRICS}").decode().splitlines()]
    assert losses[-1] < losses[0]
    steps = [json.loads(line) for line in run.get_bytes(f"rlvr/{artifacts.METRICS}").decode().splitlines()]
    assert [s["step"] for s in steps] == [1, 2, 3]
    # Sampler and trainer share weights and precision: hardly a ratio leaves the clip.
    assert all(s["clip_ratio"] < 0.01 and s["kl"] >= 0 for s in steps)
    assert ledger.audit(storage.open(str(tmp_path / "run" / "rlvr")))["trained"] == STEPS * 4


def _twin(folder: Path) -> Path:
    registry.get("medcalc").synthesize(folder, 0, "quickstart")
    return folder
