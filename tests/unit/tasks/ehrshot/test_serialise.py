"""A record in words: what is shown, in which order, and that a budget is kept to the token."""

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ehrmind_k8s.tasks.base import words
from ehrmind_k8s.tasks.ehrshot.serialise import SECTIONS, Text, age, ago, number, serialise
from ehrmind_k8s.tasks.ehrshot.timeline import NAT, TABLES, Names, Timeline

AT = np.datetime64("2015-06-01T12:00:00")
BIRTH = np.datetime64("1952-03-09T00:00:00")
PLENTY = 10_000


def event(
    code: str, table: str, days: float | None, value: float | str | None = None, unit: str | None = None, end: float | None = None
) -> tuple[Any, ...]:
    """One event `days` before AT (None: a fact without a time), with an end `end` days before it."""
    return code, table, days, value, unit, end


def record(events: Sequence[tuple[Any, ...]], described: dict[str, str] | None = None, visits_end: bool = True) -> Timeline:
    events = sorted(events, key=lambda e: np.inf if e[2] is None else e[2], reverse=True)
    names: tuple[list[str], list[str], list[str]] = ([], [], [])

    def place(of: list[str], text: Any) -> int:
        if not isinstance(text, str):
            return -1
        if text not in of:
            of.append(text)
        return of.index(text)

    def before(days: float | None) -> np.datetime64:
        return NAT if days is None else AT - np.timedelta64(int(days * 86400), "s")

    return Timeline(
        subject=1,
        birth=BIRTH,
        time=np.array([before(e[2]) for e in events], dtype="datetime64[s]"),
        end=np.array([before(e[5]) for e in events], dtype="datetime64[s]"),
        code=np.array([place(names[0], e[0]) for e in events], dtype=np.int32),
        value=np.array([e[3] if isinstance(e[3], float) else np.nan for e in events]),
        text=np.array([place(names[2], e[3]) for e in events], dtype=np.int32),
        unit=np.array([place(names[1], e[4]) for e in events], dtype=np.int32),
        visit=np.full(len(events), -1),
        table=np.array([TABLES.index(e[1]) for e in events], dtype=np.int8),
        names=Names(names[0], names[1], names[2], described or {}, visits_end),
    )


def written(events: Sequence[tuple[Any, ...]], budget: int = PLENTY, **told: Any) -> Text:
    return serialise(record(events, **told), AT, budget, words)


def hemoglobin(days: float, value: float) -> tuple[Any, ...]:
    return event("LOINC/718-7", "measurement", days, value, "g/dL")


def test_a_record_reads_like_this() -> None:
    text = written(
        [
            event("SNOMED/3950001", "person", 23_094.5),
            event("Gender/F", "person", None),
            event("Visit/ER", "visit_occurrence", 41, end=39),
            event("Visit/IP", "visit_occurrence", 3),
            *(hemoglobin(days, value) for days, value in ((300, 13.0), (40, 11.2), (2, 10.1), (0.1, 9.8))),
            event("LOINC/5778-6", "measurement", 2, "Amber"),
            event("SNOMED/84114007", "condition_occurrence", 40),
            event("SNOMED/84114007", "condition_occurrence", 3),
            event("RxNorm/4603", "drug_exposure", 1),
        ],
        described={"SNOMED/84114007": "Heart failure", "LOINC/718-7": "Hemoglobin"},
    )
    assert text.text == (
        "Patient:\n- Age: 63 years\n- Gender: female\n"
        "Visits:\n- Inpatient visit (since 3 days ago)\n- Emergency visit (41 days ago, for 2 days)\n"
        "Measurements:\n- Hemoglobin (today): 9.8 g/dL, earlier 10.1, 11.2\n- LOINC/5778-6 (2 days ago): Amber\n"
        "Conditions:\n- Heart failure (3 days ago)\n"
        "Drugs:\n- RxNorm/4603 (1 day ago)\n"
    )
    assert text.kept == {"patient": 2, "visits": 2, "measurements": 4, "conditions": 1, "drugs": 1}
    assert text.dropped == {"repeated": 2}


def test_no_visit_is_said_to_go_on_where_the_source_never_tells_an_end() -> None:
    visit = [event("Visit/IP", "visit_occurrence", 300)]
    assert "(since 300 days ago)" in written(visit).text
    assert "(300 days ago)" in written(visit, visits_end=False).text


