"""Labels computed from events: each rule, what it leaves out, and where it ends, on records that are written out."""

import tracemalloc
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ehrmind_k8s.tasks.ehrshot import labelling, outcomes
from ehrmind_k8s.tasks.ehrshot.outcomes import Vocabulary
from ehrmind_k8s.tasks.ehrshot.timeline import Timeline
from tests.unit.tasks.ehrshot.history import Event, death, icu, record, result, stay

SEEN_LATER = Event("LOINC/1", "2022-01-01T10:00")  # so that nothing is censored


def told(timeline: Timeline, subtask: str, descendants: outcomes.Descendants | None = None) -> list[tuple[str, int]]:
    vocabulary = Vocabulary(timeline.names.codes, timeline.names.described, descendants or {})
    found = labelling.compute(timeline, subtask, vocabulary)
    assert set(found.subject.tolist()) <= {timeline.subject}
    return [(str(t)[:16], int(v)) for t, v in zip(found.time, found.value, strict=True)]


@pytest.mark.parametrize(("end", "value"), [("2020-03-08T10:00", 1), ("2020-03-08T09:59", 0), ("2020-03-02T00:00", 0)])
def test_a_stay_is_long_from_seven_days_on(end: str, value: int) -> None:
    assert told(record(stay("2020-03-01T10:00", end)), "guo_los") == [("2020-03-01T23:59", value)]


def test_a_stay_that_ends_on_its_first_day_or_not_at_all_has_no_label() -> None:
    assert told(record(stay("2020-03-01T10:00", "2020-03-01T23:00"), stay("2020-04-01T10:00", "")), "guo_los") == []
    assert told(record(stay("2020-03-01T10:00", "2020-03-09T23:00", "Visit/OP")), "guo_los") == [], "not an admission"


@pytest.mark.parametrize(
    ("start", "expected"),
    [
        ("2020-03-31T23:59", [("2020-03-01T23:59", 1)]),
        ("2020-04-01T00:00", [("2020-03-01T23:59", 0)]),
        ("2020-03-02T00:00", [("2020-03-01T23:59", 1)]),
        ("2020-03-01T15:00", []),
    ],
)
def test_a_readmission_is_within_30_days_and_not_on_the_day_of_discharge(start: str, expected: list[tuple[str, int]]) -> None:
    found = told(record(stay("2020-02-20T10:00", "2020-03-01T12:00"), stay(start, "2020-05-01T10:00"), SEEN_LATER), "guo_readmission")
    assert [label for label in found if label[0] < "2020-05"] == expected
    assert found[-1] == ("2020-05-01T23:59", 0)


def test_a_record_that_ends_within_the_30_days_has_no_label_unless_an_admission_was_seen() -> None:
    first = stay("2020-02-20T10:00", "2020-03-01T12:00")
    assert told(record(first, Event("LOINC/1", "2020-03-31T23:58")), "guo_readmission") == []
    assert told(record(first, Event("LOINC/1", "2020-03-31T23:59")), "guo_readmission") == [("2020-03-01T23:59", 0)]
    assert told(record(first, stay("2020-03-10T10:00", "2020-03-11T10:00")), "guo_readmission") == [("2020-03-01T23:59", 1)]


@pytest.mark.parametrize(
    "following",
    [
        stay("2020-03-10T10:00", ""),
        stay("2020-03-10T10:00", "2020-03-10T10:00"),
        stay("2020-03-10T23:59:59", "2020-03-10T23:59:59"),
        stay("2020-03-31T23:59:59", "2020-03-31T23:59:59"),
    ],
)
def test_an_admission_counts_as_a_return_though_its_end_or_its_length_is_not_known(following: Event) -> None:
    first = stay("2020-02-20T10:00", "2020-03-01T12:00")
    assert told(record(first, following), "guo_readmission") == [("2020-03-01T23:59", 1)]
    assert told(record(first, following, SEEN_LATER), "guo_readmission") == [("2020-03-01T23:59", 1)], "nothing is asked about the second"


