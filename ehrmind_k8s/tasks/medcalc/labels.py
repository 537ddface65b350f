"""Which answer is the truth: `original` (the published one), `recomputed` (own formulas) or `corrected-887` (the physician-led relabelling).

v1.0's labels are noisy: 42 of 639 recomputable test rows disagree with their own entities, 6 of 20 Glasgow Coma Scores exceed 15, and the
relabelling (arXiv 2512.19691) puts 299 of 887 answers outside the published limits. The benchmark is never changed in silence: the
published answers are the default, every row says whose answer it carries, and the audit counts the changes.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ehrmind_k8s.errors import DataError
from ehrmind_k8s.records import Split
from ehrmind_k8s.tasks import answer
from ehrmind_k8s.tasks.medcalc import scoring
from ehrmind_k8s.tasks.medcalc.layouts import Row

LABEL_SETS = ("original", "corrected-887")
TOLERANCE = 0.05  # of the truth, for decimals: the benchmark's own (arXiv 2406.12036, section 3)
# Their v1.0 train rows have limits equal to the answer, their test rows 5 %: the reward would be stricter than the metric.
EXACT_IN_TRAIN = (8, 24, 49)


@dataclass(frozen=True, slots=True)
class Label:
    """The truth of one row. `source` is the label set the answer comes from, `widened` says that its exact limits became 5 %."""

    target: Mapping[str, Any]
    source: str
    widened: bool = False


def original(row: Row, split: Split, abstain: bool) -> Label:
    """The row's own answer and limits. Raises DataError where they are not of the calculator's type or the limits are swapped."""
    target = {"calculator": row.calculator.id, "scoring": row.scoring, "answer": row.answer, "lower": row.lower, "upper": row.upper}
    target["abstain"] = abstain
    gold = scoring.read(row.answer, target)
    if gold is None:
        raise DataError(f"{row.where}: Ground Truth Answer is not of type {row.scoring}, as calculator {row.calculator.id} wants")
    source = "corrected-887" if row.relabelled else "original"
    if row.scoring != "decimal" or gold == scoring.ABSTAIN:
        return Label(target | {"answer": gold, "lower": gold, "upper": gold}, source)
    lower, upper = answer.number(row.lower), answer.number(row.upper)
    if lower is None or upper is None:
        raise DataError(f"{row.where}: {'Lower' if lower is None else 'Upper'} Limit is not a number")
    if lower > upper:
        raise DataError(f"{row.where}: Lower Limit is above Upper Limit, so no answer could be right; swap them")
    if split != "test" and row.calculator.id in EXACT_IN_TRAIN and lower == upper != 0:
        return Label(target | limits(float(gold)), source, widened=True)
    return Label(target, source)


def limits(value: float) -> dict[str, str]:
    """Limits of a decimal, in order for negative values too."""
    low, high = sorted((value * (1 - TOLERANCE), value * (1 + TOLERANCE)))
    return {"lower": repr(low), "upper": repr(high)}
