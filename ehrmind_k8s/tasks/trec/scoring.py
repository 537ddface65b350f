"""The scorer: name and number must both be there, agree, and be the judged grade."""

from collections.abc import Mapping
from typing import Any

from ehrmind_k8s.records import Verdict
from ehrmind_k8s.tasks import answer
from ehrmind_k8s.tasks.trec.qrels import GRADES

KEYS = ("prediction", "idx")
NUMBERS: Mapping[str, int] = {name.casefold(): grade for grade, name in enumerate(GRADES)}
DISAGREES = "disagrees"  # what is parsed of an answer whose name and number are two grades


def score(target: Mapping[str, Any], text: str) -> Verdict:
    """Judge a whole completion against `target["grade"]`. `parsed` is the grade's number as text, or DISAGREES."""
    found = answer.parse(text, KEYS)
    if found is None:
        return Verdict(False, None, "malformed")
    number, named = answer.number(found["idx"]), _named(found["prediction"])
    if number is None or number not in (0, 1, 2) or named is None:
        return Verdict(False, None, "unparseable")
    if named != number:
        return Verdict(False, DISAGREES, "scored")
    return Verdict(named == target["grade"], str(named), "scored")


def _named(value: Any) -> int | None:
    """The grade of a name, whatever its case and white space."""
    return NUMBERS.get(" ".join(value.split()).casefold()) if isinstance(value, str) else None
