"""No future information: what happens after the question does not change its prompt, in any layout.

Records are made in pairs, one with a future and one without, and both are read from files. Their prompts must be the same text. A future is
of one kind, or of all; `FUTURES` names the kinds. `make test-faults` makes 10,000 records.
"""

import os
import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, time, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ehrmind_k8s.errors import DataError
from ehrmind_k8s.spec import DataSpec
from ehrmind_k8s.tasks.base import words
from ehrmind_k8s.tasks.ehrshot import data, synthetic
from ehrmind_k8s.tasks.ehrshot.patients import FIRST_SUBJECT, ICU, Event, Label, Patient, evening

RECORDS = 10_000 if os.environ.get("EHRMIND_FAULTS") == "1" else 300
OF_A_KIND = RECORDS // 5
SUBTASK = "guo_los"
KNOWN = ("LOINC/718-7", "LOINC/2951-2", "SNOMED/195967001", "RxNorm/4603", "CPT4/71046")
TABLE = {"LOINC": "measurement", "SNOMED": "condition_occurrence", "RxNorm": "drug_exposure", "CPT4": "procedure_occurrence"}
DATED = (
    *("visit_occurrence", "visit_detail", "condition_occurrence", "drug_exposure", "procedure_occurrence", "measurement"),
    *("observation", "device_exposure", "death"),
)
PLANTED = 98765  # a value, and part of codes and texts, that no past holds
DAY = timedelta(days=1)

Future = Callable[[Patient, str, random.Random], list[Event]]  # the events of a record with what comes, of its layout


@pytest.mark.parametrize("layout", synthetic.LAYOUTS)
def test_what_happens_after_the_question_does_not_change_the_prompt(layout: str, tmp_path: Path) -> None:
    _same(layout, tuple(FUTURES.values()), RECORDS, tmp_path)


def _seconds_later(past: Patient, layout: str, draw: random.Random) -> list[Event]:
    """The benchmark's times are minutes, all others mean their very second."""
    first = _at(past) + timedelta(seconds=60 if layout == "ehrshot" else 1)
    when = [first, first + timedelta(seconds=28), first + timedelta(seconds=58)]
    return [*past.events, *(_planted(t, draw) for t in when), *(_new(t) for t in when)]


def _later(past: Patient, layout: str, draw: random.Random) -> list[Event]:
    later = [_at(past) + timedelta(minutes=m, seconds=s) for s, m in enumerate((1, 1, draw.randint(2, 600), draw.randint(600, 500_000)))]
    events = [*past.events, *(_planted(t, draw) for t in later), *(_new(t + timedelta(minutes=1)) for t in later)]
    events.append(Event(later[2] + timedelta(minutes=1), KNOWN[0], "measurement", value=f"found {PLANTED}"))
    events.append(Event(later[0], "Visit/IP", "visit_occurrence", end=later[3] + 9 * DAY, visit=past.subject * 100 + 2))
    return events


def _dates_of_the_day(past: Patient, layout: str, draw: random.Random) -> list[Event]:
    """In every table something of the very day, so known only at its end."""
    if _day_is_over(_at(past), layout):
        return past.events
    midnight = datetime.combine(_at(past).date(), time())
    tables = (*DATED, *(("person",) if layout != "omop" else ()))
    dated = [Event(midnight, f"SNOMED/{PLANTED}{i}", table, dated=True, visit=past.subject * 100 + 20 + i) for i, table in enumerate(tables)]
    return [*past.events, *(replace(e, end=midnight) if e.table.startswith("visit") else e for e in dated)]


def _ends(past: Patient, layout: str, draw: random.Random) -> list[Event]:
    """What goes on at the time of the question ends after it, or on its day, of which only the date is told."""
    at = _at(past)
    late = [at + timedelta(seconds=60 if layout == "ehrshot" else 1), at + timedelta(minutes=700), at + timedelta(minutes=30_000)]
    today = [] if _day_is_over(at, layout) else [datetime.combine(at.date(), time())]
    tables = ("visit_occurrence", "drug_exposure", "condition_occurrence")
    return [replace(e, end=draw.choice(late + today)) if e.end is None and e.table in tables else e for e in past.events]


