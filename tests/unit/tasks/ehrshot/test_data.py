"""From a source to examples: prompts without a future, drops with reasons, and what the audit says, on a MEDS folder written by hand."""

import gc
import hashlib
import hmac
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ehrmind_k8s.errors import DataError, SpecError
from ehrmind_k8s.records import Example
from ehrmind_k8s.spec import DataSpec
from ehrmind_k8s.tasks.base import TaskData, words
from ehrmind_k8s.tasks.ehrshot import data, labelling, scoring, synthetic, terms
from ehrmind_k8s.tasks.ehrshot.labels import Labels
from ehrmind_k8s.tasks.ehrshot.outcomes import Vocabulary
from ehrmind_k8s.tasks.ehrshot.timeline import Timeline
from tests.unit.tasks.ehrshot.history import record, stay

SCHEMA = pa.schema(
    [
        ("subject_id", pa.int64()),
        ("time", pa.timestamp("us")),
        ("code", pa.string()),
        ("numeric_value", pa.float32()),
        ("end", pa.timestamp("us")),
        ("table", pa.string()),
    ]
)
DISCHARGED = "2020-03-05T23:59"


@dataclass
class Folder:
    """A MEDS folder: events and labels of a few subjects."""

    path: Path
    events: list[dict[str, Any]] = field(default_factory=list)
    labels: dict[str, list[dict[str, Any]]] = field(default_factory=dict)

    def subject(self, subject: int, *events: tuple[str, str], born: str = "1950-01-01") -> None:
        """A subject with an inpatient stay from 1 to 5 March 2020 and `events` (time, code)."""
        self.event(subject, born, "MEDS_BIRTH", table="person")
        self.event(subject, "2020-03-01T10:00", "Visit/IP", end=datetime(2020, 3, 5, 12), table="visit_occurrence")
        for time, code in events:
            self.event(subject, time, code)

    def event(self, subject: int, time: str, code: str, **more: Any) -> None:
        self.events.append({"subject_id": subject, "time": datetime.fromisoformat(time), "code": code} | more)

    def label(self, subject: int, value: bool, subtask: str = "guo_readmission", time: str = DISCHARGED) -> None:
        row = {"subject_id": subject, "prediction_time": datetime.fromisoformat(time), "boolean_value": value}
        self.labels.setdefault(subtask, []).append(row)

    def read(self, seed: int = 1, **settings: Any) -> tuple[TaskData, list[Example]]:
        (self.path / "data").mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.Table.from_pylist(self.events, SCHEMA), self.path / "data" / "0.parquet")
        for subtask, rows in self.labels.items():
            (self.path / "labels" / subtask).mkdir(parents=True, exist_ok=True)
            pq.write_table(pa.Table.from_pylist(rows), self.path / "labels" / subtask / "labels.parquet")
        found = data.read(self.path, DataSpec(**settings), seed, words)
        return found, list(found.examples)


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    """Ten subjects, discharged on 5 March 2020; the odd ones come back."""
    made = Folder(tmp_path / "source")
    for subject in range(10):
        made.subject(subject, ("2020-03-02T08:00", "LOINC/718-7"), ("2020-06-01T08:00", "SECRET/FUTURE"))
        made.label(subject, bool(subject % 2))
    return made


def text(example: Example) -> str:
    return example.messages[0]["content"]


def test_every_label_becomes_one_prompt_with_record_question_and_form(folder: Folder) -> None:
    found, examples = folder.read(test_fraction=0.4, validation_fraction=0)
    assert len(examples) == found.total == 10 and not found.drops
    for e in examples:
        assert "Will the patient be admitted again within 30 days?" in text(e) and '{"prediction": "no readmission", "label": 0}' in text(e)
        assert "718-7" in text(e) and e.category == "guo_readmission" and e.task == "ehrshot"
        assert scoring.score(e.target, '<think>.</think><answer>{"prediction": "readmission", "label": 1}</answer>').correct == bool(
            e.target["label"]
        )
    assert Counter(e.split for e in examples)["test"] == 4


def test_nothing_after_the_label_reaches_a_prompt_and_no_date_does(folder: Folder) -> None:
    _, examples = folder.read()
    assert not any(word in text(e) for e in examples for word in ("SECRET", "FUTURE", "2020", "1950"))