def test_a_code_of_two_tables_is_two_lines() -> None:
    text = written([event("Visit/OP", "visit_occurrence", 2, end=2), event("Visit/OP", "visit_detail", 2)])
    assert text.kept == {"visits": 1, "other": 1}
    assert text.text.count("Outpatient visit") == 2


def test_another_unit_is_told_and_the_same_unit_is_told_once() -> None:
    text = written([hemoglobin(3, 10.0), event("LOINC/718-7", "measurement", 2, 101.0, "g/L"), hemoglobin(1, 9.9)])
    assert "(1 day ago): 9.9 g/dL, earlier 101 g/L, 10\n" in text.text


def test_a_remark_behind_a_unit_is_left_out() -> None:
    text = written([event("LOINC/1", "measurement", 1, 95.0, "mg/dL (See scan or EMR data for detail)")])
    assert "(1 day ago): 95 mg/dL\n" in text.text


def test_codes_without_meaning_are_left_out_unless_they_are_described() -> None:
    site = [event("CARE_SITE/7", "visit_detail", 1)]
    assert written(site).dropped == {"without_meaning": 1}
    assert "Intensive care" in written(site, described={"CARE_SITE/7": "Intensive care"}).text


DATES = (
    *(
        "2015-05-30",
        "on 5/30/2015.",
        "30.05.15",
        "30 / 5 / 2015",
        "2015\u201305\u201330",
        "2015-05-30T12:15:00",
        "20150530",
        "20150530T1215",
        "201505301215",
    ),
    *("30 May 2015", "30-MAY-15", "30may2015", "May 30th, 2015", "Sept. 2, 2015", "June 2015", "on 4 Mar", "05/2015", "2015-05", "since 2015"),
)


@pytest.mark.parametrize("date", DATES)
def test_a_date_is_not_shown_wherever_it_was_written(date: str) -> None:
    places = (
        event("LOINC/1", "measurement", 1, f"seen {date}"),
        event("LOINC/1", "measurement", 1, 7.0, f"mg {date}"),
        event(f"NOTE//seen {date} by her", "observation", 1),
        event(f"Race/{date}", "person", None),
    )
    for place in places:
        text = written([place]).text
        assert "(date)" in text and not re.search(r"2015|15|30|[Mm]ay|MAY|June|Mar", text.replace("63 years", "")), text


@pytest.mark.parametrize("value", [20150530.0, 201505301215.0, -20150530.0])
def test_a_number_that_is_a_date_is_not_shown(value: float) -> None:
    assert ": (date) U\n" in written([event("LOINC/1", "measurement", 1, value, "U")]).text.replace("-(", "(")
    assert ": 20159930 U\n" in written([event("LOINC/1", "measurement", 1, 20159930.0, "U")]).text


@pytest.mark.parametrize("text", [">2000 pg/mL", "120/80", "3.5/10.2", "1:320", "2000-4000 mL", "in 2000 mL", "5 mg", "marked 3+", "7.35-7.45"])
def test_a_result_that_is_no_date_stays(text: str) -> None:
    assert f": {text}\n" in written([event("LOINC/1", "measurement", 1, text)]).text


def test_codes_of_a_vocabulary_are_not_taken_for_dates() -> None:
    for code in ("SNOMED/20150530", "OMOP/19010309", "LOINC/1988-5", "ICD10PCS/0016070"):
        assert code in written([event(code, "condition_occurrence", 1)]).text


def test_no_text_has_a_line_of_its_own() -> None:
    forged = "a\nConditions:\r\n- Forged\u2028- again"
    events = [
        event("LOINC/1", "measurement", 1, forged),
        event("LOINC/2", "measurement", 1, 7.0, forged),
        event(forged, "observation", 1),
        event(f"Race/{forged}", "person", None),
        event("X/1", "drug_exposure", 1),
    ]
    lines = written(events, described={"X/1": forged}).text.splitlines()
    assert len(lines) == 2 + 1 + 1 + 2 + 1 + 1 + 1 + 1 and "Conditions:" not in lines and not any(found.startswith("- Forged") for found in lines)


def test_what_was_90_years_ago_or_more_is_one_class() -> None:
    assert [ago(days) for days in (32_000, 32_850, 40_241)] == ["32000 days ago", "90 years ago or more", "90 years ago or more"]