def _diagnoses_of_the_visit(past: Patient, layout: str, draw: random.Random) -> list[Event]:
    """A hospital writes the diagnoses of a stay at its end, and dates them on its first day."""
    events = list(past.events)
    for i, e in enumerate(events):
        if e.table == "visit_occurrence" and e.end is None and layout in ("omop", "meds_shards"):
            events[i] = replace(e, end=_at(past) + 3 * DAY)
            day = datetime.combine(e.time.date(), time())
            events.append(Event(day, f"SNOMED/{PLANTED}", "condition_occurrence", visit=e.visit, dated=True))
    return events


FUTURES: Mapping[str, Future] = {
    "seconds_later": _seconds_later,
    "later": _later,
    "dates_of_the_day": _dates_of_the_day,
    "ends": _ends,
    "diagnoses_of_the_visit": _diagnoses_of_the_visit,
}


@pytest.mark.parametrize("layout", synthetic.LAYOUTS)
@pytest.mark.parametrize("kind", FUTURES)
def test_no_kind_of_future_changes_the_prompt(kind: str, layout: str, tmp_path: Path) -> None:
    _same(layout, (FUTURES[kind],), OF_A_KIND, tmp_path)


@pytest.mark.parametrize("layout", ["meds", "meds_shards"])
def test_an_event_without_a_time_may_be_one_of_the_future_and_is_left_out(layout: str, tmp_path: Path) -> None:
    pasts = _pasts(layout, OF_A_KIND)
    without = _prompts(tmp_path / "without", pasts, layout)
    with_ = _written(tmp_path / "with", pasts, layout)
    path = next((tmp_path / "with").rglob("data*.parquet"))
    events = pq.read_table(path)
    subjects = sorted(set(events["subject_id"].to_pylist()))
    codes = (f"SNOMED/{PLANTED}", "MEDS_DEATH", "SNOMED/57054005")
    rows = [{"subject_id": s, "code": code, "text_value": f"found {PLANTED}"} for s in subjects for code in codes]
    pq.write_table(pa.concat_tables([events, pa.Table.from_pylist(rows, events.schema)]), path)
    assert _read(with_) == without
    assert data.read(with_, _settings(), 1, words).audit["events_left_out"]["without_a_time"] == len(rows)


@pytest.mark.parametrize("column", ["time", "end"])
def test_times_with_a_zone_are_refused_in_every_column(column: str, tmp_path: Path) -> None:
    """A clock of another zone is hours ahead of the label's."""
    source = _written(tmp_path, _pasts("meds_shards", 3), "meds_shards")
    path = next(source.rglob("data_0.parquet"))
    events = pq.read_table(path)
    place = events.schema.get_field_index(column)
    zoned = events[column].cast(pa.timestamp("us", "Asia/Tokyo"))
    pq.write_table(events.set_column(place, column, zoned), path)
    with pytest.raises(DataError, match=f"column {column} has the zone Asia/Tokyo"):
        data.read(source, _settings(), 1, words)


def test_the_part_of_a_second_after_the_question_is_the_future(tmp_path: Path) -> None:
    pasts = _pasts("meds", 30)
    for patient in pasts:
        at = _at(patient)
        patient.labels[SUBTASK] = [replace(patient.labels[SUBTASK][0], time=at.replace(microsecond=200_000))]
    without = _prompts(tmp_path / "without", pasts, "meds")
    for patient in pasts:
        patient.add(_at(patient).replace(microsecond=700_000), f"SNOMED/{PLANTED}", "condition_occurrence")
    assert _prompts(tmp_path / "with", [p for p in pasts if not _day_is_over(_at(p), "meds")], "meds") == [
        text for text, p in zip(without, pasts, strict=True) if not _day_is_over(_at(p), "meds")
    ]


# Labels that are computed from the very events that come after them.

AFTER: Mapping[str, tuple[str, str]] = {  # subtask -> code and table of what makes its label positive
    "guo_readmission": ("Visit/IP", "visit_occurrence"),
    "guo_icu": (ICU, "visit_detail"),
    "new_acutemi": ("SNOMED/57054005", "condition_occurrence"),
    "guo_los": ("", ""),
}