@pytest.mark.parametrize(("dataset", "known"), [("mine", (True, False, False)), ("EHRSHOT", (True, True, False))])
def test_a_label_means_its_second_and_in_the_benchmark_its_minute(dataset: str, known: tuple[bool, ...], folder: Folder) -> None:
    """Three events after a question at 10:00:29: at once, thirty seconds later, in the next minute."""
    folder.labels.clear()
    for subject in range(10):
        for i, second in enumerate(("10:00:29", "10:00:59", "10:01:00")):
            folder.event(subject, f"2020-03-02T{second}", f"LOINC/{i}-0")
        folder.label(subject, bool(subject % 2), "guo_los", "2020-03-02T10:00:29")
        folder.label(subject, not subject % 2, "guo_los", "2020-03-02T10:01:30")
    (folder.path / "metadata").mkdir(parents=True)
    (folder.path / "metadata" / "dataset.json").write_text(json.dumps({"dataset_name": dataset}), encoding="utf-8")
    found, examples = folder.read(labels_per_subject=None, test_fraction=1)
    assert found.audit["labels"]["guo_los"]["labels"] == len({e.id for e in examples}) == 20
    shown = [tuple(f"LOINC/{i}-0" in text(e) for i in range(3)) for e in examples]
    assert shown == [known, (True, True, True)] * 10


def test_two_answers_in_one_minute_are_two_questions(folder: Folder) -> None:
    folder.labels.clear()
    for subject in range(10):
        folder.label(subject, False, "sepsis", "2020-03-02T10:00:10")
        folder.label(subject, True, "sepsis", "2020-03-02T10:00:50")
    found, examples = folder.read(labels_per_subject=None, test_fraction=1)
    assert found.audit["labels"]["sepsis"]["contradicting"] == 0 and len({e.id for e in examples}) == 20


def test_a_visit_that_goes_on_has_no_end_in_the_prompt(folder: Folder) -> None:
    folder.labels.clear()
    for subject in range(10):
        folder.label(subject, bool(subject % 2), "guo_los", "2020-03-01T23:59")
    ended, going_on = (Folder(folder.path.parent / name, list(folder.events), folder.labels) for name in ("a", "b"))
    going_on.events = [e | ({"end": datetime(2020, 3, 20)} if e.get("end") else {}) for e in folder.events]
    assert [text(e) for e in ended.read()[1]] == [text(e) for e in going_on.read()[1]]


def test_ids_and_groups_tell_nothing_of_a_subject_and_a_subject_is_one_group(folder: Folder) -> None:
    for subject in range(10):
        folder.label(subject, False, "guo_los", "2020-03-01T23:59")
    _, examples = folder.read(subtasks=("guo_readmission", "guo_los"))
    assert len({e.group for e in examples}) == 10 and len({e.id for e in examples}) == len(examples)
    by_group: dict[str, set[str]] = {}
    for e in examples:
        by_group.setdefault(e.group, set()).add(e.split)
    assert all(len(splits) == 1 for splits in by_group.values())


def test_ids_cannot_be_made_from_a_subject_and_what_is_published(folder: Folder) -> None:
    """Hashes of ids that anybody can count through are no names; nor are those with a key that the manifest tells."""
    found, examples = folder.read()
    minute = int(np.datetime64(DISCHARGED).astype(np.int64))
    known = [b"", b"ehrshot", *(digest.encode() for digest in found.inputs.values()), *(bytes.fromhex(digest) for digest in found.inputs.values())]
    texts = [f"subject:{s}".encode() for s in range(10)] + [f"{s}:{m}:guo_readmission".encode() for s in range(10) for m in (minute, 60 * minute)]
    tried = {hashlib.sha256(text).hexdigest()[:16] for text in texts} | {
        hmac.digest(key, text, "sha256").hex()[:16] for key in known for text in texts
    }
    assert not tried & {name for e in examples for name in (e.group, e.id.removeprefix("ehrshot-"))}


def test_ids_stay_when_the_source_moves_and_change_with_its_records(folder: Folder) -> None:
    first = [(e.id, e.group) for e in folder.read()[1]]
    assert [(e.id, e.group) for e in folder.read(subtasks=("guo_readmission",))[1]] == first
    moved = Folder(folder.path.with_name("moved"), folder.events, folder.labels)
    assert [(e.id, e.group) for e in moved.read()[1]] == first
    moved.event(3, "2020-03-02T08:30", "LOINC/718-7")
    again = [(e.id, e.group) for e in moved.read()[1]]
    assert len(again) == len(first) and not {name for row in again for name in row} & {name for row in first for name in row}