@pytest.mark.parametrize("subtask", ["guo_readmission", "new_acutemi"])
@pytest.mark.parametrize(
    ("other", "asked"),
    [
        (stay("2020-02-22T10:00", "2020-02-25T10:00"), ["2020-03-01"]),  # within the first
        (stay("2020-02-25T10:00", "2020-03-03T10:00"), ["2020-03-03"]),  # overlaps its end
        (stay("2020-03-01T23:59:59", "2020-03-03T10:00"), ["2020-03-03"]),  # the day of discharge, by its date
        (stay("2020-02-25T10:00", ""), []),  # may go on
        (stay("2019-02-25T10:00", ""), ["2020-03-01"]),  # over, since there was another admission
        (death("2020-03-01T11:00"), []),
        (death("2020-03-01T23:59:59"), []),
        (Event("MEDS_DEATH", "2020-03-01T11:00"), []),  # in no table
    ],
)
def test_who_has_not_left_hospital_alive_is_not_asked_about_the_time_after_it(other: Event, asked: list[str], subtask: str) -> None:
    found = told(record(stay("2020-02-20T10:00", "2020-03-01T12:00"), other, SEEN_LATER), subtask)
    assert found == [(f"{day}T23:59", 0) for day in asked]


@pytest.mark.parametrize(("died", "expected"), [("2020-03-09T10:00", [("2020-03-01T23:59", 0)]), ("2020-04-09T10:00", [("2020-03-01T23:59", 0)])])
def test_a_death_without_a_return_is_an_answer_and_not_the_end_of_what_is_known(died: str, expected: list[tuple[str, int]]) -> None:
    first = stay("2020-02-20T10:00", "2020-03-01T12:00")
    assert told(record(first, death(died)), "guo_readmission") == expected
    assert told(record(first, stay("2020-03-08T10:00", ""), death(died)), "guo_readmission") == [("2020-03-01T23:59", 1)]


@pytest.mark.parametrize(
    ("moved", "back", "expected"),
    [
        ("2020-03-02T08:00", "2020-03-09T00:00", 1),
        ("2020-03-02T08:00", "", 1),
        ("2020-03-03T23:59:59", "2020-03-03T23:59:59", 1),
        ("2020-03-05T12:00", "2020-03-09T00:00", 1),
        ("2020-03-05T23:59:59", "2020-03-05T23:59:59", 1),  # on the day of discharge, so before it
        ("2020-03-05T12:01", "2020-03-09T00:00", 0),
        ("2020-03-06T23:59:59", "2020-03-06T23:59:59", 0),
        ("2020-03-01T20:00", "2020-03-09T00:00", None),
        ("2020-03-01T23:59:59", "", None),
        ("2020-02-29T23:00", "2020-03-02T00:00", None),  # in intensive care when admitted
        ("2020-02-20T08:00", "2020-02-29T23:00", 0),
        ("2020-02-20T08:00", "", 0),
    ],
)
def test_intensive_care_counts_from_the_second_day_to_discharge(moved: str, back: str, expected: int | None) -> None:
    found = told(record(stay("2020-03-01T10:00", "2020-03-05T12:00"), icu(moved, back)), "guo_icu")
    assert found == ([] if expected is None else [("2020-03-01T23:59", expected)])


def test_intensive_care_is_told_by_descriptions_too() -> None:
    vocabulary = Vocabulary(["Visit/1", "CARE_SITE/5", "Visit/2"], {"Visit/1": "Medical ICU", "CARE_SITE/5": "Circus"}, {})
    assert vocabulary.icu.tolist() == [True, False, False]


@pytest.mark.parametrize(
    ("first", "expected"),
    [
        ("2020-03-02T23:58", []),
        ("2020-03-02T23:59", [("2020-03-01T23:59", 1)]),
        ("2021-03-01T23:59", [("2020-03-01T23:59", 1)]),
        ("2021-03-02T00:00", [("2020-03-01T23:59", 0)]),
        ("2020-03-01T23:59", []),
        ("2019-01-01T08:00", []),
    ],
)
def test_a_new_diagnosis_is_the_first_one_1_to_365_days_after_discharge(first: str, expected: list[tuple[str, int]]) -> None:
    again = Event("SNOMED/57054005", "2020-06-01T08:00" if first < "2020-06" else first)
    found = told(record(stay("2020-02-20T10:00", "2020-03-01T12:00"), Event("SNOMED/57054005", first), again), "new_acutemi")
    assert found == expected


