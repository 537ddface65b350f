"""Intervals by the clustered percentile bootstrap (Efron and Tibshirani 1993, chapters 8.5 and 13).

Rows of one group (questions about one note, labels of one patient) are not independent, so whole groups are drawn, with replacement,
until as many groups as there are have been drawn; a resample's number of rows therefore varies. The 2.5 % and 97.5 % points of the
resampled statistic are the interval. A resample is a vector of weights, how often each row was drawn: nothing is copied or sorted again.

A statistic that is a difference also gets a two-sided p-value by inverting the interval: the
smallest level at which a percentile interval would hold 0, from the shares of resamples on either side of it.

For a paired difference, give the columns of both policies under different names and let the statistic return the difference: it is
then taken inside each resample, and what makes a question hard for both cancels.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

LEVEL = 0.95
Columns = Mapping[str, np.ndarray]


class Interval(NamedTuple):
    """A point estimate, the ends of its interval, and the p-value of its being 0; these three are NaN where there is nothing to resample."""

    value: float
    low: float
    high: float
    p: float


def intervals(
    statistic: Callable[[Columns, np.ndarray], Mapping[str, float]], columns: Columns, groups: Sequence[str], *, resamples: int, seed: int
) -> dict[str, Interval]:
    """Estimates of everything `statistic` returns from `columns` (arrays of length N) and weights (length N), resampled by `groups` (length N).

    Fewer than two groups give NaN ends: every resample would be the sample itself, and a width of 0 would be a lie. Resamples in
    which a figure is NaN (a class that was not drawn) are left out for that figure.
    """
    group_of_row, size = _numbered(groups)
    point = statistic(columns, np.ones(len(groups)))
    names = list(point)
    if size < 2:
        return {name: Interval(point[name], float("nan"), float("nan"), float("nan")) for name in names}
    draw = np.random.default_rng(seed)
    drawn = np.empty((resamples, len(names)))
    for i in range(resamples):
        times = np.bincount(draw.integers(size, size=size), minlength=size).astype(float)
        found = statistic(columns, times[group_of_row])
        drawn[i] = [found[name] for name in names]
    return {name: Interval(point[name], *_ends(drawn[:, i]), _p(drawn[:, i])) for i, name in enumerate(names)}


def _numbered(groups: Sequence[str]) -> tuple[np.ndarray, int]:
    """The number of each row's group, in sorted order so that a seed draws the same groups whatever the order of rows; how many there are."""
    if not groups:
        return np.empty(0, dtype=int), 0
    names, group_of_row = np.unique(np.asarray(groups), return_inverse=True)
    return group_of_row, len(names)


def _ends(values: np.ndarray) -> tuple[float, float]:
    known = values[~np.isnan(values)]
    if not known.size:
        return float("nan"), float("nan")
    low, high = np.quantile(known, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def _p(values: np.ndarray) -> float:
    """Twice the smaller share of resamples at or beyond 0, at most 1. One is added to both counts: no number of resamples shows a p of 0."""
    known = values[~np.isnan(values)]
    if not known.size:
        return float("nan")
    beyond = min(int((known <= 0).sum()), int((known >= 0).sum()))
    return min(1.0, 2 * (beyond + 1) / (len(known) + 1))
