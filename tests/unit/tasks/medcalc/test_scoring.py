"""The judge of all 55 calculators, trap by trap (value grammar and structure are in tests/unit/tasks/test_answer.py)."""

import datetime
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ehrmind_k8s.records import Verdict
from ehrmind_k8s.tasks.medcalc import scoring


def target(kind: str, gold: str, lower: str = "", upper: str = "", abstain: bool = False) -> dict[str, Any]:
    return {"calculator": 2, "scoring": kind, "answer": gold, "lower": lower or gold, "upper": upper or gold, "abstain": abstain}


def say(value: Any) -> str:
    return f'<think>x</think>\n<answer>{{"answer": {json.dumps(value)}}}</answer>'


DECIMAL = target("decimal", "25.238", "23.9761", "26.4999")
ZERO = target("decimal", "0", "0", "0")
NEGATIVE = target("decimal", "-3.2", "-3.36", "-3.04")
INTEGER = target("integer", "4")
DATE = target("date", "09/23/2014")
WEEKS = target("weeks_days", "27 weeks, 3 days")
UNKNOWABLE = target("integer", scoring.ABSTAIN, abstain=True)

RIGHT = {
    "the gold itself": (DECIMAL, "25.238"),
    "a JSON number": (DECIMAL, 25.238),
    "the lower limit": (DECIMAL, "23.9761"),
    "the upper limit": (DECIMAL, "26.4999"),
    "zero for gold zero": (ZERO, "0"),
    "minus zero for gold zero": (ZERO, "-0.0"),
    "a negative within ordered limits": (NEGATIVE, "-3.36"),
    "a minus sign": (NEGATIVE, "\u22123.2"),
    "an integer": (INTEGER, "4"),
    "an integer as a JSON number": (INTEGER, 4),
    "an integer with a leading zero": (INTEGER, "04"),
    "a decimal that rounds to the integer": (INTEGER, "4.4"),
    "three and a half, half to even": (INTEGER, "3.5"),
    "four and a half, half to even": (INTEGER, "4.5"),
    "a padded date": (DATE, "09/23/2014"),
    "an unpadded date": (DATE, "9/23/2014"),
    "a date with white space around": (DATE, " 09/23/2014 "),
    "weeks and days as the gold is published": (WEEKS, "('27 weeks', '3 days')"),
    "weeks and days as the question shows them": (WEEKS, "(27 weeks, 3 days)"),
    "weeks and days in words": (WEEKS, "27 weeks and 3 days"),
    "weeks and days with a comma": (WEEKS, "27 weeks, 3 days"),
    "a pair in parentheses": (WEEKS, "(27, 3)"),
    "a pair in brackets": (WEEKS, "[27, 3]"),
    "a pair with a blank": (WEEKS, "27 3"),
    "a list of numbers": (WEEKS, [27, 3]),
    "a list of texts": (WEEKS, ["27 weeks", "3 days"]),
    "a pair with a leading zero": (WEEKS, "(027, 3)"),
    "N/A where the note does not tell": (UNKNOWABLE, "N/A"),
}
WRONG = {
    "below the lower limit": (DECIMAL, "23.976"),
    "above the upper limit": (DECIMAL, "26.5"),
    "nearly zero for gold zero": (ZERO, "0.01"),
    "the other sign": (NEGATIVE, "3.2"),
    "two and a half, half to even": (INTEGER, "2.5"),
    "five and a half": (INTEGER, "5.5"),
    "another day": (DATE, "09/24/2014"),
    "another pair": (WEEKS, "(3, 27)"),
    "days that make up a week": (WEEKS, "26 weeks, 10 days"),
    "a number where the note does not tell": (UNKNOWABLE, "4"),
    "N/A where the note tells": (target("integer", "4", abstain=True), "N/A"),
}
UNPARSEABLE = {
    "a unit": (DECIMAL, "25.24 mL/min"),
    "a percent sign": (DECIMAL, "25%"),
    "arithmetic": (DECIMAL, "50/2"),
    "a decimal comma": (DECIMAL, "25,2"),
    "a bool": (INTEGER, True),
    "null": (DECIMAL, None),
    "a list for a number": (DECIMAL, ["25.238"]),
    "an object": (DECIMAL, {"value": 25}),
    "empty text": (DECIMAL, ""),
    "NaN as text": (DECIMAL, "NaN"),
    "infinity as text": (DECIMAL, "inf"),
    "the name of the gold": (DECIMAL, "ground_truth"),
    "code": (DECIMAL, '__import__("os")._exit(7)'),
    "a word": (INTEGER, "four"),
    "points": (INTEGER, "4 points"),
    "an ISO date": (DATE, "2014-09-23"),
    "a day-first date that is no date": (DATE, "23/09/2014"),
    "a two-digit year": (DATE, "09/23/14"),
    "a day that does not exist": (DATE, "02/30/2014"),
    "year zero": (DATE, "01/01/0000"),
    "a date in words": (DATE, "September 23, 2014"),
    "a number for a date": (DATE, 9232014),
    "digits run together": (WEEKS, "273"),
    "abbreviated weeks": (WEEKS, "27w3d"),
    "a decimal for weeks and days": (WEEKS, "27.3"),
    "days only": (WEEKS, "192 days"),
    "a list of three": (WEEKS, [27, 3, 0]),
    "unbalanced parentheses": (WEEKS, "(27, 3"),
    "an opening parenthesis that closes nowhere": (WEEKS, "(27, 30"),
    "negative weeks": (WEEKS, "(-27, 3)"),
    "N/A where the label set does not have it": (INTEGER, "N/A"),
    "N/A in other words": (UNKNOWABLE, "unknown"),
}


