"""Clinical quantities out of `Relevant Entities`, in one unit each.

The entities are a Python literal such as `{'age': [87, 'years'], 'creatinine': [1.4, 'mg/dL'], 'Stroke': True}`; keys and units drift
between releases. A value that is impossible in its unit (sodium 137 mg/dL, creatinine 200 mmol/L) is an extraction slip: it is read in
the one unit of its kind in which a living patient can have it, and in none where two fit.
"""

import ast
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

ENTITIES_LIMIT = 20_000  # characters; the longest published is 1,900


class NotComputable(Exception):
    """An entity is missing or means nothing. Internal to recomputation: the row then keeps its published answer."""


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of quantity: what a living patient can have (canonical unit), and the factor from each unit to the canonical one."""

    low: float
    high: float
    units: Mapping[str, float]


# Molar masses (g/mol): creatinine 113.12, calcium 40.08, glucose 180.16, urea nitrogen 28.01, cholesterol 386.65, triolein 885.43, bilirubin 584.66.
KINDS = {
    "years": Kind(0, 125, {"years": 1, "months": 1 / 12, "weeks": 7 / 365.25, "days": 1 / 365.25}),
    "kg": Kind(0.3, 400, {"kg": 1, "g": 1e-3, "lbs": 0.45359237, "lb": 0.45359237}),
    "cm": Kind(20, 260, {"cm": 1, "m": 100, "in": 2.54, "ft": 30.48}),
    "mmHg": Kind(10, 350, {"mm hg": 1, "mmhg": 1}),
    "beats": Kind(15, 350, {"beats per minute": 1, "bpm": 1}),
    "msec": Kind(100, 900, {"msec": 1, "ms": 1}),
    "creatinine": Kind(0.1, 40, {"mg/dl": 1, "µmol/l": 0.011312, "mmol/l": 11.312}),
    "urine creatinine": Kind(1, 900, {"mg/dl": 1, "mmol/l": 11.312}),
    "sodium": Kind(80, 220, {"meq/l": 1, "mmol/l": 1}),
    "urine sodium": Kind(0, 400, {"meq/l": 1, "mmol/l": 1}),
    "chloride": Kind(50, 180, {"meq/l": 1, "mmol/l": 1}),
    "bicarbonate": Kind(1, 60, {"meq/l": 1, "mmol/l": 1}),
    "albumin": Kind(1, 7, {"g/dl": 1, "g/l": 0.1}),
    "calcium": Kind(3, 25, {"mg/dl": 1, "mmol/l": 4.008, "meq/l": 2.004}),
    "glucose": Kind(10, 2000, {"mg/dl": 1, "mmol/l": 18.016}),
    "urea": Kind(1, 300, {"mg/dl": 1, "mmol/l": 2.801}),
    "cholesterol": Kind(5, 1500, {"mg/dl": 1, "mmol/l": 38.665}),
    "triglycerides": Kind(5, 12000, {"mg/dl": 1, "mmol/l": 88.543}),
    "bilirubin": Kind(0.05, 80, {"mg/dl": 1, "µmol/l": 0.058466}),
    "platelets": Kind(1, 5000, {"µl": 1e-3, "l": 1e-9}),  # 10^9 per litre
    "white cells": Kind(0.05, 800, {"µl": 1e-3, "mm^3": 1e-3, "l": 1e-9}),  # 10^9 per litre
    "hemoglobin": Kind(1, 25, {"g/dl": 1, "g/l": 0.1}),
    "breaths": Kind(3, 120, {"breaths per minute": 1}),
    "percent": Kind(20, 100, {"%": 1}),
    "insulin": Kind(0.1, 1000, {"µiu/ml": 1}),
    "enzyme": Kind(0.1, 50_000, {"u/l": 1}),
    "bmi": Kind(5, 120, {"kg/m^2": 1}),
    "dose": Kind(0, 10_000, {"mg": 1, "µg": 1}),  # each drug's factor is per its own unit
    "times": Kind(0, 100, {"per day": 1}),
}


class Entities:
    """The entities of one row; names are found whatever their case."""

    def __init__(self, text: str) -> None:
        """Raises NotComputable where the text is not a Python literal of a dictionary."""
        try:
            found = ast.literal_eval(text) if len(text) <= ENTITIES_LIMIT else None
        except (ValueError, SyntaxError, MemoryError, RecursionError, TypeError):
            found = None
        if not isinstance(found, dict):
            raise NotComputable("entities")
        self._values: dict[str, Any] = {str(k).strip().lower(): v for k, v in found.items()}

    def get(self, name: str) -> Any:
        """An entity as it is. Raises NotComputable where it is missing."""
        try:
            return self._values[name.lower()]
        except KeyError:
            raise NotComputable(name) from None

    def has(self, name: str) -> bool:
        return name.lower() in self._values

    def flag(self, name: str) -> bool:
        """A finding; not mentioned counts as absent, as in the benchmark."""
        return self._values.get(name.lower()) is True

    def any(self, *names: str) -> bool:
        """Whether one of these findings is present."""
        return any(self.flag(name) for name in names)

    def count(self, *names: str) -> int:
        """How many of these findings are present."""
        return sum(self.flag(name) for name in names)

    def choice(self, name: str, points: Mapping[str, int], missing: int | None = None) -> int:
        """The points of a graded finding; `missing` for one that is not mentioned. Raises NotComputable for another grade."""
        if missing is not None and not self.has(name):
            return missing
        grade = str(self.get(name)).strip().lower()
        if grade not in points:
            raise NotComputable(name)
        return points[grade]

    def female(self) -> bool:
        sex = self.get("sex")
        if sex not in ("Male", "Female"):
            raise NotComputable("sex")
        return bool(sex == "Female")

    def number(self, name: str) -> float:
        """A value without a unit."""
        value = self.get(name)
        return _finite(value[0] if isinstance(value, list) and value else value)

    def unit(self, name: str) -> str:
        """The unit of a value, in lower case. Raises NotComputable."""
        value = self.get(name)
        if not (isinstance(value, list) and len(value) == 2):
            raise NotComputable(name)
        return str(value[1]).strip().lower()

    def amount(self, name: str, kind: str) -> float:
        """A value with a unit, in the canonical unit of its kind. Raises NotComputable."""
        number, known = self.number(name), KINDS[kind]
        factor = known.units.get(self.unit(name).replace("μ", "µ"))
        if factor is not None and known.low <= number * factor <= known.high:
            return number * factor
        possible = {number * f for f in known.units.values() if known.low <= number * f <= known.high}
        if len(possible) != 1:
            raise NotComputable(name)
        return possible.pop()

    def items(self) -> Mapping[str, Any]:
        return self._values


def _finite(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or abs(value) > 1e15 or value != value:
        raise NotComputable("number")
    return float(value)