def reasons(found: TaskData) -> dict[str, int]:
    return dict(Counter(d.reason for d in found.drops))


def test_labels_that_cannot_be_asked_are_dropped_with_their_reason(folder: Folder) -> None:
    folder.subject(20, born="2021-01-01")
    folder.event(21, "2020-03-05T23:59", "MEDS_BIRTH", table="person")
    folder.event(21, "2020-06-01T10:00", "LOINC/718-7")
    for subject in (20, 21, 22):
        folder.label(subject, True)
        folder.label(subject, False, time="2020-03-05T23:58")
    found, examples = folder.read(labels_per_subject=None)
    assert set(reasons(found)) <= {"label_before_birth", "no_event_before_label", "unknown_subject"}
    assert sum(reasons(found).values()) + len(examples) == found.total
    assert {"label_before_birth", "unknown_subject"} <= set(reasons(found))


def test_labels_of_another_source_are_refused(folder: Folder) -> None:
    for rows in folder.labels.values():
        for row in rows:
            row["subject_id"] += 1000
    with pytest.raises(DataError, match=r"none of the [0-9]+ subjects with labels has a record"):
        folder.read()


def test_a_subject_in_two_splits_is_refused(folder: Folder) -> None:
    (folder.path / "metadata").mkdir(parents=True)
    rows = [{"subject_id": s, "split": "train"} for s in range(10)] + [{"subject_id": 3, "split": "held_out"}]
    pq.write_table(pa.Table.from_pylist(rows), folder.path / "metadata" / "subject_splits.parquet")
    with pytest.raises(DataError, match="two splits"):
        folder.read()


def test_given_labels_are_compared_with_what_events_say(folder: Folder) -> None:
    for subject in range(10):
        folder.event(subject, "2021-06-01T08:00", "LOINC/718-7")
    folder.event(1, "2020-03-20T10:00", "Visit/IP", end=datetime(2020, 3, 25, 12), table="visit_occurrence")
    folder.label(2, True, time="2020-04-01T12:00")
    found, _ = folder.read(test_fraction=1)
    # Subject 1 came back, as labelled; the four other odd ones did not. The even ones agree, and one label is at a time that no discharge has.
    assert found.audit["labels_recomputed"] == {"guo_readmission": {"agree": 6, "differ": 4, "only_computed": 1, "only_given": 1}}


def test_without_label_files_labels_are_computed_from_events(folder: Folder) -> None:
    folder.labels.clear()
    for subject in range(10):
        folder.event(subject, "2021-06-01T08:00", "LOINC/718-7")
        if subject % 2:
            folder.event(subject, "2020-03-20T10:00", "Visit/IP", end=datetime(2020, 3, 25, 12), table="visit_occurrence")
    found, examples = folder.read(subtasks=("guo_readmission", "guo_los"), labels_per_subject=None)
    assert found.audit["labels_from"] == "events" and "labels_recomputed" not in found.audit
    assert found.audit["labels"]["guo_readmission"]["positive"] == 5 and found.audit["labels"]["guo_los"] == {
        "labels": 15,
        "positive": 0,
        "repeated": 0,
        "contradicting": 0,
    }
    assert {e.category for e in examples} == {"guo_readmission", "guo_los"}


def test_labels_can_be_computed_though_there_are_files_and_not_for_what_reports_alone_tell(folder: Folder) -> None:
    assert folder.read(labels="computed", subtasks=("guo_los",))[0].audit["labels_from"] == "events"
    with pytest.raises(DataError, match="chexpert_edema cannot be computed from events"):
        folder.read(labels="computed", subtasks=("chexpert_edema",))


def test_labels_of_stays_need_the_ends_of_visits_and_those_of_icu_a_code_that_says_so(folder: Folder) -> None:
    with pytest.raises(DataError, match="guo_icu cannot be computed from events: no code of the source says intensive care"):
        folder.read(labels="computed", subtasks=("guo_icu",))
    folder.events = [e | {"end": None} for e in folder.events]
    with pytest.raises(DataError, match="guo_los cannot be computed from events: the source does not say when visits end"):
        folder.read(labels="computed", subtasks=("guo_los",))
    assert "labels_recomputed" not in folder.read()[0].audit, "nothing to compare with"