def cases(table: dict[str, tuple[dict[str, Any], Any]]) -> Any:
    return pytest.mark.parametrize(("goal", "value"), table.values(), ids=table)


@cases(RIGHT)
def test_right(goal: dict[str, Any], value: Any) -> None:
    verdict = scoring.score(goal, say(value))
    assert (verdict.correct, verdict.outcome) == (True, "scored")


@cases(WRONG)
def test_wrong(goal: dict[str, Any], value: Any) -> None:
    verdict = scoring.score(goal, say(value))
    assert (verdict.correct, verdict.outcome) == (False, "scored") and verdict.parsed


@cases(UNPARSEABLE)
def test_unparseable(goal: dict[str, Any], value: Any) -> None:
    assert scoring.score(goal, say(value)) == Verdict(False, None, "unparseable")


def test_a_broken_structure_is_malformed_whatever_the_value() -> None:
    assert scoring.score(DECIMAL, say("25.238") + say("25.238")) == Verdict(False, None, "malformed")


def test_equal_answers_have_one_canonical_text() -> None:
    parsed = {scoring.score(DECIMAL, say(v)).parsed for v in ("25", "25.0", "2.5e1", 25, "025", "+25.")}
    assert parsed == {"25"}
    assert scoring.score(DATE, say("9/3/2014")).parsed == "09/03/2014"
    assert scoring.score(WEEKS, say([27, 3])).parsed == "27 weeks, 3 days"


def test_scoring_runs_no_code(tmp_path: Any) -> None:
    mark = tmp_path / "mark"
    assert not scoring.score(DECIMAL, say(f'open({str(mark)!r}, "w").write("x") or 25.238')).correct
    assert not mark.exists()


ANYTHING = st.text() | st.floats() | st.integers() | st.booleans() | st.none() | st.lists(st.text() | st.integers(), max_size=3)


@given(ANYTHING, st.sampled_from([DECIMAL, ZERO, INTEGER, DATE, WEEKS, UNKNOWABLE]))
def test_any_value_gets_a_verdict(value: Any, goal: dict[str, Any]) -> None:
    verdict = scoring.score(goal, say(value))
    assert verdict.correct <= (verdict.outcome == "scored") == (verdict.parsed is not None)
    scoring.is_correct_in_any_format(goal, say(value))


@given(st.text())
def test_any_text_gets_a_verdict(text: str) -> None:
    assert scoring.score(DECIMAL, text).outcome in ("malformed", "unparseable", "scored")
    scoring.is_correct_in_any_format(WEEKS, text)


