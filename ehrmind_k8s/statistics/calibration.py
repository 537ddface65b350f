"""Whether a probability means what it says: Brier score, expected calibration error and the curve behind it, per class.

Bins are equal parts of [0, 1], BINS of them; a value on an edge belongs to the upper bin, 1 to the last. S classes are judged at once, each
by itself; a class without rows is NaN.
"""

from dataclasses import dataclass

import numpy as np

from ehrmind_k8s.statistics import classification

BINS = 10


@dataclass(frozen=True, slots=True)
class Curve:
    """For each class and bin, of shape (S, BINS): the weight of its rows, their mean probability and their share of positives (NaN where empty)."""

    weight: np.ndarray
    predicted: np.ndarray
    observed: np.ndarray


def bins(probabilities: np.ndarray) -> np.ndarray:
    """The bin of each probability (length N), 0 to BINS - 1."""
    return np.minimum((probabilities * BINS).astype(np.int64), BINS - 1)


def brier(squared: np.ndarray, classes: np.ndarray, weights: np.ndarray, size: int) -> np.ndarray:
    """Mean of `squared`, the squared distances of probability and truth (length N), by class; length `size`. 0 is best (Brier 1950)."""
    total = np.bincount(classes, weights=weights, minlength=size)
    return classification.ratio(np.bincount(classes, weights=weights * squared, minlength=size), total)


def curve(binned: np.ndarray, probabilities: np.ndarray, positive: np.ndarray, classes: np.ndarray, weights: np.ndarray, size: int) -> Curve:
    """The calibration curve. Arrays have length N: `binned` comes from `bins`, `positive` holds 0 and 1."""
    cell = (classes * 2 + positive) * BINS + binned
    shape = (size, 2, BINS)
    rows = np.bincount(cell, weights=weights, minlength=size * 2 * BINS).reshape(shape)
    predicted = np.bincount(cell, weights=weights * probabilities, minlength=size * 2 * BINS).reshape(shape)
    weight = rows.sum(axis=1)
    return Curve(weight, classification.ratio(predicted.sum(axis=1), weight), classification.ratio(rows[:, 1], weight))


def expected_error(found: Curve) -> np.ndarray:
    """Mean over rows of the distance between their bin's mean probability and its share of positives (Naeini et al. 2015); length S."""
    gaps = np.where(found.weight > 0, np.abs(found.predicted - found.observed), 0.0)
    return classification.ratio((found.weight * gaps).sum(axis=1), found.weight.sum(axis=1))
