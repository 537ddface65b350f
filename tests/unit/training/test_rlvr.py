"""The loss of RLVR by hand-computed numbers: whose log-probs, which completions count, which way the KL pulls."""

import dataclasses
import logging
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="needs torch: pip install 'ehrmind_k8s[train]'")

from ehrmind_k8s import spec as document  # noqa: E402
from ehrmind_k8s import storage  # noqa: E402
from ehrmind_k8s.artifacts import Claim  # noqa: E402
from ehrmind_k8s.errors import RolloutUnavailable, RunFailed, SpecError  # noqa: E402
from ehrmind_k8s.records import Completion, Example, Prompt, Verdict  # noqa: E402
from ehrmind_k8s.rollout.base import Policy, Sampling  # noqa: E402
from ehrmind_k8s.rollout.inprocess import InProcess  # noqa: E402
from ehrmind_k8s.tokenization import Tokenizer  # noqa: E402
from ehrmind_k8s.training import ledger, loading, rlvr  # noqa: E402
from ehrmind_k8s.training.ledger import Ledger  # noqa: E402
from ehrmind_k8s.training.rollouts import Rollouts  # noqa: E402
from tests.unit.training.conftest import example  # noqa: E402

B, G = 2, 4
CORRECT, WRONG = Verdict(True, "1", "scored"), Verdict(False, "0", "scored")


class Scripted:
    """A task that calls the completions it is shown right or wrong in a given order."""

    def __init__(self, verdicts: Sequence[Verdict]) -> None:
        self.verdicts = list(verdicts)
        self.shown = 0

    def score(self, _: Example, __: str) -> Verdict:
        self.shown += 1
        return self.verdicts[(self.shown - 1) % len(self.verdicts)]


