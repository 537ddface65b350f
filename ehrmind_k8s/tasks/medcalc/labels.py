"""Which answer is the truth.

    original        the published answer (the default)
    recomputed      own formulas where they can be computed and differ from the published answer; the published answer elsewhere
    corrected-887   test: the physician-led relabelling of 887 v1.0 rows (arXiv 2512.19691), `N/A` included; train: the published answers

v1.0's labels are noisy: 108 of 917 recomputable test answers contradict their own entities (15 of 20 due dates move the wrong way with the
cycle, 6 of 20 Glasgow Coma Scores exceed 15), and the relabelling puts 299 of 887 answers outside the published limits. The benchmark is
never changed in silence: every row says whose answer it carries and what recomputation says about the published one, and the audit counts both.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ehrmind_k8s.errors import DataError
from ehrmind_k8s.records import Split
from ehrmind_k8s.tasks import answer
from ehrmind_k8s.tasks.medcalc import recompute, scoring
from ehrmind_k8s.tasks.medcalc.layouts import Row

ORIGINAL, RECOMPUTED, CORRECTED = "original", "recomputed", "corrected-887"
LABEL_SETS = (ORIGINAL, RECOMPUTED, CORRECTED)
TOLERANCE = 0.05  # of the truth, for decimals: the benchmark's own (arXiv 2406.12036, section 3)
ROUNDING = 1e-3  # v1.0 publishes 3 decimals
# Their v1.0 train rows have limits equal to the answer, their test rows 5 %: the reward would be stricter than the metric.
EXACT_IN_TRAIN = (8, 24, 49)
# What a score can be at all.
RANGES: Mapping[int, tuple[float, float]] = {
    **{4: (0, 9), 8: (0, 12.5), 15: (5, 15), 16: (-2, 9), 17: (0, 6), 18: (0, 10), 20: (-1, 5), 21: (3, 15), 25: (0, 9)},
    **{27: (0, 23), 28: (0, 71), 32: (0, 37), 33: (0, 5), 43: (0, 24), 45: (0, 5), 48: (0, 8), 51: (0, 4)},
}


@dataclass(frozen=True, slots=True)
class Label:
    """The truth of one row.

    `source` is whose answer it is. `check` is what recomputation says about the published one: `agrees`, `disagrees` or `not_computable`.
    `widened`: exact limits of a train row became 5 %. `impossible`: the published answer is outside the score's range.
    """

    target: Mapping[str, Any]
    source: str
    check: str = "not_computable"
    widened: bool = False
    impossible: bool = False


def label(row: Row, split: Split, label_set: str, corrections: Mapping[int, Row]) -> Label | None:
    """The truth of `row` in `label_set`; None for a test row that the relabelling does not cover. Raises DataError naming row and column."""
    if row.relabelled and label_set != CORRECTED:
        raise DataError(f"{row.where}: this file holds relabelled answers, but data.labels is {label_set!r}; set data.labels to {CORRECTED!r}")
    target, widened = _published(row, split, label_set == CORRECTED)
    value = recompute.recompute(row.calculator.id, row.entities) if row.entities else None
    check = "not_computable" if value is None else "agrees" if _agrees(value, target) else "disagrees"
    source = CORRECTED if row.relabelled else ORIGINAL
    if label_set == RECOMPUTED and check == "disagrees" and value is not None:
        target, source, widened = _with_answer(target, value), RECOMPUTED, False
    elif label_set == CORRECTED and split == "test" and not row.relabelled:
        if row.number not in corrections:
            return None
        target, source = _corrected(row, corrections[row.number]), CORRECTED
    return Label(target, source, check, widened, _is_impossible(row))


def _published(row: Row, split: Split, abstain: bool) -> tuple[dict[str, Any], bool]:
    """The target of the row's own answer and limits, and whether its limits were widened."""
    target: dict[str, Any] = {"calculator": row.calculator.id, "scoring": row.scoring, "answer": row.answer, "abstain": abstain}
    gold = scoring.read(row.answer, target)
    if gold is None:
        raise DataError(f"{row.where}: Ground Truth Answer is not of type {row.scoring}, as calculator {row.calculator.id} wants")
    if row.scoring != "decimal" or gold == scoring.ABSTAIN:
        return target | {"answer": gold, "lower": gold, "upper": gold}, False
    lower, upper = answer.number(row.lower), answer.number(row.upper)
    if lower is None or upper is None:
        raise DataError(f"{row.where}: {'Lower' if lower is None else 'Upper'} Limit is not a number")
    if lower > upper:
        raise DataError(f"{row.where}: Lower Limit is above Upper Limit, so no answer could be right; swap them")
    if split != "test" and row.calculator.id in EXACT_IN_TRAIN and lower == upper != 0:
        return _with_answer(target, answer.plain(row.answer)), True
    return target | {name: answer.plain(text) for name, text in (("answer", row.answer), ("lower", row.lower), ("upper", row.upper))}, False


def _corrected(row: Row, correction: Row) -> dict[str, Any]:
    """The target of the relabelled answer of a v1.0 row. Gestational age was relabelled in days, v1.0 asks for weeks and days."""
    if correction.calculator != row.calculator or correction.note.split() != row.note.split():
        raise DataError(f"{row.where} and {correction.where} are not about the same note; the relabelling belongs to the v1.0 test file")
    target, _ = _published(correction, "test", abstain=True)
    if correction.scoring != row.scoring and target["answer"] != scoring.ABSTAIN:
        pair = scoring.weeks_days(int(target["answer"]))
        target |= {"answer": pair, "lower": pair, "upper": pair}
    return target | {"scoring": row.scoring}


def _with_answer(target: Mapping[str, Any], value: str) -> dict[str, Any]:
    """The target with another answer, and for a decimal the limits around it, in order for negative values too."""
    lower = upper = value
    if target["scoring"] == "decimal":
        lower, upper = map(repr, sorted((float(value) * (1 - TOLERANCE), float(value) * (1 + TOLERANCE))))
    return {**target, "answer": value, "lower": lower, "upper": upper}


def _agrees(value: str, target: Mapping[str, Any]) -> bool:
    if target["scoring"] != "decimal":
        return bool(value == target["answer"])
    published = float(target["answer"])
    return abs(float(value) - published) <= max(TOLERANCE * abs(published), ROUNDING)


def _is_impossible(row: Row) -> bool:
    value = answer.number(row.answer)
    low, high = RANGES.get(row.calculator.id, (float("-inf"), float("inf")))
    return value is not None and not low <= value <= high
