"""Areas under curves, against scikit-learn and against rows that are written out."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve

from ehrmind_k8s.statistics import ranking

rows = st.lists(st.tuples(st.integers(0, 2), st.booleans(), st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.75, 1.0]) | st.floats(0, 1), st.integers(0, 4)))


def table(drawn: list[tuple[int, bool, float, int]], weighted: bool = True) -> np.ndarray:
    classes, positive = np.array([r[0] for r in drawn], dtype=int), np.array([r[1] for r in drawn], dtype=int)
    scores, weights = np.array([r[2] for r in drawn], dtype=float), np.array([r[3] if weighted else 1 for r in drawn], dtype=float)
    return ranking.histogram(ranking.dense_ranks(scores, classes), positive, classes, weights, 3)


@given(rows)
def test_areas_are_scikit_learns_for_every_class(drawn: list[tuple[int, bool, float, int]]) -> None:
    found = table(drawn)
    for one, (auroc, area, share) in enumerate(zip(ranking.auroc(found), ranking.average_precision(found), ranking.prevalence(found), strict=True)):
        mine = [r for r in drawn if r[0] == one and r[3]]
        truth, scores, weights = [r[1] for r in mine], [r[2] for r in mine], [r[3] for r in mine]
        if len(set(truth)) < 2:
            assert np.isnan(auroc) and np.isnan(area)
            continue
        assert auroc == pytest.approx(roc_auc_score(truth, scores, sample_weight=weights))
        assert area == pytest.approx(average_precision_score(truth, scores, sample_weight=weights))
        assert share == pytest.approx(np.average(truth, weights=weights))


@given(rows)
def test_the_roc_curve_is_scikit_learns_at_every_score(drawn: list[tuple[int, bool, float, int]]) -> None:
    false, recall = ranking.roc(table(drawn))
    for one in range(3):
        mine = [r for r in drawn if r[0] == one]
        truth, scores, weights = [r[1] for r in mine], [r[2] for r in mine], [r[3] for r in mine]
        if len({t for t, w in zip(truth, weights, strict=True) if w}) < 2:
            assert np.isnan(false[one]).any() or np.isnan(recall[one]).any()
            continue
        x, y, _ = roc_curve(truth, scores, sample_weight=weights, drop_intermediate=False)
        mine_too = {(0.0, 0.0), *zip(false[one].round(9), recall[one].round(9), strict=True)}
        assert mine_too == {*zip(x.round(9), y.round(9), strict=True)}


@given(rows)
def test_a_weight_is_a_row_written_so_many_times(drawn: list[tuple[int, bool, float, int]]) -> None:
    repeated = [r for r in drawn for _ in range(r[3])]
    for figure in (ranking.auroc, ranking.average_precision, ranking.prevalence):
        assert figure(table(drawn)) == pytest.approx(figure(table(repeated, weighted=False)), nan_ok=True)


def test_a_tie_is_half_a_win() -> None:
    # One positive at 0.5 against negatives at 0.2, 0.5 and 0.9: one win, one tie, one loss.
    drawn = [(0, True, 0.5, 1), (0, False, 0.2, 1), (0, False, 0.5, 1), (0, False, 0.9, 1)]
    assert ranking.auroc(table(drawn))[0] == pytest.approx(1.5 / 3)


def test_scores_that_say_nothing_have_the_prevalence_as_their_precision() -> None:
    drawn = [(0, i < 3, 0.5, 1) for i in range(12)]
    assert ranking.average_precision(table(drawn))[0] == pytest.approx(ranking.prevalence(table(drawn))[0]) == pytest.approx(0.25)


def test_ranks_are_of_each_class_alone_so_that_a_histogram_stays_small() -> None:
    assert ranking.dense_ranks(np.array([0.9, 0.1, 0.4, 0.4]), np.array([0, 0, 1, 1])).tolist() == [1, 0, 0, 0]
