"""Figures per subtask and their macro average, against scikit-learn and by hand."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, balanced_accuracy_score, brier_score_loss, roc_auc_score

from ehrmind_k8s.records import Example
from ehrmind_k8s.tasks.base import Sampled
from ehrmind_k8s.tasks.ehrshot import metrics, prompt, scoring

NAMES = ("guo_los", "new_lupus")
Row = tuple[str, int, list[str]]  # subtask, label, one letter per sample: y, n, or x for what cannot be read
letters = st.sampled_from("ynx")
rows = st.lists(st.tuples(st.sampled_from(NAMES), st.integers(0, 1), st.lists(letters, min_size=1, max_size=8)), min_size=1, max_size=30)


def example(subtask: str, label: int, i: int) -> Example:
    target = {"subtask": subtask, "label": label, "positive": "sick", "negative": "well"}
    return Example(f"e{i}", "ehrshot", "test", f"g{i}", subtask, (), target)


def sampled(e: Example, letter: str) -> Sampled:
    text = prompt.completion(".", {**e.target, "label": int(letter == "y")}) if letter != "x" else "no answer"
    return Sampled(text, scoring.score(e.target, text))


def columns(drawn: list[Row]) -> dict[str, np.ndarray]:
    """The first sample is the answer, all are the votes."""
    examples = [example(subtask, label, i) for i, (subtask, label, _) in enumerate(drawn)]
    votes = [[sampled(e, letter) for letter in found] for e, (_, _, found) in zip(examples, drawn, strict=True)]
    return metrics.columns(examples, [v[:1] for v in votes], votes)


def measured(drawn: list[Row], weights: list[int] | None = None) -> dict[str, float]:
    return metrics.metrics(columns(drawn), np.array(weights or [1] * len(drawn), dtype=float))


def probability(found: list[str]) -> float:
    read = [letter == "y" for letter in found if letter != "x"]
    return sum(read) / len(read) if read else 0.5


@given(rows)
def test_each_subtask_has_scikit_learns_figures(drawn: list[Row]) -> None:
    found = measured(drawn)
    for name in NAMES:
        mine = [(label, votes) for subtask, label, votes in drawn if subtask == name]
        truth, p = [label for label, _ in mine], [probability(votes) for _, votes in mine]
        if not mine:
            assert f"auroc/{name}" not in found
            continue
        assert found[f"brier/{name}"] == pytest.approx(brier_score_loss(truth, p, pos_label=1))
        assert found[f"prevalence/{name}"] == pytest.approx(sum(truth) / len(truth))
        if len(set(truth)) == 2:
            answers = [{"y": 1, "n": 0, "x": 2}[votes[0]] for _, votes in mine]
            recall = [np.mean([a == label for a, t in zip(answers, truth, strict=True) if t == label]) for label in (0, 1)]
            assert found[f"auroc/{name}"] == pytest.approx(roc_auc_score(truth, p))
            assert found[f"auprc/{name}"] == pytest.approx(average_precision_score(truth, p))
            assert found[f"balanced_accuracy/{name}"] == pytest.approx(np.mean(recall))
            if 2 not in answers:
                assert found[f"balanced_accuracy/{name}"] == pytest.approx(balanced_accuracy_score(truth, answers))


@given(rows, st.data())
def test_a_weight_is_a_row_written_so_many_times(drawn: list[Row], data: st.DataObject) -> None:
    times = data.draw(st.lists(st.integers(0, 3), min_size=len(drawn), max_size=len(drawn)))
    found = measured(drawn, times)
    repeated = [row for row, n in zip(drawn, times, strict=True) for _ in range(n)]
    if repeated:
        again = measured(repeated)
        assert {name: found[name] for name in again} == pytest.approx(again, nan_ok=True)


def test_the_macro_average_is_over_the_subtasks_that_have_both_classes() -> None:
    drawn: list[Row] = [("guo_los", 1, ["y"]), ("guo_los", 0, ["y"]), ("new_lupus", 0, ["n"]), ("new_lupus", 0, ["n"])]
    found = measured(drawn)
    assert found["auroc"] == found["auroc/guo_los"] == 0.5
    assert math.isnan(found["auroc/new_lupus"]) and math.isnan(found["balanced_accuracy/new_lupus"])
    assert found["brier"] == pytest.approx((found["brier/guo_los"] + found["brier/new_lupus"]) / 2)


def test_a_vote_that_cannot_be_read_is_no_vote() -> None:
    p = columns([("guo_los", 1, list("yyxx")), ("guo_los", 1, list("xxxx")), ("guo_los", 0, list("ynxx"))])
    assert p["probability"].tolist() == [1.0, 0.5, 0.5]
    assert measured([("guo_los", 1, list("yyxx")), ("guo_los", 0, list("xxxx"))])["unreadable_votes"] == pytest.approx(0.75)


def test_a_policy_that_says_nothing_readable_ranks_as_chance_and_is_never_right() -> None:
    found = measured([("guo_los", i % 2, ["x"]) for i in range(6)])
    assert (found["auroc"], found["auprc"], found["balanced_accuracy"], found["brier"]) == (0.5, 0.5, 0.0, 0.25)


def test_a_subtask_that_a_resample_did_not_draw_keeps_its_name() -> None:
    drawn: list[Row] = [("guo_los", 1, ["y"]), ("guo_los", 0, ["n"]), ("new_lupus", 1, ["y"]), ("new_lupus", 0, ["n"])]
    found = measured(drawn, [1, 1, 0, 0])
    assert found.keys() == measured(drawn).keys() and math.isnan(found["auroc/new_lupus"]) and found["auroc"] == 1


def test_balanced_accuracy_ignores_how_common_a_label_is() -> None:
    always_no: list[Row] = [("guo_los", 0, ["n"])] * 9 + [("guo_los", 1, ["n"])]
    assert measured(always_no)["balanced_accuracy"] == 0.5
