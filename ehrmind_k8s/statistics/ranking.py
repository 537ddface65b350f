"""How well scores rank the positive rows above the negative ones: areas under the ROC and the precision-recall curve, per class.

Everything is computed from histograms: how much positive and negative weight each distinct score has. The distinct scores are numbered
once (`dense_ranks`), so a resample is one `bincount` and two cumulative sums; nothing is sorted again, and ties are exact.

S classes (subtasks) are ranked at once, each by itself. A class without a positive or without a negative row has no figure: NaN.
"""

import numpy as np

from ehrmind_k8s.statistics import classification


def dense_ranks(scores: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """The rank of each row's score (length N) among the distinct scores of its class: 0 for the lowest, equal scores equal."""
    ranks = np.zeros(len(scores), dtype=np.int64)
    for one in np.unique(classes):
        rows = classes == one
        ranks[rows] = np.unique(scores[rows], return_inverse=True)[1]
    return ranks


def histogram(ranks: np.ndarray, positive: np.ndarray, classes: np.ndarray, weights: np.ndarray, size: int) -> np.ndarray:
    """Weight by class, truth and rank, of shape (`size`, 2, L): [:, 1] are the positive rows. All four arrays have length N."""
    levels = int(ranks.max()) + 1 if len(ranks) else 1
    cell = (classes * 2 + positive) * levels + ranks
    return np.bincount(cell, weights=weights, minlength=size * 2 * levels).reshape(size, 2, levels)


def auroc(table: np.ndarray) -> np.ndarray:
    """P(a positive row scores higher than a negative one), ties counting half (Hanley and McNeil 1982). `table` as of `histogram`; length S."""
    negative, positive = table[:, 0], table[:, 1]
    below = np.cumsum(negative, axis=1) - negative / 2
    return classification.ratio((positive * below).sum(axis=1), positive.sum(axis=1) * negative.sum(axis=1))


def roc(table: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """False positive rate and recall of calling positive what scores at least as high as each distinct score, from the highest down; two arrays
    of shape (S, L). NaN for a class without negative, or without positive rows."""
    found = np.cumsum(table[:, :, ::-1], axis=2)
    rates = classification.ratio(found, found[:, :, -1:])
    return rates[:, 0], rates[:, 1]


def average_precision(table: np.ndarray) -> np.ndarray:
    """Area under the precision-recall curve as steps: the sum over distinct scores of precision times the gain in recall. Length S.

    This is scikit-learn's `average_precision_score`, not the trapezoidal area, which is too optimistic (Davis and Goadrich 2006). Scores that
    say nothing give the prevalence, which has to stand beside it.
    """
    positive = table[:, 1, ::-1]
    found = np.cumsum(positive, axis=1)
    precision = classification.ratio(found, np.cumsum(table[:, :, ::-1].sum(axis=1), axis=1), 0.0)
    area = classification.ratio((precision * positive).sum(axis=1), found[:, -1])
    return np.where(table[:, 0].sum(axis=1) > 0, area, np.nan)


def prevalence(table: np.ndarray) -> np.ndarray:
    """Share of positive rows, length S."""
    return classification.ratio(table[:, 1].sum(axis=1), table.sum(axis=(1, 2)))
