"""No future information: what happens after the question does not change its prompt, in any layout.

Records are made in pairs, one with a future and one without, and both are read from files. Their prompts must be the same text. The future holds
new codes, other values of known codes, events one minute late, dates of the very day, and ends of what has begun. `make test-faults` makes
10,000 records.
"""

import os
import random
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, time, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ehrmind_k8s.spec import DataSpec
from ehrmind_k8s.tasks.base import words
from ehrmind_k8s.tasks.ehrshot import data, readers, synthetic
from ehrmind_k8s.tasks.ehrshot.patients import FIRST_SUBJECT, Event, Label, Patient

RECORDS = 10_000 if os.environ.get("EHRMIND_FAULTS") == "1" else 300
SUBTASK = "guo_los"
KNOWN = ("LOINC/718-7", "LOINC/2951-2", "SNOMED/195967001", "RxNorm/4603", "CPT4/71046")
TABLE = {"LOINC": "measurement", "SNOMED": "condition_occurrence", "RxNorm": "drug_exposure", "CPT4": "procedure_occurrence"}
PLANTED = 98765  # a value, and part of codes and texts, that no past holds


@pytest.mark.parametrize("layout", synthetic.LAYOUTS)
def test_what_happens_after_the_question_does_not_change_the_prompt(layout: str, tmp_path: Path) -> None:
    draw = random.Random(f"{layout}:{RECORDS}")
    pasts = [_past(FIRST_SUBJECT + i, ("train", "val", "test")[i % 3], draw) for i in range(RECORDS)]
    futures = [_with_future(patient, draw) for patient in pasts]
    without, with_ = (_prompts(tmp_path / name, found, layout) for name, found in (("without", pasts), ("with", futures)))
    assert len(without) > RECORDS / 2
    assert without.keys() == with_.keys()
    differ = [id_ for id_, text in without.items() if with_[id_] != text]
    assert not differ, f"{len(differ)} of {len(without)} prompts differ"
    assert not any(str(PLANTED) in text for text in with_.values())


def _past(subject: int, split: str, draw: random.Random) -> Patient:
    """A record that ends with its question, which may come at any time of the day."""
    at = datetime(2014, draw.randint(1, 12), draw.randint(1, 28), draw.choice((0, 8, 15, 23)), draw.choice((0, 30, 59)))
    patient = Patient(subject, split, datetime(1950, 3, 2), draw.random() < 0.5)
    patient.add(patient.birth, "SNOMED/3950001", "person")
    patient.add(patient.birth, "Gender/F" if patient.female else "Gender/M", "person")
    ended = at - timedelta(days=draw.randint(20, 30))
    patient.add(ended - timedelta(days=4), "Visit/IP", "visit_occurrence", end=ended, visit=subject * 100)
    for second in range(draw.randint(1, 25)):  # no two at one time, whose order would be that of the rows
        before = timedelta(minutes=draw.choice((0, 1, 700, 40_000)) + draw.choice((0, 0, draw.randint(1, 900))))
        patient.events.append(_event(at - before + timedelta(seconds=second + 1), draw))
    if draw.random() < 0.7:  # goes on at the time of the question
        patient.add(at - timedelta(hours=draw.randint(1, 90)), "Visit/IP", "visit_occurrence", visit=subject * 100 + 1)
    if draw.random() < 0.5:  # known by its date: the day before, or on the last minute of its day
        day = at.date() if at.time() == time(23, 59) else at.date() - timedelta(days=1)
        patient.events.append(replace(_event(datetime.combine(day, time()), draw), dated=True))
    patient.label(SUBTASK, at, draw.random() < 0.5)
    return patient


def _with_future(past: Patient, draw: random.Random) -> Patient:
    """The same record, and what came after."""
    at = past.labels[SUBTASK][0].time
    later = [at + timedelta(minutes=m, seconds=s) for s, m in enumerate((1, 1, draw.randint(2, 600), draw.randint(600, 500_000)))]
    events = [_ended(e, at, draw) for e in past.events]
    events += [replace(_event(when, draw), value=float(PLANTED)) for when in later]
    events += [Event(when + timedelta(minutes=1), f"SNOMED/{PLANTED}", "condition_occurrence") for when in later]
    events.append(Event(later[2] + timedelta(minutes=1), KNOWN[0], "measurement", value=f"found {PLANTED}"))
    events.append(Event(later[0], "Visit/IP", "visit_occurrence", end=later[3] + timedelta(days=9), visit=past.subject * 100 + 2))
    if at.time() < time(23, 59):  # of this very day, so known only at its end
        events.append(Event(datetime.combine(at.date(), time()), f"SNOMED/{PLANTED}", "condition_occurrence", dated=True))
    found = Patient(past.subject, past.split, past.birth, past.female, events, past.labels)
    draw.shuffle(found.events)
    found.events.sort(key=lambda e: e.time)
    return found


def _event(when: datetime, draw: random.Random) -> Event:
    code = draw.choice(KNOWN)
    table = TABLE[code.split("/")[0]]
    number = table == "measurement"
    return Event(when, code, table, value=float(draw.randint(1, 90)) if number else None, unit="g/dL" if number else None)


def _ended(event: Event, at: datetime, draw: random.Random) -> Event:
    """What goes on at the time of the question ends after it, or on its day, of which only the date is told."""
    if event.end is None and event.table in ("visit_occurrence", "drug_exposure", "condition_occurrence"):
        late = [at + timedelta(minutes=minutes) for minutes in (1, 700, 30_000)]
        today = [datetime.combine(at.date(), time())] * (at.time() < time(23, 59))
        return replace(event, end=draw.choice(late + today))
    return event


def _prompts(folder: Path, found: list[Patient], layout: str) -> Mapping[int, str]:
    """Prompt of every example by its subject."""
    synthetic.write_patients(folder, found, random.Random(1), layout)
    if layout == "omop":  # has no label files of its own
        rows = [{"subject_id": p.subject, "prediction_time": lb.time, "boolean_value": lb.value} for p in found for lb in _labels(p)]
        (folder / "labels" / SUBTASK).mkdir(parents=True)
        schema = pa.schema([("subject_id", pa.int64()), ("prediction_time", pa.timestamp("us")), ("boolean_value", pa.bool_())])
        pq.write_table(pa.Table.from_pylist(rows, schema=schema), folder / "labels" / SUBTASK / "labels.parquet")
    examples = data.read(folder, DataSpec(subtasks=(SUBTASK,), max_prompt_tokens=1500), 1, words).examples
    key = readers.key_of(folder)
    subjects = {data.group_of(key, p.subject): p.subject for p in found}
    return {subjects[e.group]: e.messages[0]["content"] for e in examples}


def _labels(patient: Patient) -> list[Label]:
    return patient.labels[SUBTASK]
