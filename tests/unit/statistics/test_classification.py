"""Means over rows and classes."""

import math

import numpy as np

from ehrmind_k8s.statistics import classification

NAN = float("nan")


def once(size: int) -> np.ndarray:
    return np.ones(size)


def test_mean_leaves_out_rows_without_a_value() -> None:
    assert classification.mean(np.array([1.0, NAN, 0.0, 0.0, 1.0]), once(5)) == 0.5


def test_mean_of_nothing_is_nan() -> None:
    assert math.isnan(classification.mean(np.array([]), once(0)))
    assert math.isnan(classification.mean(np.array([NAN]), once(1)))


def test_macro_mean_weighs_classes_alike() -> None:
    assert classification.macro_mean(np.array([1.0, 0.0, 0.0, 0.0]), np.array([69, 2, 2, 2]), once(4)) == 0.5


def test_macro_mean_leaves_out_classes_without_a_value() -> None:
    assert classification.macro_mean(np.array([1.0, NAN]), np.array([2, 3]), once(2)) == 1
    assert math.isnan(classification.macro_mean(np.array([NAN]), np.array([2]), once(1)))


def test_a_weight_counts_a_row_that_many_times() -> None:
    values, classes, weights = np.array([1.0, 0.0, 0.5]), np.array([1, 1, 4]), np.array([3.0, 1.0, 0.0])
    assert classification.mean(values, weights) == classification.mean(np.array([1.0, 1, 1, 0]), once(4)) == 0.75
    assert classification.macro_mean(values, classes, weights) == 0.75
