"""Means over rows and classes."""

import math

import numpy as np

from ehrmind_k8s.statistics import classification

NAN = float("nan")


def test_mean_leaves_out_rows_without_a_value() -> None:
    assert classification.mean(np.array([1.0, NAN, 0.0, 0.0, 1.0])) == 0.5


def test_mean_of_nothing_is_nan() -> None:
    assert math.isnan(classification.mean(np.array([])))
    assert math.isnan(classification.mean(np.array([NAN])))


def test_macro_mean_weighs_classes_alike() -> None:
    assert classification.macro_mean(np.array([1.0, 0.0, 0.0, 0.0]), np.array([69, 2, 2, 2])) == 0.5


def test_macro_mean_leaves_out_classes_without_a_value() -> None:
    assert classification.macro_mean(np.array([1.0, NAN]), np.array([2, 3])) == 1
    assert math.isnan(classification.macro_mean(np.array([NAN]), np.array([2])))
