"""Brier score and calibration, against scikit-learn and against rows that are worked out by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.calibration import calibration_curve
from sklearn.metrics import brier_score_loss

from ehrmind_k8s.statistics import calibration

# Away from the edges of bins, where scikit-learn puts a value into the lower bin.
shares = st.integers(0, 1000).map(lambda n: n / 1000).filter(lambda p: p * 10 % 1 > 1e-9 or p in (0, 1))
rows = st.lists(st.tuples(st.booleans(), shares, st.integers(1, 4)), min_size=1)


def measured(drawn: list[tuple[bool, float, int]]) -> tuple[float, float, calibration.Curve]:
    truth, p = np.array([r[0] for r in drawn], dtype=int), np.array([r[1] for r in drawn])
    weights, classes = np.array([r[2] for r in drawn], dtype=float), np.ones(len(drawn), dtype=int)
    curve = calibration.curve(calibration.bins(p), p, truth, classes, weights, 2)
    brier = calibration.brier((p - truth) ** 2, classes, weights, 2)
    assert np.isnan(brier[0]) and np.isnan(calibration.expected_error(curve)[0]), "a class without rows has no figure"
    return brier[1], calibration.expected_error(curve)[1], curve


@given(rows)
def test_brier_and_curve_are_scikit_learns(drawn: list[tuple[bool, float, int]]) -> None:
    brier, _, curve = measured(drawn)
    truth, p, weights = ([r[i] for r in drawn] for i in range(3))
    assert brier == pytest.approx(brier_score_loss(truth, p, sample_weight=weights, pos_label=True))
    repeated = [r for r in drawn for _ in range(r[2])]
    observed, predicted = calibration_curve([r[0] for r in repeated], [r[1] for r in repeated], n_bins=calibration.BINS, pos_label=True)
    filled = curve.weight[1] > 0
    assert curve.observed[1][filled] == pytest.approx(observed) and curve.predicted[1][filled] == pytest.approx(predicted)


@given(rows)
def test_a_weight_is_a_row_written_so_many_times(drawn: list[tuple[bool, float, int]]) -> None:
    repeated = [(truth, p, 1) for truth, p, times in drawn for _ in range(times)]
    assert measured(drawn)[:2] == pytest.approx(measured(repeated)[:2])


def test_the_expected_error_weighs_bins_by_their_rows() -> None:
    # Bin 0.8: four rows, three positive, off by 0.05. Bin 0.2: one row, positive, off by 0.8.
    drawn = [(True, 0.8, 1), (True, 0.8, 1), (True, 0.8, 1), (False, 0.8, 1), (True, 0.2, 1)]
    assert measured(drawn)[1] == pytest.approx(0.8 * 0.05 + 0.2 * 0.8)


def test_certain_and_right_is_perfect_and_certain_and_wrong_is_the_worst() -> None:
    assert measured([(True, 1.0, 1), (False, 0.0, 1)])[:2] == (0, 0)
    assert measured([(True, 0.0, 1), (False, 1.0, 1)])[:2] == (1, 1)
