"""Right or wrong, for all 55 calculators: one parser and one judge, which evaluation, RLVR and the reader's own checks share.

A target is `{"calculator", "scoring", "answer", "lower", "upper", "abstain"}`: calculator id, scoring class, canonical gold answer,
limits as text (decimals only, both included), and whether the label set knows `N/A` ("the note does not hold what is needed").

    decimal     a number within the row's limits; gold 0 has limits 0 to 0, so only 0 is right
    integer     a number, rounded half to even, equal to the gold
    date        M/D/YYYY, padded or not, the same day
    weeks_days  two integers, equal as a pair: `(14 weeks, 1 day)`, `14 weeks, 1 day`, `14 weeks and 1 day`, `14, 1`, `[14, 1]`
"""

import datetime
import re
from collections.abc import Mapping
from typing import Any

from ehrmind_k8s.records import Verdict
from ehrmind_k8s.tasks import answer

KEYS = ("answer",)
ABSTAIN = "N/A"

_DATE = re.compile(r"([0-9]{1,2})/([0-9]{1,2})/([0-9]{4})")
# Applied to text whose white space is single blanks, so nothing here can match in many ways.
_PAIR = re.compile(r"""(?P<a>['"]?)(?P<weeks>[0-9]{1,9})(?: ?weeks?)?(?P=a)(?: ?, ?| and | )(?P<b>['"]?)(?P<days>[0-9]{1,9})(?: ?days?)?(?P=b)""")
_LOOSE_DATE = re.compile(rf"(?<![0-9/]){_DATE.pattern}(?![0-9/])")
# A digit behind a letter, `/` or `^` belongs to a unit or a name (1.73 m^2, CHA2DS2); a sign behind a digit is a range (7-8).
_LOOSE_NUMBER = re.compile(r"(?<![\w.^/])[-+\u2212]?(?:[0-9]++(?:,[0-9]{3}(?![0-9]))*+(?:\.[0-9]++)?|\.[0-9]++)(?:[eE][-+\u2212]?[0-9]++)?")
_LOOSE_INTEGER = re.compile(r"(?<![0-9.])[0-9]{1,9}(?![0-9]|\.[0-9])")


def score(target: Mapping[str, Any], text: str) -> Verdict:
    """Judge a whole completion. Total: any text gives a Verdict, in time linear in its length."""
    found = answer.parse(text, KEYS)
    if found is None:
        return Verdict(False, None, "malformed")
    parsed = read(found["answer"], target)
    if parsed is None:
        return Verdict(False, None, "unparseable")
    return Verdict(is_correct(parsed, target), parsed, "scored")


def read(value: Any, target: Mapping[str, Any]) -> str | None:
    """The canonical text of an answer's value, or None where it is not of the answer's type."""
    if target["abstain"] and isinstance(value, str) and value.strip() == ABSTAIN:
        return ABSTAIN
    match target["scoring"]:
        case "date":
            return _date(value)
        case "weeks_days":
            return _weeks_days(value)
    number = answer.number(value)
    if number is None:
        return None
    return answer.canonical(number if target["scoring"] == "decimal" else float(round(number)))


def is_correct(parsed: str, target: Mapping[str, Any]) -> bool:
    """Whether a canonical value is the gold one, or lies within its limits."""
    if target["scoring"] == "decimal" and ABSTAIN not in (parsed, target["answer"]):
        return bool(float(target["lower"]) <= float(parsed) <= float(target["upper"]))
    return bool(parsed == target["answer"])


def is_gold(target: Mapping[str, Any]) -> bool:
    """Whether the target's own answer is right: not so for a published answer outside its published limits."""
    parsed = read(target["answer"], target)
    return parsed is not None and is_correct(parsed, target)


def is_correct_in_any_format(target: Mapping[str, Any], text: str) -> bool:
    """Whether the last value of the right type is right: in the answer block, or in the whole text where there is none.

    Words and units are ignored. Reported beside accuracy, never trained on: it tells a gain in reasoning from a gain in format.
    """
    block = answer.loose_block(text)
    if target["abstain"] and ABSTAIN in block:
        block = block.rpartition(ABSTAIN)[2]
        if _last(block, target["scoring"]) is None:
            return is_correct(ABSTAIN, target)
    found = _last(block, target["scoring"])
    parsed = None if found is None else read(found, target)
    return parsed is not None and is_correct(parsed, target)


def _date(value: Any) -> str | None:
    match = _DATE.fullmatch(value.strip()) if isinstance(value, str) else None
    if match is None:
        return None
    month, day, year = map(int, match.groups())
    try:
        datetime.date(year, month, day)
    except ValueError:
        return None
    return f"{month:02}/{day:02}/{year:04}"


def _weeks_days(value: Any) -> str | None:
    if isinstance(value, list) and len(value) == 2 and all(isinstance(part, str) for part in value):
        value = ", ".join(value)
    if not isinstance(value, str):
        return None
    text = " ".join(value.lower().split())
    if text[:1] + text[-1:] in ("()", "[]"):
        text = text[1:-1].strip()
    match = _PAIR.fullmatch(text)
    return f"{int(match['weeks'])} weeks, {int(match['days'])} days" if match else None


def weeks_days(days: int) -> str:
    """The canonical text of a gestational age (days)."""
    return "{} weeks, {} days".format(*divmod(days, 7))


def _last(text: str, scoring: str) -> str | None:
    """The last date, pair or number in a text, as text that `read` takes."""
    if scoring == "weeks_days":
        pair = _LOOSE_INTEGER.findall(text)[-2:]
        return ", ".join(pair) if len(pair) == 2 else None
    pattern = _LOOSE_DATE if scoring == "date" else _LOOSE_NUMBER
    found = [match.group() for match in pattern.finditer(text)]
    return found[-1].replace(",", "") if found else None