@pytest.mark.parametrize("layout", ["ehrshot", "meds_shards", "omop"])
@pytest.mark.parametrize("subtask", AFTER)
def test_a_label_computed_from_the_future_is_asked_without_it(subtask: str, layout: str, tmp_path: Path) -> None:
    """The same stay with its outcome and more, and cut off right after the question with a label from a file."""
    draw = random.Random(f"{subtask}:{layout}")
    stays = [_stay(FIRST_SUBJECT + i, subtask, draw) for i in range(40)]
    asked = [p.labels[subtask][0].time for p in stays]
    whole = [
        replace(p, events=_with_outcome(p, subtask, at, i % 2 == 1, draw), labels={}) for i, (p, at) in enumerate(zip(stays, asked, strict=True))
    ]
    settings = DataSpec(subtasks=(subtask,), labels="computed", labels_per_subject=None, test_fraction=1, split="by_subject", max_prompt_tokens=1500)
    source = _written(tmp_path / "whole", whole, layout)
    found = [(e.target["label"], e.messages[0]["content"]) for e in data.read(source, settings, 1, words).examples]
    assert [label for label, _ in found] == [i % 2 for i in range(40)]
    assert not any(str(PLANTED) in text for _, text in found)
    last = [
        replace(p, labels={subtask: [Label(at.replace(second=0 if layout == "ehrshot" else 59), False)]}) for p, at in zip(stays, asked, strict=True)
    ]
    given = settings.model_copy(update={"labels": "original"})
    assert [text for _, text in found] == _read(_written(tmp_path / "cut", last, layout, subtask), given)


def _stay(subject: int, subtask: str, draw: random.Random) -> Patient:
    """A record up to the evening on which `subtask` asks about its one admission."""
    patient = _born(subject, "test", draw)
    start = datetime(2014, draw.randint(1, 12), draw.randint(1, 28), draw.randint(6, 20), draw.randint(0, 59))
    end = start + timedelta(days=4, hours=draw.randint(-5, 3))
    leaves = subtask in ("guo_readmission", "new_acutemi")
    at = evening(end if leaves else start)
    patient.add(start - 200 * DAY, "Visit/OP", "visit_occurrence", end=start - 200 * DAY + timedelta(hours=1), visit=subject * 100)
    patient.add(start, "Visit/IP", "visit_occurrence", end=end if leaves else None, visit=subject * 100 + 1)
    patient.add(start + timedelta(minutes=draw.randint(1, 100)), "LOINC/718-7", "measurement", value=float(draw.randint(1, 90)), unit="g/dL")
    patient.events.append(Event(datetime.combine(start.date(), time()), KNOWN[2], "condition_occurrence", dated=True))
    patient.label(subtask, at, False)
    return patient


def _with_outcome(past: Patient, subtask: str, at: datetime, positive: bool, draw: random.Random) -> list[Event]:
    """The rest of the record: the outcome as early as can be or not at all, ends, and what is planted."""
    events = [replace(e, end=e.time + (9 if positive and subtask == "guo_los" else 4) * DAY) if e.end is None and e.visit else e for e in past.events]
    events += [Event(at + timedelta(seconds=60 + s), f"SNOMED/{PLANTED}", "condition_occurrence") for s in (0, 30)]
    events += [
        Event(at + 400 * DAY, f"SNOMED/{PLANTED}", "condition_occurrence"),
        Event(at + DAY + timedelta(hours=2), f"CPT4/{PLANTED}", "procedure_occurrence"),
    ]
    code, table = AFTER[subtask]
    if positive and code:
        dated = draw.random() < 0.5
        day = datetime.combine(at.date() + DAY, time())
        when = {"guo_readmission": at + timedelta(minutes=1), "guo_icu": at + timedelta(minutes=1), "new_acutemi": at + DAY}[subtask]
        events.append(Event(day if dated else when, code, table, dated=dated, visit=past.subject * 100 + 7 if table == "visit_occurrence" else None))
    return sorted(events, key=lambda e: e.time)


# Making the pairs.


def _same(layout: str, futures: Sequence[Future], size: int, folder: Path) -> None:
    pasts = _pasts(layout, size)
    draw = random.Random(f"{layout}:{size}:future")
    with_futures = []
    for past in pasts:
        events = past.events
        for future in futures:
            events = future(replace(past, events=events), layout, draw)
        draw.shuffle(events := list(events))
        with_futures.append(replace(past, events=sorted(events, key=lambda e: e.time)))
    without, with_ = (_prompts(folder / name, found, layout) for name, found in (("without", pasts), ("with", with_futures)))
    assert len(without) > size / 2
    assert len(without) == len(with_)
    differ = (Counter(without) - Counter(with_)).total()  # a larger source may have more buckets, and its subjects another order
    assert not differ, f"{differ} of {len(without)} prompts differ"
    assert not any(str(PLANTED) in text for text in with_)


