"""Means over rows and over classes. NaN rows are left out; over nothing a mean is NaN, never 0."""

import numpy as np


def mean(values: np.ndarray) -> float:
    """Mean over the rows (length N) that have a value."""
    known = values[~np.isnan(values)]
    return float(known.mean()) if known.size else float("nan")


def macro_mean(values: np.ndarray, classes: np.ndarray) -> float:
    """Unweighted mean over classes of the mean over each class's rows. `classes` holds small non-negative integers (length N)."""
    known = ~np.isnan(values)
    if not known.any():
        return float("nan")
    rows = np.bincount(classes[known])
    sums = np.bincount(classes[known], weights=values[known])
    present = rows > 0
    return float((sums[present] / rows[present]).mean())
