"""Means over rows and over classes. Over nothing a mean is NaN, never 0; NaN rows are left out.

Rows are weighted, so that a resample is a vector of weights.
"""

import numpy as np


def mean(values: np.ndarray, weights: np.ndarray) -> float:
    """Mean over the rows (length N) that have a value, each counted `weights` times."""
    known = ~np.isnan(values)
    total = weights.sum(where=known)
    # Not a dot product: BLAS starts threads for it, which takes longer than the sum.
    return float((values * weights).sum(where=known) / total) if total else float("nan")


def macro_mean(values: np.ndarray, classes: np.ndarray, weights: np.ndarray) -> float:
    """Unweighted mean over classes of the mean over each class's rows. `classes` holds small non-negative integers (length N)."""
    known = ~np.isnan(values)
    rows = np.bincount(classes[known], weights=weights[known])
    sums = np.bincount(classes[known], weights=(values * weights)[known])
    present = rows > 0
    return over_classes(sums[present] / rows[present])


def over_classes(values: np.ndarray) -> float:
    """Unweighted mean over the classes that have a figure."""
    known = values[~np.isnan(values)]
    return float(known.mean()) if known.size else float("nan")


def ratio(above: np.ndarray, below: np.ndarray, otherwise: float = float("nan")) -> np.ndarray:
    """`above` / `below` element by element, `otherwise` where there is nothing to divide by."""
    found: np.ndarray = np.divide(above, below, out=np.full(above.shape, otherwise), where=below > 0)
    return found


def confusion(truth: np.ndarray, said: np.ndarray, weights: np.ndarray, classes: int) -> np.ndarray:
    """Weight by true class and answer, of shape (C, A). `truth` (N) holds the class of each row, `said` (N, A) its shares of A >= C answers.

    Answers from C on are none of the classes.
    """
    found: np.ndarray = np.eye(classes)[truth].T @ (said * weights[:, None])
    return found


def recalls(table: np.ndarray) -> np.ndarray:
    """Share of right answers in each true class of a confusion matrix (C, A >= C); NaN where a class has no row."""
    return ratio(table.diagonal(), table.sum(axis=1))


def f1(table: np.ndarray) -> np.ndarray:
    """Harmonic mean of precision and recall of each class of a confusion matrix (C, A >= C); NaN where nobody has or says it."""
    classes = len(table)
    return ratio(2 * table.diagonal(), table.sum(axis=1) + table.sum(axis=0)[:classes])
