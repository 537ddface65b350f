"""Many comparisons at once: Holm's correction (Holm 1979, Scandinavian Journal of Statistics 6, 65-70)."""

from collections.abc import Sequence

import numpy as np


def holm(p: Sequence[float]) -> list[float]:
    """Adjusted p-values in the order of `p`: below a level a, all together are wrongly so with probability at most a, dependent or not.

    The i-th smallest of m (from 0) is multiplied by m - i, and is no smaller than the one before it. NaN is no comparison and stays NaN.
    """
    values = np.asarray(p, dtype=float)
    adjusted = np.full(len(values), np.nan)
    order = [i for i in np.argsort(values, kind="stable") if not np.isnan(values[i])]
    largest = 0.0
    for place, i in enumerate(order):
        largest = max(largest, min(1.0, (len(order) - place) * values[i]))
        adjusted[i] = largest
    return [float(value) for value in adjusted]