def omop_with_infarctions(folder: Path, ancestors: Sequence[tuple[int, int]], concept: int = 4296653) -> Path:
    """Twenty persons who left hospital on 5 March 2020 and had an infarction in May, coded as its standard concept and in ICD-10-CM."""
    folder.mkdir()
    people = range(1, 21)
    concepts = [
        (312327, "Acute myocardial infarction", "SNOMED", "57054005"),
        (4296653, "Acute ST segment elevation myocardial infarction", "SNOMED", "401303003"),
        (45572079, "STEMI of other sites", "ICD10CM", "I21.29"),
    ]
    tables: dict[str, list[tuple[object, ...]]] = {
        "person": [("person_id", "gender_concept_id", "year_of_birth"), *((p, 8507, 1950) for p in people)],
        "visit_occurrence": [
            ("person_id", "visit_concept_id", "visit_start_datetime", "visit_end_datetime"),
            *((p, 9201, "2020-03-01 10:00:00", "2020-03-05 12:00:00") for p in people),
        ],
        "condition_occurrence": [
            ("person_id", "condition_concept_id", "condition_source_concept_id", "condition_start_datetime"),
            *((p, concept, 45572079, "2020-05-01 10:00:00") for p in people),
        ],
        "concept": [("concept_id", "concept_name", "vocabulary_id", "concept_code"), *concepts],
    }
    if ancestors:
        tables["concept_ancestor"] = [("ancestor_concept_id", "descendant_concept_id"), *ancestors]
    for name, rows in tables.items():
        (folder / f"{name}.csv").write_text("".join(",".join(map(str, row)) + "\n" for row in rows), encoding="utf-8")
    return folder


TREE = ((312327, 312327), (312327, 4296653))


@pytest.mark.parametrize("concept", [4296653, 0])
def test_omop_diagnoses_are_told_by_the_hierarchy_and_those_without_a_standard_concept_by_their_icd_code(concept: int, tmp_path: Path) -> None:
    source = omop_with_infarctions(tmp_path / "source", TREE, concept)
    audit = data.read(source, DataSpec(subtasks=("new_acutemi",)), 1, words).audit
    assert audit["labels"]["new_acutemi"]["positive"] == 20 and audit["outcome_codes"] == {"new_acutemi": "hierarchy"}


@pytest.mark.parametrize("ancestors", [(), ((4296653, 4296653),)])
def test_omop_without_what_is_below_a_diagnosis_is_refused_where_all_would_be_negative(ancestors: Any, tmp_path: Path) -> None:
    source = omop_with_infarctions(tmp_path / "source", ancestors)
    with pytest.raises(DataError, match=r"new_acutemi cannot be computed from events, .*: .* CONCEPT_ANCESTOR"):
        data.read(source, DataSpec(subtasks=("new_acutemi",)), 1, words)
    (source / "labels").mkdir()
    rows = [{"subject_id": p, "prediction_time": datetime(2020, 3, 5, 23, 59), "boolean_value": True} for p in range(1, 21)]
    pq.write_table(pa.Table.from_pylist(rows), source / "labels" / "new_acutemi.parquet")
    found = data.read(source, DataSpec(), 1, words)
    assert list(found.examples) and "labels_recomputed" not in found.audit, "nothing to compare with"


@pytest.mark.parametrize("layout", synthetic.LAYOUTS)
def test_the_twins_labels_are_those_that_its_events_give(layout: str, tmp_path: Path) -> None:
    """The twin's labeller knows how its patients were made; ours sees their events alone."""
    names = [n for n in labelling.COMPUTED if layout != "meds" or n.startswith("lab_")]  # that form has no visits
    synthetic.write(tmp_path / layout, 7, "unit", layout)
    settings = DataSpec(subtasks=tuple(names), labels_per_subject=None, test_fraction=1)
    found = data.read(tmp_path / layout, settings, 1, words)
    assert list(found.examples)
    if found.audit["labels_from"] == "files":
        assert set(found.audit["labels_recomputed"]) == set(names)
        assert all(n == 0 for counts in found.audit["labels_recomputed"].values() for kind, n in counts.items() if kind != "agree")
    else:
        synthetic.write(tmp_path / "files", 7, "unit", "ehrshot")
        given = data.read(tmp_path / "files", settings, 1, words).audit["labels"]
        assert {name: found.audit["labels"][name]["positive"] for name in names} == {name: given[name]["positive"] for name in names}