def test_dates_without_a_time_of_day_count_by_their_days() -> None:
    """Such dates are known at 23:59:59, 59 seconds after the minute of the label."""
    days = record(stay("2020-02-20T23:59:59", "2020-03-01T23:59:59"), stay("2020-03-31T23:59:59", "2020-04-02T23:59:59"), SEEN_LATER)
    assert told(days, "guo_readmission")[0] == ("2020-03-01T23:59", 1)
    found = record(stay("2020-02-20T23:59:59", "2020-03-01T23:59:59"), Event("SNOMED/57054005", "2021-03-01T23:59:59"))
    assert told(found, "new_acutemi") == [("2020-03-01T23:59", 1)]


def test_a_record_that_ends_early_counts_as_not_diagnosed() -> None:
    assert told(record(stay("2020-02-20T10:00", "2020-03-01T12:00")), "new_lupus") == [("2020-03-01T23:59", 0)]


def test_the_source_s_hierarchy_decides_what_a_diagnosis_is_and_icd_stands_in_without_one() -> None:
    left = stay("2020-02-20T10:00", "2020-03-01T12:00")
    below, icd = Event("SNOMED/401303003", "2020-05-01T08:00"), Event("ICD10CM/I21.4", "2020-05-01T08:00")
    tree = {"SNOMED/57054005": frozenset({"SNOMED/401303003"})}
    assert told(record(left, below), "new_acutemi", tree) == [("2020-03-01T23:59", 1)]
    assert told(record(left, below), "new_acutemi") == [("2020-03-01T23:59", 0)]
    assert told(record(left, icd), "new_acutemi") == [("2020-03-01T23:59", 1)]
    assert told(record(left, icd), "new_acutemi", tree) == [("2020-03-01T23:59", 0)]


@pytest.mark.parametrize(
    ("subtask", "code", "value", "unit", "expected"),
    [
        ("lab_thrombocytopenia", "LOINC/777-3", 149, "10*3/uL", 1),
        ("lab_thrombocytopenia", "LOINC/777-3", 150, "", 0),
        ("lab_hyperkalemia", "LOINC/2823-3", 5.5, "mmol/L", 0),
        ("lab_hyperkalemia", "LOINC/2823-3", 5.6, "mEq/L", 1),
        ("lab_hyperkalemia", "LOINC/2823-3", 60, "mg/dL", None),
        ("lab_hypoglycemia", "LOINC/14749-6", 3.9, "mmol/L", 1),
        ("lab_hypoglycemia", "LOINC/2345-7", 70, "mg/dL (See scan or EMR data for detail)", 1),
        ("lab_hypoglycemia", "LOINC/2345-7", 71, "mg/dL", 0),
        ("lab_hypoglycemia", "LOINC/2345-7", 70, "", None),
        ("lab_hyponatremia", "LOINC/2951-2", 135, "mmol/L", 1),
        ("lab_hyponatremia", "LOINC/2951-2", 136, "", 0),
        ("lab_anemia", "LOINC/718-7", 11.9, "g/dL", 1),
        ("lab_anemia", "LOINC/718-7", 12, "g/dL", 0),
        ("lab_anemia", "LOINC/718-7", 119, "g/L", 1),
    ],
)
def test_a_result_is_positive_from_mild_on_in_the_unit_it_has(subtask: str, code: str, value: float, unit: str, expected: int | None) -> None:
    found = told(record(result(code, "2020-03-01T10:00", value, unit)), subtask)
    assert found == ([] if expected is None else [("2020-03-01T09:59", expected)])


def test_a_word_for_a_normal_count_is_negative_and_other_words_are_no_result() -> None:
    words = [result("LOINC/777-3", f"2020-03-0{i}T10:00", float("nan"), text=text) for i, text in enumerate(("Normal", "adequate", "clotted"), 1)]
    assert told(record(*words), "lab_thrombocytopenia") == [("2020-03-01T09:59", 0), ("2020-03-02T09:59", 0)]


