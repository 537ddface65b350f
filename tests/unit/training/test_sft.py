"""What SFT learns from: which rows, which tokens, in which order."""

from pathlib import Path
from types import SimpleNamespace

import pytest

torch = pytest.importorskip("torch", reason="needs torch: pip install 'ehrmind_k8s[train]'")

from ehrmind_k8s import spec as document  # noqa: E402
from ehrmind_k8s.errors import DataError, SpecError  # noqa: E402
from ehrmind_k8s.spec import SftSpec  # noqa: E402
from ehrmind_k8s.tokenization import Tokenizer  # noqa: E402
from ehrmind_k8s.training import loading, order, sft  # noqa: E402
from ehrmind_k8s.training.loop import Curve  # noqa: E402
from ehrmind_k8s.training.trainers import fused_head  # noqa: E402
from tests.unit.training.conftest import example  # noqa: E402

ROWS = [example(i, category=["labs", "risk"][i % 4 == 0]) for i in range(40)]


def test_percent_is_of_the_train_rows_and_stratified() -> None:
    chosen = sft.choose(SftSpec(percent=20), ROWS, seed=1)
    assert [sum(e.category == c for e in chosen) for c in ("labs", "risk")] == [6, 2]
    assert chosen == sft.choose(SftSpec(percent=20), ROWS, seed=1) != sft.choose(SftSpec(percent=20), ROWS, seed=2)


def test_only_wanted_categories_with_an_explanation_are_learned() -> None:
    rows = [*ROWS, example(99, "risk", sft_text=None)]
    chosen = sft.choose(SftSpec(percent=100), rows, seed=1, categories=("risk",))
    assert {e.category for e in chosen} == {"risk"} and len(chosen) == 10


def test_no_row_to_learn_from_says_who_was_to_write_and_who_else_may() -> None:
    rows = [example(i, "risk", sft_text=None) for i in range(3)]
    with pytest.raises(DataError, match=r"none of 3 train rows has a text .*categories: risk; sft\.traces: source.*name another author"):
        sft.choose(SftSpec(), rows, seed=1, categories=("risk",))


def test_a_category_that_no_train_row_has_is_refused_beside_one_that_they_have() -> None:
    with pytest.raises(DataError, match=r"sft\.categories: no train row is of category 'lasb'; did you mean 'labs'"):
        sft.choose(SftSpec(), ROWS, seed=1, categories=("risk", "lasb"))


def test_the_prompt_is_not_learned_and_the_stop_token_is(tokenizer: Tokenizer) -> None:
    row = sft.tokenised(SftSpec(), ROWS[:1], tokenizer)[0]
    prompt = list(tokenizer.prompt(ROWS[0]).token_ids)
    assert row["input_ids"] == [*prompt, *tokenizer.encode("<think>x</think>"), tokenizer.eos_id]
    assert row["labels"] == [-100] * len(prompt) + row["input_ids"][len(prompt) :]


def test_loss_on_text_learns_the_prompt_too(tokenizer: Tokenizer) -> None:
    row = sft.tokenised(SftSpec(loss_on="text"), ROWS[:1], tokenizer)[0]
    assert row["labels"] == row["input_ids"]


def test_the_last_batch_is_filled_from_the_next_epoch() -> None:
    assert sft.steps(SftSpec(epochs=2, batch_size=16), rows=10) == 2
    assert sft.steps(SftSpec(epochs=0.5, batch_size=4, micro_batch_size=4), rows=10) == 2


def test_a_batch_holds_the_rows_of_its_turn_the_longest_first() -> None:
    lengths = [1 + i * 7 % 10 for i in range(10)]
    found = sft.batches(lengths, seed=3, size=4, count=3)
    turns = [index for _, index in order.positions(3, 10, 12)]
    for start in (0, 4, 8):
        batch = found[start : start + 4]
        assert sorted(batch) == sorted(turns[start : start + 4])
        assert [lengths[i] for i in batch] == sorted((lengths[i] for i in batch), reverse=True)


def test_the_trainers_loss_is_the_cross_entropy_of_completion_and_stop_token(model_folder: Path, tokenizer: Tokenizer, tmp_path: Path) -> None:
    spec = document.load({"task": "medcalc", "preset": "tiny", "sft": {"batch_size": 4, "micro_batch_size": 2, "epochs": 1}})
    model = loading.start_model(spec.model, model_folder, 0)
    data = sft.tokenised(spec.sft, ROWS[:4], tokenizer)
    by_hand = []
    for row in data:
        logprobs = model(torch.tensor([row["input_ids"]])).logits[0].log_softmax(-1)
        by_hand += [-logprobs[t - 1, label].item() for t, label in enumerate(row["labels"]) if label != -100]
    trainer = sft.build(spec, model, loading.processing_class(tokenizer, model_folder), data, Curve(tmp_path / "out"), tmp_path / "trainer")
    trainer.train()
    assert trainer.state.log_history[0]["loss"] == pytest.approx(sum(by_hand) / len(by_hand), abs=1e-4)


def test_the_head_scores_no_token_of_the_prompt(model_folder: Path, tokenizer: Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = document.load({"task": "medcalc", "preset": "tiny", "sft": {"batch_size": 4, "micro_batch_size": 2, "epochs": 1}})
    data = sft.tokenised(spec.sft, ROWS[:4], tokenizer)
    model, head, scored = loading.start_model(spec.model, model_folder, 0), fused_head._ChunkedLogProbFunction, []

    def counted(hidden: torch.Tensor, *rest: object) -> object:
        scored.append(len(hidden))
        return head.apply(hidden, *rest)

    monkeypatch.setattr(fused_head, "_ChunkedLogProbFunction", SimpleNamespace(apply=counted))
    sft.build(spec, model, loading.processing_class(tokenizer, model_folder), data, Curve(tmp_path / "out"), tmp_path / "trainer").train()
    assert sum(scored) == sum(label != -100 for row in data for label in row["labels"])


def test_a_batch_that_does_not_cut_into_ranks_is_refused(
    model_folder: Path, tokenizer: Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = document.load({"task": "medcalc", "preset": "tiny", "sft": {"batch_size": 4, "micro_batch_size": 4}})
    data = sft.tokenised(spec.sft, ROWS[:4], tokenizer)
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(SpecError, match="2 ranks"):
        sft.build(spec, None, loading.processing_class(tokenizer, model_folder), data, Curve(tmp_path), tmp_path)
