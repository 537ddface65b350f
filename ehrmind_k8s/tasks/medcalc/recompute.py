"""A second opinion on published answers: the answer that own formulas give for a row's entities, for 49 of the 55 calculators.

It checks every row, and makes the label set `recomputed`.
"""

from ehrmind_k8s.tasks import answer
from ehrmind_k8s.tasks.medcalc import formulas, point_scores
from ehrmind_k8s.tasks.medcalc.quantities import Entities, NotComputable

FORMULAS = {**formulas.FORMULAS, **point_scores.FORMULAS}


def recompute(calculator: int, entities: str) -> str | None:
    """The answer as text (3 decimals, as v1.0 writes them), or None where it cannot be computed from the entities."""
    formula = FORMULAS.get(calculator)
    if formula is None:
        return None
    try:
        value = formula(Entities(entities))
    except (NotComputable, ZeroDivisionError, OverflowError):
        return None
    return value if isinstance(value, str) else answer.canonical(round(float(value), 3))