def test_a_users_own_subtask_is_asked_in_their_words(folder: Folder) -> None:
    folder.labels["sepsis"] = folder.labels.pop("guo_readmission")
    folder.path.mkdir(parents=True)
    (folder.path / "subtasks.json").write_text('{"sepsis": {"question": "Will sepsis be diagnosed?", "positive": "sepsis"}}', encoding="utf-8")
    found, examples = folder.read()
    assert all("Question: Will sepsis be diagnosed?" in text(e) and '"no sepsis"' in text(e) for e in examples)
    assert "subtasks.json" in found.inputs and any(name.startswith("labels/sepsis") for name in found.inputs)


def test_a_subtask_without_a_question_is_named_in_the_warnings(folder: Folder) -> None:
    folder.labels["sepsis"] = folder.labels.pop("guo_readmission")
    assert "sepsis has no question in subtasks.json; its name is asked" in folder.read()[0].audit["warnings"]


def test_a_teachers_trace_is_what_its_row_learns(folder: Folder) -> None:
    folder.path.mkdir(parents=True)
    trace = {"subject": 3, "prediction_time": "2020-03-05 23:59:00", "subtask": "guo_readmission", "text": "<think>.</think><answer>{}</answer>"}
    (folder.path / "traces.jsonl").write_text(json.dumps(trace), encoding="utf-8")
    found, examples = folder.read(labels_per_subject=None, test_fraction=0)
    assert [e.sft_text for e in examples if e.sft_text] == [trace["text"]] and "traces.jsonl" in found.inputs


def test_a_prompt_fits_its_budget_and_a_budget_below_the_question_is_refused(folder: Folder) -> None:
    for i in range(200):
        folder.event(1, "2020-03-02T09:00", f"LOINC/{i}")
    _, examples = folder.read(max_prompt_tokens=300)
    assert max(words(text(e)) for e in examples) <= 300
    assert any(e.meta["events_dropped"] for e in examples)
    with pytest.raises(SpecError, match=r"leaves no room for a record beside the question; set it to [0-9]+ at least"):
        folder.read(max_prompt_tokens=50)


def test_terms_are_those_of_the_benchmark_for_its_own_files_alone(folder: Folder) -> None:
    assert folder.read()[0].terms == terms.OWN
    (folder.path / "metadata").mkdir()
    (folder.path / "metadata" / "dataset.json").write_text('{"dataset_name": "EHRSHOT"}', encoding="utf-8")
    assert folder.read()[0].terms == terms.EHRSHOT


@pytest.mark.parametrize("settings", [{"labels": "orignal"}, {"split": "by_subjects"}, {"subtasks": ("guo_lso",)}])
def test_an_unknown_setting_is_refused_with_the_nearest(settings: dict[str, Any], folder: Folder) -> None:
    with pytest.raises(SpecError, match="did you mean"):
        folder.read(**settings)


def test_subjects_without_labels_cost_nothing_and_labels_are_kept_in_few_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data, "PIECES", 100)
    left = stay("2020-02-20T10:00", "2020-03-01T12:00")
    vocabulary = Vocabulary(("MEDS_BIRTH", "Visit/IP"), {}, {})
    most = 0

    def timelines() -> Iterator[Timeline]:
        nonlocal most
        for subject in range(3000):
            yield record(*([left] if subject % 3 == 0 else []), subject=subject)
            if subject % 500 == 499:
                most = max(most, sum(type(o) is Labels for o in gc.get_objects()))

    found = data.computed(timelines(), ("guo_los", "new_lupus"), vocabulary)
    assert [found[name].subject.tolist() for name in ("guo_los", "new_lupus")] == [list(range(0, 3000, 3))] * 2
    assert most <= 2 * 100 + 10


def test_records_are_only_ever_in_the_folder_that_the_stage_works_in(folder: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The folder is emptied after a stage that was killed, and its disk is the one that is watched."""
    (tmp_path / "work").mkdir()
    (tmp_path / "system").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "system"))
    monkeypatch.setenv("EHRMIND_WORK_DIR", str(tmp_path / "work"))
    folder.read()
    found = data.read(folder.path, DataSpec(), 1, words)
    assert list((tmp_path / "work").glob("ehrmind-ehrshot-*/buckets/*.arrow")) and not list((tmp_path / "system").iterdir())
    del found
    assert not list((tmp_path / "work").iterdir())


def test_buckets_are_gone_when_the_examples_are_read_or_given_up(folder: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))

    def left() -> Sequence[Path]:
        return list(tmp_path.glob("ehrmind-ehrshot-*"))

    found, _ = folder.read()
    assert not left()
    found = data.read(folder.path, DataSpec(), 1, words)
    assert left()
    del found
    assert not left()
