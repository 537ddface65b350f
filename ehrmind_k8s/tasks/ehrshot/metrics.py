"""Figures of yes-or-no predictions, per subtask and as their macro average.

The probability of a row is the share of votes for 1 among its readable votes. A vote that cannot be read, or says both labels, is no vote:
counting it as a 0 would make a policy that breaks the form look as if it knew the healthy. A row without any readable vote has 0.5, which
ranks and calibrates as not knowing; `unreadable_votes` says how often that may have happened. Where k samples are not taken, the greedy
answer is the only vote, and areas then have one point between their corners.

    auroc, auprc          ranking; a macro average is over the subtasks that have both classes. auprc is read against `prevalence`
    balanced_accuracy     mean over the two classes of the share of right (greedy) answers; an unreadable answer is wrong
    brier, ece            squared error and expected calibration error (10 bins) of the probability; 0 is best

`<metric>/<subtask>` is the metric over one subtask.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from ehrmind_k8s.records import Example
from ehrmind_k8s.statistics import calibration, classification, ranking
from ehrmind_k8s.tasks.base import Sampled
from ehrmind_k8s.tasks.ehrshot import scoring

UNKNOWN = 0.5
OF = "of/"  # prefix of the columns that tell which subtasks there are, also those that a resample did not draw


def columns(examples: Sequence[Example], answers: Sequence[Sequence[Sampled]], votes: Sequence[Sequence[Sampled]]) -> dict[str, np.ndarray]:
    """All of length N: `subtask` (a code), `positive` (0 or 1), `probability`, `rank` and `bin` of it, `squared` error, `right` (share of
    answers), `unreadable` (share of votes), and for each subtask a column `of/<subtask>` of 0 and 1, in the order of codes."""
    names = sorted({str(e.target["subtask"]) for e in examples})
    subtask = np.array([names.index(e.target["subtask"]) for e in examples], dtype=np.int64)
    positive = np.array([e.target["label"] for e in examples], dtype=np.int64)
    probability = np.array([_probability(texts) for texts in votes], dtype=float)
    return {
        "subtask": subtask,
        "positive": positive,
        "truth": positive,
        **_said(answers),
        **of_probability(probability, positive, subtask),
        "right": np.array([_share([t.verdict.correct for t in texts]) for texts in answers], dtype=float),
        "unreadable": np.array([_share([scoring.vote(t.verdict) is None for t in texts]) for texts in votes], dtype=float),
        **{OF + name: subtask == code for code, name in enumerate(names)},
    }


def _said(answers: Sequence[Sequence[Sampled]]) -> dict[str, np.ndarray]:
    """`said_0`, `said_1` and `said_2`: shares of the answers that say no, yes, and neither."""
    votes = [[scoring.vote(t.verdict) for t in texts] for texts in answers]
    return {f"said_{i}": np.array([_share([v == said for v in row]) for row in votes], dtype=float) for i, said in enumerate((0, 1, None))}


def of_probability(probability: np.ndarray, positive: np.ndarray, subtask: np.ndarray) -> dict[str, np.ndarray]:
    """The columns that follow from a probability for each row."""
    return {
        "probability": probability,
        "rank": ranking.dense_ranks(probability, subtask),
        "bin": calibration.bins(probability),
        "squared": (probability - positive) ** 2,
    }


def metrics(columns: Mapping[str, np.ndarray], weights: np.ndarray) -> dict[str, float]:
    """Macro averages under their names, then `<metric>/<subtask>`; row i counts `weights[i]` times. NaN where undefined."""
    names = [name.removeprefix(OF) for name in columns if name.startswith(OF)]
    by_subtask = _by_subtask(columns, weights, len(names))
    macro = {metric: classification.over_classes(values) for metric, values in by_subtask.items()}
    macro["unreadable_votes"] = classification.mean(columns["unreadable"], weights)
    return macro | {f"{metric}/{name}": float(values[code]) for code, name in enumerate(names) for metric, values in by_subtask.items()}


def _by_subtask(columns: Mapping[str, np.ndarray], weights: np.ndarray, size: int) -> dict[str, np.ndarray]:
    """Metric -> its value for each subtask (length S)."""
    subtask, positive, probability = columns["subtask"], columns["positive"], columns["probability"]
    table = ranking.histogram(columns["rank"], positive, subtask, weights, size)
    curve = calibration.curve(columns["bin"], probability, positive, subtask, weights, size)
    return {
        "auroc": ranking.auroc(table),
        "auprc": ranking.average_precision(table),
        "prevalence": ranking.prevalence(table),
        "balanced_accuracy": _balanced_accuracy(subtask * 2 + positive, columns["right"], weights, size),
        "brier": calibration.brier(columns["squared"], subtask, weights, size),
        "ece": calibration.expected_error(curve),
    }


def _balanced_accuracy(cell: np.ndarray, right: np.ndarray, weights: np.ndarray, size: int) -> np.ndarray:
    """Mean recall over the two classes of each subtask; NaN where it has one class only, or a row without an answer."""
    rows = np.bincount(cell, weights=weights, minlength=2 * size)
    found: np.ndarray = classification.ratio(np.bincount(cell, weights=weights * right, minlength=2 * size), rows).reshape(size, 2).mean(axis=1)
    return found


def _probability(votes: Sequence[Sampled]) -> float:
    read = [v for v in (scoring.vote(text.verdict) for text in votes) if v is not None]
    return sum(read) / len(read) if read else UNKNOWN


def _share(flags: Sequence[bool]) -> float:
    return sum(flags) / len(flags) if flags else float("nan")
