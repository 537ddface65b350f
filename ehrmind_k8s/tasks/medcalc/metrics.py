"""Accuracy and what lies behind it. An example's value is the mean over its samples, so one greedy text and k samples read alike.

`accuracy` is the mean over rows (the benchmark's), `accuracy_macro` the mean over calculators, since v1.0 has 2 rows for one and 20 for
another. `malformed`, `unparseable` and `wrong` are shares of texts and add up to 1 with `accuracy`. `accuracy_any_format` ignores the form.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from ehrmind_k8s.records import Example
from ehrmind_k8s.statistics import classification
from ehrmind_k8s.tasks.base import Sampled
from ehrmind_k8s.tasks.medcalc import scoring

SHARES = ("correct", "malformed", "unparseable", "wrong", "any_format")


def columns(examples: Sequence[Example], answers: Sequence[Sequence[Sampled]]) -> dict[str, np.ndarray]:
    """SHARES, each in [0, 1] and NaN where an example has no sample, and `calculator` (its id); all of length N."""
    rows = [_shares(example, texts) for example, texts in zip(examples, answers, strict=True)]
    table = np.array(rows, dtype=float).reshape(len(rows), len(SHARES))
    return {name: table[:, i] for i, name in enumerate(SHARES)} | {"calculator": np.array([e.target["calculator"] for e in examples], dtype=int)}


def metrics(columns: Mapping[str, np.ndarray], weights: np.ndarray) -> dict[str, float]:
    """Point estimates, row i counted `weights[i]` times; NaN over no rows."""
    mean = {name: classification.mean(columns[name], weights) for name in SHARES}
    return {
        "accuracy": mean["correct"],
        "accuracy_macro": classification.macro_mean(columns["correct"], columns["calculator"], weights),
        "accuracy_any_format": mean["any_format"],
        **{name: mean[name] for name in ("malformed", "unparseable", "wrong")},
    }


def _shares(example: Example, texts: Sequence[Sampled]) -> list[float]:
    if not texts:
        return [float("nan")] * len(SHARES)
    verdicts = [t.verdict for t in texts]
    sums = (
        sum(v.correct for v in verdicts),
        sum(v.outcome == "malformed" for v in verdicts),
        sum(v.outcome == "unparseable" for v in verdicts),
        sum(v.outcome == "scored" and not v.correct for v in verdicts),
        sum(t.verdict.correct or scoring.is_correct_in_any_format(example.target, t.text) for t in texts),
    )
    return [s / len(texts) for s in sums]