@pytest.mark.parametrize(
    ("birth", "words_"),
    [
        ("2015-05-20", "12 days"),
        ("2014-06-02", "11 months"),
        ("2013-06-02", "23 months"),
        ("2013-06-01", "2 years"),
        ("1952-06-02", "62 years"),
        ("1952-06-01", "63 years"),
        ("1925-06-02", "89 years"),
        ("1925-06-01", "90 years or older"),
        ("1901-01-01", "90 years or older"),
    ],
)
def test_age_counts_whole_years_and_ends_at_ninety(birth: str, words_: str) -> None:
    assert age(np.datetime64(birth, "s"), AT) == words_


def test_days_are_calendar_days_and_numbers_have_no_noise() -> None:
    assert [ago(days) for days in (0, 1, 2)] == ["today", "1 day ago", "2 days ago"]
    assert [number(v) for v in (7.0, 7.199999809265137, 0.00012, 250000.0, -3.5)] == ["7", "7.2", "0.00012", "250000", "-3.5"]
    assert "(1 day ago)" in written([event("RxNorm/1", "drug_exposure", 0.6)]).text  # 12 hours and a night before noon


def test_the_most_recent_lines_are_kept_and_every_section_has_a_share() -> None:
    events = [event(f"LOINC/{i}", "measurement", i, float(i)) for i in range(1, 200)]
    events += [event(f"SNOMED/{i}", "condition_occurrence", i) for i in range(1, 200)]
    events += [event(f"RxNorm/{i}", "drug_exposure", i) for i in range(1, 200)]
    text = written(events, budget=600).text
    for vocabulary in ("LOINC", "SNOMED", "RxNorm"):
        shown = [int(code) for code in re.findall(rf"{vocabulary}/(\d+)", text)]
        assert len(shown) >= 5 and shown == list(range(1, len(shown) + 1))


def test_what_one_section_does_not_spend_goes_to_the_others() -> None:
    conditions = [event(f"SNOMED/{i}", "condition_occurrence", i) for i in range(1, 200)]
    assert words(written(conditions, budget=600).text) > 580


def test_a_share_that_is_not_spent_goes_to_what_follows_before_it_goes_to_what_came_first() -> None:
    events = [event(f"LOINC/{i}", "measurement", i, float(i)) for i in range(1, 200)]
    events += [event(f"CPT4/{i}", "procedure_occurrence", i) for i in range(1, 200)]
    kept = written(events, budget=600).kept  # conditions and drugs, which come between, have none
    assert kept["procedures"] > kept["measurements"] > 10


def test_a_budget_is_kept_where_a_tokenizer_counts_the_whole_higher_than_its_lines() -> None:
    events = [event(f"SNOMED/{i}", "condition_occurrence", i) for i in range(1, 100)]

    def count(text: str) -> int:
        return words(text) + 5 * max(0, text.count("\n") - 1)

    text = serialise(record(events), AT, 300, count)
    assert 200 < count(text.text) <= 300


EVENTS = st.lists(
    st.tuples(
        st.sampled_from([f"LOINC/{i}" for i in range(8)] + ["CARE_SITE/1", "Gender/F", "SNOMED/3950001"]),
        st.sampled_from(TABLES),
        st.none() | st.floats(0, 4000),
        st.none() | st.floats(-1e6, 1e6) | st.text(max_size=8),
        st.none() | st.sampled_from(["g/dL", "mmol/L"]),
        st.none() | st.floats(0, 100),
    ),
    max_size=60,
)


@given(events=EVENTS, budget=st.integers(0, 400))
def test_any_record_keeps_its_budget_and_accounts_for_every_event(events: list[tuple[Any, ...]], budget: int) -> None:
    past = record(events)
    text = serialise(past, AT, budget, words)
    assert words(text.text) <= budget
    assert sum(text.kept.values()) + sum(text.dropped.values()) == len(past.time)
    assert not re.search(r"\b(19|20)[0-9]{2}-[0-9]{2}", text.text)
    assert set(text.kept) <= {"patient", *(s.name for s in SECTIONS)}
    assert serialise(past, AT, budget, words) == text


def test_shares_add_up_to_the_whole() -> None:
    assert sum(section.share for section in SECTIONS) == pytest.approx(1)
    assert sorted(table for section in SECTIONS for table in section.tables) == sorted(set(TABLES) - {"person"})