def _pasts(layout: str, size: int) -> list[Patient]:
    draw = random.Random(f"{layout}:{size}")
    return [_past(FIRST_SUBJECT + i, ("train", "val", "test")[i % 3], layout, draw) for i in range(size)]


def _past(subject: int, split: str, layout: str, draw: random.Random) -> Patient:
    """A record that ends with its question, which may come at any time of the day."""
    at = datetime(2014, draw.randint(1, 12), draw.randint(1, 28), draw.choice((0, 8, 15, 23)), draw.choice((0, 30, 59)))
    if layout != "ehrshot":
        at = at.replace(second=draw.choice((0, 29, 59)))
    patient = _born(subject, split, draw)
    ended = at - timedelta(days=draw.randint(20, 30))
    patient.add(ended - timedelta(days=4), "Visit/IP", "visit_occurrence", end=ended, visit=subject * 100)
    taken = set()  # no two events at one time, whose order would be that of the rows
    for second in range(draw.randint(1, 25)):  # the first may be at the question
        before = timedelta(minutes=draw.choice((0, 1, 700, 40_000)) + draw.choice((0, 0, draw.randint(1, 900))), seconds=second)
        taken.add(at - before)
        patient.events.append(_event(at - before, draw))
    if draw.random() < 0.7:  # goes on at the time of the question
        patient.add(at - timedelta(hours=draw.randint(1, 90)), "Visit/IP", "visit_occurrence", visit=subject * 100 + 1)
    if draw.random() < 0.5:  # known by its date: the day before, or on the last moment of its day
        day = at.date() if _day_is_over(at, layout) else at.date() - DAY
        if datetime.combine(day, time(23, 59, 59)) not in taken:
            patient.events.append(replace(_event(datetime.combine(day, time()), draw), dated=True))
    patient.label(SUBTASK, at, draw.random() < 0.5)
    return patient


def _born(subject: int, split: str, draw: random.Random) -> Patient:
    patient = Patient(subject, split, datetime(1950, 3, 2), draw.random() < 0.5)
    patient.add(patient.birth, "SNOMED/3950001", "person")
    patient.add(patient.birth, "Gender/F" if patient.female else "Gender/M", "person")
    return patient


def _at(past: Patient) -> datetime:
    return past.labels[SUBTASK][0].time


def _day_is_over(at: datetime, layout: str) -> bool:
    """Whether what has but a date of this day is known."""
    return at.time() >= (time(23, 59) if layout == "ehrshot" else time(23, 59, 59))


def _event(when: datetime, draw: random.Random) -> Event:
    code = draw.choice(KNOWN)
    table = TABLE[code.split("/")[0]]
    number = table == "measurement"
    return Event(when, code, table, value=float(draw.randint(1, 90)) if number else None, unit="g/dL" if number else None)


def _planted(when: datetime, draw: random.Random) -> Event:
    return replace(_event(when, draw), value=float(PLANTED))


def _new(when: datetime) -> Event:
    return Event(when, f"SNOMED/{PLANTED}", "condition_occurrence")


def _settings() -> DataSpec:
    return DataSpec(subtasks=(SUBTASK,), labels_per_subject=None, max_prompt_tokens=1500)


def _prompts(folder: Path, found: Sequence[Patient], layout: str) -> list[str]:
    return _read(_written(folder, found, layout))


def _read(source: Path, settings: DataSpec | None = None) -> list[str]:
    """Prompt of every example, of one subject by time."""
    return [e.messages[0]["content"] for e in data.read(source, settings or _settings(), 1, words).examples]


def _written(folder: Path, found: Sequence[Patient], layout: str, subtask: str = SUBTASK) -> Path:
    synthetic.write_patients(folder, found, random.Random(1), layout)
    if layout == "omop" and any(p.labels for p in found):  # has no label files of its own
        rows = [{"subject_id": p.subject, "prediction_time": lb.time, "boolean_value": lb.value} for p in found for lb in p.labels[subtask]]
        (folder / "labels" / subtask).mkdir(parents=True)
        schema = pa.schema([("subject_id", pa.int64()), ("prediction_time", pa.timestamp("us")), ("boolean_value", pa.bool_())])
        pq.write_table(pa.Table.from_pylist(rows, schema=schema), folder / "labels" / subtask / "labels.parquet")
    return folder
