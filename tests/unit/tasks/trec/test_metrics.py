"""Figures against ir-measures, scikit-learn and cases worked by hand."""

import math
from collections.abc import Sequence

import ir_measures
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ir_measures import RR, P, Rprec, nDCG
from sklearn.metrics import accuracy_score, balanced_accuracy_score, f1_score

from ehrmind_k8s.records import Example, Verdict
from ehrmind_k8s.tasks.base import Sampled
from ehrmind_k8s.tasks.trec import metrics

OFFICIAL = {"ndcg_at_10": nDCG @ 10, "p_at_10": P(rel=2) @ 10, "r_precision": Rprec(rel=2), "reciprocal_rank": RR(rel=2)}


def row(topic: str, trial: int, grade: int) -> Example:
    return Example(f"{topic}-{trial}", "trec", "test", topic, "x", (), {"grade": grade, "trial": f"NCT9{trial:07}"})


def says(*grades: str | None) -> list[Sampled]:
    return [Sampled("", Verdict(False, g, "scored")) for g in grades]


def measure(rows: Sequence[Example], answers: Sequence[list[Sampled]], votes: Sequence[list[Sampled]] | None = None) -> dict[str, float]:
    return metrics.metrics(metrics.columns(rows, answers, votes or answers), np.ones(len(rows)))


VOTE = st.sampled_from(["0", "1", "2", None, "disagrees"])


def pools(k: int) -> st.SearchStrategy[list[list[tuple[int, list[str | None]]]]]:
    """Topics of pairs with a grade and k votes."""
    pair = st.tuples(st.integers(0, 2), st.lists(VOTE, min_size=k, max_size=k))
    return st.lists(st.lists(pair, min_size=1, max_size=40), min_size=1, max_size=4)


@settings(deadline=None)
@given(st.integers(1, 16).flatmap(pools))
def test_the_ranking_is_that_of_ir_measures(topics: list[list[tuple[int, list[str | None]]]]) -> None:
    """Expected grades of a few votes have many ties, which trec_eval breaks by document id, and which a sum of thirds would break."""
    rows = [row(f"2021-{t}", 7919 * i % 10007, grade) for t, pool in enumerate(topics) for i, (grade, _) in enumerate(pool)]
    votes = [says(*said) for pool in topics for _, said in pool]
    found = measure(rows, votes)
    score = {r.id: sum(int(v.verdict.parsed) for v in said if v.verdict.parsed in ("1", "2")) for r, said in zip(rows, votes, strict=True)}
    qrels = [ir_measures.Qrel(r.group, r.target["trial"], r.target["grade"]) for r in rows]
    run = [ir_measures.ScoredDoc(r.group, r.target["trial"], score[r.id]) for r in rows]
    theirs = ir_measures.pytrec_eval.calc_aggregate(list(OFFICIAL.values()), qrels, run)
    assert {name: found[name] for name in OFFICIAL} == pytest.approx({name: theirs[m] for name, m in OFFICIAL.items()})


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2)), min_size=1, max_size=60))
def test_the_decision_is_measured_as_by_scikit_learn(pairs: list[tuple[int, int]]) -> None:
    truth, said = [a for a, _ in pairs], [b for _, b in pairs]
    found = measure([row("2021-1", i, grade) for i, grade in enumerate(truth)], [says(str(s)) for s in said])
    assert found["accuracy"] == pytest.approx(accuracy_score(truth, said))
    assert found["macro_f1"] == pytest.approx(f1_score(truth, said, average="macro", zero_division=0))
    if len(set(said)) == len(set(truth)) == 3:  # scikit-learn warns of classes that are only predicted
        assert found["balanced_accuracy"] == pytest.approx(balanced_accuracy_score(truth, said))


def test_balanced_accuracy_by_hand_and_unreadable_answers_are_wrong() -> None:
    """Recalls: 0 of 2 (one unreadable, one wrong), 1 of 1, 1 of 2 (the other names two grades)."""
    rows = [row("2021-1", i, g) for i, g in enumerate((0, 0, 1, 2, 2))]
    found = measure(rows, [says(None), says("1"), says("1"), says("2"), says("disagrees")])
    assert found["balanced_accuracy"] == pytest.approx((0 + 1 + 0.5) / 3)
    assert found["accuracy"] == pytest.approx(2 / 5)


def test_votes_rank_and_answers_decide() -> None:
    rows = [row("2021-1", 1, 2), row("2021-1", 2, 0)]
    found = measure(rows, [says("0"), says("0")], [says("2", "2"), says("0", "1")])
    assert found["reciprocal_rank"] == 1 and found["accuracy"] == 0.5


def test_a_topic_without_an_eligible_trial_has_0_as_in_trec_eval() -> None:
    found = measure([row("2021-1", 1, 1), row("2021-1", 2, 0)], [says("1"), says("0")])
    assert (found["p_at_10"], found["r_precision"], found["reciprocal_rank"]) == (0, 0, 0) and found["ndcg_at_10"] == 1


def test_topics_weigh_alike_and_a_topic_that_is_drawn_twice_counts_twice() -> None:
    rows = [row("2021-1", 1, 2), *(row("2021-2", i, 0) for i in range(5))]
    columns = metrics.columns(rows, [says("2")] + [says("0")] * 5, [says("2")] + [says("0")] * 5)
    assert metrics.metrics(columns, np.ones(6))["reciprocal_rank"] == 0.5
    assert metrics.metrics(columns, np.array([2.0, 1, 1, 1, 1, 1]))["reciprocal_rank"] == pytest.approx(2 / 3)


def test_no_rows_have_no_figures() -> None:
    assert all(math.isnan(v) for v in measure([], []).values())


def test_the_columns_of_the_confusion_matrix_add_up_to_one_for_each_row() -> None:
    columns = metrics.columns([row("2021-1", 1, 2), row("2021-1", 2, 0)], [says("2"), says("disagrees")], [[], []])
    assert columns["truth"].tolist() == [2, 0]
    assert [columns[f"said_{i}"].tolist() for i in range(4)] == [[0, 0], [0, 0], [1, 0], [0, 1]]