@given(st.decimals(-(10**6), 10**6, places=3))
def test_a_decimal_gold_is_right_in_every_spelling(gold: Any) -> None:
    low, high = sorted((gold * 95 / 100, gold * 105 / 100))
    goal = target("decimal", str(gold), str(low), str(high))
    for value in (str(gold), f"{gold:,}", f"{gold:+}", f"{gold:.6e}", float(gold)):
        assert scoring.score(goal, say(value)).correct, value


@given(st.integers(-50, 10**6))
def test_an_integer_gold_is_right_in_every_spelling(gold: int) -> None:
    for value in (gold, str(gold), f"{gold:,}", f"{gold}.0", f"{gold + 0.3:.1f}"):
        assert scoring.score(target("integer", str(gold)), say(value)).correct, value


@given(st.dates(datetime.date(1000, 1, 1)))
def test_a_date_gold_is_right_padded_or_not(day: datetime.date) -> None:
    goal = target("date", f"{day:%m/%d/%Y}")
    for value in (f"{day:%m/%d/%Y}", f"{day.month}/{day.day}/{day.year}", f"{day.month}/{day:%d}/{day.year}"):
        assert scoring.score(goal, say(value)).correct, value


@given(st.integers(0, 60), st.integers(0, 6))
def test_a_gestational_age_is_right_in_every_spelling(weeks: int, days: int) -> None:
    goal = target("weeks_days", scoring.weeks_days(7 * weeks + days))
    for value in (
        f"('{weeks} weeks', '{days} days')",
        f"({weeks} week, {days} day)",
        f"{weeks} Weeks {days} Days",
        [str(weeks), days],
        f"{weeks},{days}",
    ):
        assert scoring.score(goal, say(value)).correct, value


ANY_FORMAT = {
    "a unit": (DECIMAL, '<answer>{"answer": "25.2 mL/min/1.73 m^2"}</answer>', True),
    "no tags, last number": (DECIMAL, "140 - 87 gives 53, so the clearance is about 25.2 mL/min.", True),
    "no tags, wrong last number": (DECIMAL, "It is 25.2, or 27 after rounding", False),
    "a percent sign": (target("decimal", "0.5", "0.475", "0.525"), "FENa = 0.5%", True),
    "an answer block that was cut off": (DECIMAL, "<think>99</think><answer>25.2", True),
    "a range is not a negative number": (target("integer", "-4"), "between 3-4", False),
    "a number in a name does not count": (INTEGER, "The score is 4 (CHA2DS2-VASc)", True),
    "a date in a sentence": (DATE, "The due date is 9/23/2014.", True),
    "weeks and days in a sentence": (WEEKS, "<answer>27 weeks and 3 days</answer>", True),
    "one number where a pair is asked": (WEEKS, "<answer>192</answer>", False),
    "nothing": (DECIMAL, "", False),
    "N/A in a sentence": (UNKNOWABLE, "<answer>N/A, no age given</answer>", True),
    "a number, then N/A": (UNKNOWABLE, "4? No: N/A", True),
    "N/A, then a number": (target("integer", "4", abstain=True), "N/A? No: 4", True),
}


@pytest.mark.parametrize(("goal", "text", "right"), ANY_FORMAT.values(), ids=ANY_FORMAT)
def test_any_format_reads_the_last_value(goal: dict[str, Any], text: str, right: bool) -> None:
    assert scoring.is_correct_in_any_format(goal, text) is right


@pytest.mark.timeout(10)
@pytest.mark.parametrize(
    "text", ["1" * 100_000, "1," * 50_000, " " * 100_000, "1/" * 50_000, "-" * 100_000, "('1" * 33_000, "N/A" * 33_000, "1e" * 50_000]
)
def test_a_hostile_value_is_only_wrong(text: str) -> None:
    for goal in (DECIMAL, DATE, WEEKS, UNKNOWABLE):
        assert not scoring.score(goal, say(text)).correct
        assert not scoring.is_correct_in_any_format(goal, text) or goal is UNKNOWABLE