class Changed(InProcess):
    """The in-process sampler whose groups a test changes on the way, as a failing server would."""

    change: Callable[[list[Completion]], list[Completion]] = staticmethod(lambda group: group)

    def generate(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[list[Completion]]:
        return [self.change(group) for group in super().generate(prompts, sampling)]


@pytest.fixture
def make(model_folder: Path, tokenizer: Tokenizer, tmp_path: Path) -> Callable[..., rlvr.Grpo]:
    def make(verdicts: Sequence[Verdict], change: Any = None, model: Any = None, **settings: Any) -> rlvr.Grpo:
        sizes = {
            "steps": 4,
            "prompts_per_step": B,
            "samples_per_prompt": G,
            "micro_batch_size": B * G,
            "max_completion_tokens": 8,
            "learning_rate": 1e-3,
        }
        spec = document.load({"task": "medcalc", "preset": "tiny", "rlvr": sizes | settings, "rollout": {"engine": "transformers"}})
        model = model or loading.start_model(spec.model, model_folder, 0)
        generator = Changed(tokenizer, model=model)
        generator.change = change or generator.change
        generator.use(Policy("v0", ""))
        policies = SimpleNamespace(current=Policy("v0", ""), follow=lambda trainer, step: None)
        claim = Claim(storage.open(str(tmp_path / "store")), 1)
        rollouts = Rollouts(spec, Scripted(verdicts), tokenizer, [example(i) for i in range(8)], generator, policies, Ledger(claim))
        return rlvr.build(spec, model, loading.processing_class(tokenizer, model_folder), rollouts, [], tmp_path / "trainer")

    return make


def batch(trainer: rlvr.Grpo) -> dict[str, Any]:
    trainer.model.train()
    return trainer._generate_and_score_completions([{"prompt": key} for key in trainer.rollout_func.keys[:B] for _ in range(G)])


def without(index: int) -> Callable[[list[Completion]], list[Completion]]:
    return lambda group: [c for i, c in enumerate(group) if i != index]


def test_the_samplers_logprobs_are_the_old_policys(make: Any) -> None:
    shifted = make([CORRECT, WRONG], lambda group: [dataclasses.replace(c, logprobs=tuple(x - 1.0 for x in c.logprobs)) for c in group], clip=0.2)
    shifted.train()
    # Every token is e times likelier than the sampler said: half of them (A > 0) are clipped. Were the hook not called, the ratio would be 1.
    assert shifted.state.log_history[0]["clip_ratio/region_mean"] == pytest.approx(0.5, abs=0.1)


def test_unshifted_logprobs_are_those_of_the_trainer(make: Any) -> None:
    trainer = make([CORRECT, WRONG])
    inputs = batch(trainer)
    trainer._generate_and_score_completions = None  # the batch is made; only the forward pass follows
    ids, mask = torch.cat([inputs["prompt_ids"], inputs["completion_ids"]], 1), torch.cat([inputs["prompt_mask"], inputs["completion_mask"]], 1)
    found, _, _ = trainer._get_per_token_logps_and_entropies(trainer.model, ids, mask, inputs["completion_ids"].shape[1])
    difference = (found - inputs["old_per_token_logps"]).abs() * inputs["completion_mask"]
    assert difference.max() < 1e-5


def test_a_lost_completion_enters_neither_mean_nor_std(make: Any) -> None:
    # Per group three survivors with rewards 1.1, 0, 0: mean 0.36667, std sqrt(((0.73333)^2 + 2 x 0.36667^2) / 2) = 0.63509.
    trainer = make([CORRECT, WRONG, WRONG], without(1))
    expected = [(1.1 - 1.1 / 3) / (0.635085 + 1e-4), *[-1.1 / 3 / (0.635085 + 1e-4)] * 2, 0.0]
    assert batch(trainer)["advantages"].tolist() == pytest.approx(expected * B, abs=1e-4)


def test_a_group_with_equal_rewards_has_zero_advantage_and_moves_nothing(make: Any) -> None:
    trainer = make([CORRECT])
    before = trainer.model.lm_head.weight.clone()
    trainer.args.max_steps, trainer.args.weight_decay = 1, 0.0
    trainer.train()
    assert torch.equal(trainer.model.lm_head.weight, before)


@pytest.mark.parametrize("loss", ["grpo", "dapo", "bnpo", "dr_grpo"])
def test_the_loss_averages_over_survivors_alone(make: Any, loss: str) -> None:
    def change(group: list[Completion]) -> list[Completion]:
        first = dataclasses.replace(group[0], logprobs=tuple(x - 0.1 for x in group[0].logprobs))
        return [first, *group[2:]]

    trainer = make([CORRECT, WRONG, WRONG], change, loss=loss, scale_rewards="none")
    trainer.current_gradient_accumulation_steps = 1
    inputs = batch(trainer)
    lengths = (inputs["completion_mask"] * inputs["tool_mask"]).sum(1)
    assert (lengths > 0).tolist() == [True, True, True, False] * B
    # The right one is exp(0.1) times likelier than its sampler said (inside the clip), the wrong ones exactly as likely: a token costs -w A.
    costs = [-math.exp(0.1) * 1.1 * 2 / 3, 1.1 / 3, 1.1 / 3] * B
    tokens = [int(n) for n in lengths if n]
    over_tokens = sum(c * n for c, n in zip(costs, tokens, strict=True))
    # Six survivors in eight rows; dr_grpo divides by rows times the longest completion (8).
    by_hand = {"grpo": sum(costs) / 6, "dapo": over_tokens / sum(tokens), "bnpo": over_tokens / sum(tokens), "dr_grpo": over_tokens / (6 * 8)}
    assert trainer.compute_loss(trainer.model, inputs).item() == pytest.approx(by_hand[loss], abs=1e-4)


def test_a_group_lost_whole_leaves_the_loss_to_the_others(make: Any) -> None:
    kept: list[str] = []
    trainer = make([CORRECT, WRONG], lambda group: group if group[0].prompt_id in kept else [])
    kept.append(trainer.rollout_func.keys[0])
    inputs = batch(trainer)
    assert inputs["advantages"][G:].tolist() == [0.0] * G
    assert inputs["num_items_in_batch"].item() == inputs["completion_mask"][:G].sum().item()


def test_the_kl_pulls_back_to_the_reference(make: Any) -> None:
    trainer = make([CORRECT], kl=0.5)  # equal rewards: the KL is the whole loss
    trainer.current_gradient_accumulation_steps = 1
    head = trainer.model.lm_head.weight
    with torch.no_grad():
        head.add_(0.05 * torch.randn(head.shape, generator=torch.Generator().manual_seed(0)))
    inputs = batch(trainer)
    trainer.compute_loss(trainer.model, inputs).backward()
    with torch.no_grad():
        head.sub_(0.1 * head.grad)
        trainer.compute_loss(trainer.model, inputs)
    before, after = trainer._metrics["train"]["kl"]
    assert after < before - 1e-4


def test_the_reference_of_an_adapter_is_the_sft_adapter_not_the_bare_model(make: Any, model_folder: Path, tmp_path: Path) -> None:
    model_spec = document.load({"task": "medcalc", "preset": "tiny", "model": {"tuning": "lora", "lora_rank": 4}}).model
    model = loading.start_model(model_spec, model_folder, 0)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "lora_B" in name:
                weight.normal_(std=0.3, generator=torch.Generator().manual_seed(1))
    trainer = make([CORRECT], model=model, kl=0.5)
    trainer.train()
    assert trainer.state.log_history[0]["kl"] == pytest.approx(0.0, abs=1e-6)
    trained = {name for name, weight in model.named_parameters() if weight.requires_grad}
    assert trained and all("lora" in name and ".default." in name for name in trained)
    loading.save(model, tmp_path / "adapter", "float32")
    assert {p.name for p in (tmp_path / "adapter").iterdir()} == {"adapter_config.json", "adapter_model.safetensors", "README.md"}
    model.save_pretrained(tmp_path / "checkpoint")  # warns, and asks a hub, where saving the policy changed the model's own configuration


def test_a_row_without_a_reward_is_not_quoted_in_a_log(make: Any, caplog: pytest.LogCaptureFixture, capsys: Any) -> None:
    logging.getLogger("trl").propagate = True
    batch(make([CORRECT, WRONG], without(0)))
    captured = capsys.readouterr()
    assert "kwargs" not in caplog.text + captured.out + captured.err


def test_passes_of_similar_length_give_the_gradient_of_the_whole_batch(make: Any) -> None:
    def gradient(passes: int) -> Any:
        trainer = make([CORRECT, WRONG, WRONG], without(1), micro_batch_size=B * G // passes, kl=0.1)
        trainer.rollout_func.rows[1] = trainer.rollout_func.examples["e1"] = long
        trainer.rollout_func.prompt_ids.cache_clear()
        trainer.current_gradient_accumulation_steps = passes
        inputs = batch(trainer)
        assert inputs["prompt_mask"].sum(1).unique().numel() == 2, "both prompts are equally long: nothing is shown"
        parts = rlvr.passes_by_length(inputs, passes)
        assert len({part["prompt_ids"].shape[1] for part in parts}) == passes
        for part in parts:
            trainer.compute_loss(trainer.model, part).backward()
        return trainer.model.lm_head.weight.grad

    long = dataclasses.replace(example(1), messages=({"role": "user", "content": "creatinine 1.1 mg/dL " * 9},))
    assert torch.allclose(gradient(1), gradient(2), atol=1e-6)


def test_a_step_that_nobody_could_sample_fails_its_issues(make: Any) -> None:
    def change(group: list[Completion]) -> list[Completion]:
        raise RolloutUnavailable("no server")

    trainer = make([CORRECT], change)
    with pytest.raises(RolloutUnavailable):
        trainer.train()
    assert ledger.audit(trainer.rollout_func.ledger.store)["failed"] == B


def test_a_step_without_any_usable_completion_ends_the_run_and_is_accounted_for(make: Any) -> None:
    trainer = make([CORRECT], lambda group: [])
    batch(trainer)
    with pytest.raises(RunFailed, match="learning_rate"):
        trainer.rollout_func.settle()
    assert ledger.audit(trainer.rollout_func.ledger.store)["dropped"] == B


def test_a_completion_of_another_policy_is_not_trained_on(make: Any) -> None:
    trainer = make([CORRECT, WRONG, WRONG], lambda group: [dataclasses.replace(group[0], policy="v9-a9"), *group[1:]])
    inputs = batch(trainer)
    assert trainer.rollout_func.step.lost == B
    assert (inputs["completion_mask"] * inputs["tool_mask"]).sum(1).gt(0).tolist() == [True, True, True, False] * B


def test_a_shape_where_groups_straddle_ranks_is_refused() -> None:
    spec = document.load({"task": "medcalc", "preset": "tiny", "rlvr": {"prompts_per_step": 3, "samples_per_prompt": 4, "micro_batch_size": 4}}).rlvr
    assert rlvr.batch_shape(spec, 1) == {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 3, "num_generations": 4}
    with pytest.raises(SpecError, match="2 ranks"):
        rlvr.batch_shape(spec, 2)


def test_the_rows_of_a_group_stay_side_by_side(make: Any) -> None:
    trainer = make([CORRECT, WRONG])
    trainer.model.train()
    trainer._step = 0
    prompts = trainer._prepare_inputs(next(iter(trainer.get_train_dataloader())))["prompt_ids"].tolist()
    assert prompts == [prompts[i - i % G] for i in range(len(prompts))]
