"""Figures from judged answers, against numbers worked out by hand."""

import dataclasses
import itertools
import math
from collections.abc import Mapping, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ehrmind_k8s.evaluation import measure
from ehrmind_k8s.evaluation.generate import Answer, Questions
from ehrmind_k8s.evaluation.measure import Measured
from ehrmind_k8s.records import Example
from ehrmind_k8s.rollout.base import Policy
from tests.unit.evaluation.conftest import ask


def answer(id_: str, correct: bool, greedy: bool = True, outcome: str = "scored") -> Answer:
    return Answer(id_, greedy, "text", 5, "stop", correct, "1" if outcome == "scored" else None, outcome)  # type: ignore[arg-type]


def measured(questions: Questions, found: Mapping[str, Sequence[Answer]]) -> Measured:
    return measure.measure(questions, {label: Policy(label, f"file:///{label}") for label in found}, found, resamples=200, seed=1)


def greedy(examples: Sequence[Example], right: int) -> list[Answer]:
    return [answer(e.id, i < right) for i, e in enumerate(examples)]


@given(st.integers(1, 8), st.data())
def test_pass_at_k_is_the_share_of_draws_that_hold_a_right_sample(n: int, data: st.DataObject) -> None:
    correct, k = data.draw(st.integers(0, n)), data.draw(st.integers(1, n))
    draws = list(itertools.combinations([True] * correct + [False] * (n - correct), k))
    assert measure.pass_at(n, correct, k) == pytest.approx(sum(any(d) for d in draws) / len(draws))


def test_wilson_agrees_with_the_published_example() -> None:
    found = measure.wilson(81, 263)  # Newcombe 1998, table I, method 3: 0.2553 to 0.3662
    assert (round(found.low, 4), round(found.high, 4)) == (0.2553, 0.3662)


def test_wilson_of_no_right_answer_still_has_width() -> None:
    assert measure.wilson(0, 4).high == pytest.approx(0.4899, abs=1e-4)
    assert math.isnan(measure.wilson(0, 0).value)


def test_rows_that_repeat_their_group_are_worth_one_row_a_group() -> None:
    alike = [True, True, True, False, False, False, True, True, True, False, False, False]
    groups = [f"note {i // 3}" for i in range(12)]
    # Sums of groups 1.5, -1.5, 1.5, -1.5: 4 / 3 x 9 = 12 against n p (1 - p) = 3, so a design effect of 4.
    assert measure.effective(alike, groups) == pytest.approx(3)
    assert measure.effective(alike, [str(i) for i in range(12)]) == 12
    assert measure.effective([True] * 12, groups) == 4
    mixed = [True, False, True, False, True, False]
    assert measure.effective(mixed, ["a", "a", "b", "b", "c", "c"]) == 6  # groups that cancel are no better than independent rows


def test_a_table_line_is_less_certain_where_its_rows_share_a_note(examples: list[Example]) -> None:
    same = [dataclasses.replace(e, group="one note") for e in examples]
    for table in zip(*(measured(ask(rows, samples=0), {"base": greedy(rows, 99)}).tables for rows in (examples, same)), strict=True):
        apart, together = (max(t.rows, key=lambda r: r.n).correct["base"] for t in table)
        assert apart.value == together.value and together.low < apart.low


def test_accuracy_is_the_share_of_greedy_answers(examples: list[Example]) -> None:
    found = measured(ask(examples, samples=0), {"base": greedy(examples, 3)})
    accuracy = found.policies["base"].metrics["accuracy"]
    assert accuracy.value == pytest.approx(3 / len(examples))
    assert accuracy.low <= accuracy.value <= accuracy.high
    assert accuracy.n == len(examples)


def test_samples_give_their_mean_and_pass_at_k_beside_the_greedy_answer(examples: list[Example]) -> None:
    rows = examples[:2]
    samples = [answer(rows[0].id, right, greedy=False) for right in (True, False, False, False)]
    samples += [answer(rows[1].id, False, greedy=False)] * 4
    metrics = measured(ask(rows, samples=4), {"sft": [*greedy(rows, 2), *samples]}).policies["sft"].metrics
    assert metrics["accuracy"].value == 1
    assert metrics["mean_at_4"].value == pytest.approx(1 / 8)
    assert (metrics["pass_at_2"].value, metrics["pass_at_4"].value) == (pytest.approx(1 / 4), pytest.approx(1 / 2))


def test_a_difference_is_paired_so_equal_answers_differ_by_exactly_nothing(examples: list[Example]) -> None:
    found = measured(ask(examples, samples=0), {"base": greedy(examples, 3), "sft": greedy(examples, 3), "rlvr": greedy(examples, 5)})
    by_name = {(d.policy, d.baseline): d.metrics["accuracy"] for d in found.differences}
    same = by_name["sft", "base"]
    assert (same.value, same.low, same.high) == (0, 0, 0)
    assert by_name["rlvr", "sft"].value == pytest.approx(2 / len(examples))
    assert list(by_name) == [("sft", "base"), ("rlvr", "base"), ("rlvr", "sft")]


def test_comparisons_of_policies_are_corrected_for_their_number(examples: list[Example]) -> None:
    n = len(examples)
    found = measured(ask(examples, samples=0), {"base": greedy(examples, 0), "sft": greedy(examples, 2), "rlvr": greedy(examples, n)})
    by_name = {(d.policy, d.baseline): (d.p, d.p_holm) for d in found.differences}
    assert [p for p, _ in by_name.values()] == sorted([p for p, _ in by_name.values()], reverse=True)
    assert by_name["rlvr", "base"][1] == pytest.approx(3 * by_name["rlvr", "base"][0])
    assert by_name["sft", "base"][1] == by_name["sft", "base"][0], "the largest is left as it is"


def test_every_figure_says_on_how_many_groups_it_rests(examples: list[Example]) -> None:
    same = [dataclasses.replace(e, group=f"note {i // 2}") for i, e in enumerate(examples)]
    found = measured(ask(same, samples=0), {"base": greedy(same, 3)})
    groups = len({e.group for e in same})
    assert found.groups == found.policies["base"].metrics["accuracy"].groups == groups < len(same)
    for row in (row for table in found.tables for row in table.rows):
        assert row.groups == row.correct["base"].groups <= row.n


def test_rows_that_one_policy_could_not_answer_leave_all_policies_and_are_counted(examples: list[Example]) -> None:
    found = measured(ask(examples, samples=0), {"base": greedy(examples, 3)[1:], "sft": greedy(examples, 3)})
    assert (found.rows, found.unscored) == (len(examples) - 1, 1)
    assert found.policies["sft"].metrics["accuracy"].n == len(examples) - 1


def test_outcomes_tell_wrong_from_unreadable(examples: list[Example]) -> None:
    rows = examples[:4]
    kinds = [(True, "scored"), (False, "scored"), (False, "unparseable"), (False, "malformed")]
    found = measured(ask(rows, samples=0), {"base": [answer(e.id, right, outcome=o) for e, (right, o) in zip(rows, kinds, strict=True)]})
    assert found.policies["base"].outcomes == {"correct": 1, "wrong": 1, "unparseable": 1, "malformed": 1}


def test_tables_count_every_row_once(examples: list[Example]) -> None:
    found = measured(ask(examples, samples=0), {"base": greedy(examples, len(examples))})
    assert {t.name for t in found.tables} == {"calculator", "category"}
    for table in found.tables:
        assert sum(r.n for r in table.rows) == len(examples)
        assert all(r.correct["base"].value == 1 for r in table.rows)
