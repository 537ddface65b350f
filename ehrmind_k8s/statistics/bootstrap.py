"""Intervals by the clustered percentile bootstrap (Efron and Tibshirani 1993, chapters 8.5 and 13).

Rows of one group (questions about one note, labels of one patient) are not independent, so whole groups are drawn, with replacement,
until as many groups as there are have been drawn; a resample's number of rows therefore varies. The 2.5 % and 97.5 % points of the
resampled statistic are the interval.

For a paired difference, give the columns of both policies under different names and let the statistic return the difference: it is
then taken inside each resample, and what makes a question hard for both cancels.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

LEVEL = 0.95
Columns = Mapping[str, np.ndarray]


class Interval(NamedTuple):
    """A point estimate and the ends of its interval; the ends are NaN where there is nothing to resample."""

    value: float
    low: float
    high: float


def intervals(
    statistic: Callable[[Columns], Mapping[str, float]], columns: Columns, groups: Sequence[str], *, resamples: int, seed: int
) -> dict[str, Interval]:
    """Estimates of everything `statistic` returns from `columns` (arrays of length N), resampled by `groups` (length N).

    Fewer than two groups give NaN ends: every resample would be the sample itself, and a width of 0 would be a lie. Resamples in
    which a figure is NaN (a class that was not drawn) are left out for that figure.
    """
    point = statistic(columns)
    names = list(point)
    members = _members(groups)
    if len(members) < 2:
        return {name: Interval(point[name], float("nan"), float("nan")) for name in names}
    draw = np.random.default_rng(seed)
    drawn = np.empty((resamples, len(names)))
    for i in range(resamples):
        rows = np.concatenate([members[g] for g in draw.integers(len(members), size=len(members))])
        found = statistic({name: column[rows] for name, column in columns.items()})
        drawn[i] = [found[name] for name in names]
    return {name: Interval(point[name], *_ends(drawn[:, i])) for i, name in enumerate(names)}


def _members(groups: Sequence[str]) -> list[np.ndarray]:
    """Row indices of each group, groups in sorted order, so that the same seed draws the same groups whatever the order of rows."""
    if not groups:
        return []
    _, group_of_row = np.unique(np.asarray(groups), return_inverse=True)
    order = np.argsort(group_of_row, kind="stable")
    return np.split(order, np.cumsum(np.bincount(group_of_row))[:-1])


def _ends(values: np.ndarray) -> tuple[float, float]:
    known = values[~np.isnan(values)]
    if not known.size:
        return float("nan"), float("nan")
    low, high = np.quantile(known, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)