def test_a_result_at_the_time_of_the_first_event_has_no_label() -> None:
    found = told(record(result("LOINC/718-7", "1950-01-01", 80, "g/L"), result("LOINC/718-7", "1950-02-01T00:00", 80, "g/L")), "lab_anemia")
    assert found == [("1950-01-31T23:59", 1)]


def test_no_label_uses_what_its_own_cut_hides_from_the_prompt() -> None:
    """The positive event of every positive label lies after the label's minute."""
    timeline = record(
        stay("2020-02-20T10:00", "2020-03-01T12:00"),
        icu("2020-02-22T10:00", "2020-02-23T10:00"),
        Event("SNOMED/57054005", "2020-06-01T08:00"),
        result("LOINC/718-7", "2020-02-21T10:00", 80, "g/L"),
    )
    for subtask, code in (("guo_icu", "CARE_SITE/7928450"), ("new_acutemi", "SNOMED/57054005"), ("lab_anemia", "LOINC/718-7")):
        [(time, value)] = told(timeline, subtask)
        past = timeline.until(np.datetime64(time))
        assert value == 1 and code not in {past.names.codes[c] for c in past.code}


def test_a_meds_hierarchy_is_followed_to_its_leaves(tmp_path: Path) -> None:
    (tmp_path / "metadata").mkdir()
    rows = [{"code": "SNOMED/22298006", "parent_codes": ["SNOMED/57054005"]}, {"code": "ICD10CM/I21.9", "parent_codes": ["SNOMED/22298006"]}]
    pq.write_table(pa.Table.from_pylist([*rows, {"code": "X/1", "parent_codes": None}]), tmp_path / "metadata" / "codes.parquet")
    assert outcomes.hierarchy(tmp_path) == {"SNOMED/57054005": {"SNOMED/22298006", "ICD10CM/I21.9"}}


@pytest.mark.parametrize("separator", ["\t", ","])
def test_an_omop_hierarchy_is_read_as_athena_and_others_write_it(separator: str, tmp_path: Path) -> None:
    concepts = [
        ("concept_id", "concept_name", "vocabulary_id", "concept_code"),
        (1, "Acute MI", "SNOMED", "57054005"),
        (2, "STEMI", "SNOMED", "401303003"),
    ]
    ancestors = [("ANCESTOR_CONCEPT_ID", "DESCENDANT_CONCEPT_ID"), (1, 1), (1, 2), (2, 2), (1, 99)]
    for name, rows in (("CONCEPT.csv", concepts), ("CONCEPT_ANCESTOR.csv", ancestors)):
        (tmp_path / name).write_text("".join(separator.join(map(str, row)) + "\n" for row in rows), encoding="utf-8")
    assert outcomes.hierarchy(tmp_path) == {"SNOMED/57054005": {"SNOMED/57054005", "SNOMED/401303003"}}


def test_of_a_vocabulary_only_what_is_below_a_root_is_kept(tmp_path: Path) -> None:
    """A vocabulary has ten million concepts, of which a few thousand are below a root."""
    others = range(1000, 200_000)
    with (tmp_path / "CONCEPT.csv").open("w", encoding="utf-8") as file:
        file.write("concept_id\tconcept_name\tvocabulary_id\tconcept_code\n1\tAcute MI\tSNOMED\t57054005\n2\tSTEMI\tSNOMED\t401303003\n")
        file.writelines(f"{i}\tname\tSNOMED\t{i}\n" for i in others)
    with (tmp_path / "CONCEPT_ANCESTOR.csv").open("w", encoding="utf-8") as file:
        file.write("ancestor_concept_id\tdescendant_concept_id\n1\t1\n1\t2\n")
        file.writelines(f"{i}\t{i}\n" for i in others)
    outcomes.hierarchy(tmp_path)  # what is loaded on the first call is not counted
    tracemalloc.start()
    try:
        found = outcomes.hierarchy(tmp_path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert found == {"SNOMED/57054005": {"SNOMED/57054005", "SNOMED/401303003"}}
    assert peak < 100 * len(others), "bytes of a concept"


def test_a_source_without_a_hierarchy_has_none(tmp_path: Path) -> None:
    assert outcomes.hierarchy(tmp_path) == {}
