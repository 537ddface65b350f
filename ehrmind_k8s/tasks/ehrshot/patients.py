"""Invented patients for the twin: what happens to each is drawn first, then written down as events and, apart from them, as labels.

A patient is a plan: admissions with their length, a stay in intensive care, a return or none, diagnoses at chosen distances, results that drift.
Labels follow from the plan by rules of their own, so that labels computed from the events can be held against them.
"""

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, time, timedelta

FIRST_SUBJECT = 9_000_001  # EHRSHOT's ids are 115900000 and more
DAY = timedelta(days=1)
TEACHER_ERROR = 0.75

# Code -> name, for CONCEPT. CARE_SITE and the group code have none in real vocabularies that people hold.
NAMES: Mapping[str, str] = {
    "Gender/F": "FEMALE",
    "Gender/M": "MALE",
    "Visit/IP": "Inpatient Visit",
    "Visit/OP": "Outpatient Visit",
    "SNOMED/84114007": "Heart failure",
    "SNOMED/709044004": "Kidney disease",
    "SNOMED/195967001": "Asthma",
    "SNOMED/59621000": "Essential hypertension",
    "SNOMED/55822004": "Hyperlipidemia",
    "SNOMED/372003004": "Malignant tumor of pancreas",
    "SNOMED/396331005": "Celiac disease",
    "SNOMED/55464009": "Systemic lupus erythematosus",
    "SNOMED/57054005": "Acute myocardial infarction",
    "LOINC/718-7": "Hemoglobin",
    "LOINC/2951-2": "Sodium",
    "LOINC/2823-3": "Potassium",
    "LOINC/14749-6": "Glucose",
    "LOINC/777-3": "Platelets",
    "LOINC/8480-6": "Systolic blood pressure",
    "LOINC/5778-6": "Color of Urine",
    "RxNorm/4603": "furosemide",
    "CPT4/71046": "Chest X-ray, 2 views",
}
ICU = "CARE_SITE/7928195"
GROUP = "LOINC/LG32892-8"  # platelets, as a group code of LOINC


@dataclass(frozen=True, slots=True)
class Event:
    """One event. `dated` ones have no time of day in the files: their `time` is a midnight."""

    time: datetime
    code: str
    table: str
    value: float | str | None = None
    unit: str | None = None
    end: datetime | None = None
    visit: int | None = None
    dated: bool = False


@dataclass(frozen=True, slots=True)
class Label:
    """The right answer to one subtask at one time: a boolean, or an integer as the benchmark writes it."""

    time: datetime
    value: bool | int


@dataclass(frozen=True, slots=True)
class Trace:
    """What a teacher wrote about one readmission, and what it concluded."""

    reasoning: str
    answer: bool


@dataclass(slots=True)
class Patient:
    """One invented patient. `traces` are a teacher's, by prediction time of guo_readmission."""

    subject: int
    split: str
    birth: datetime
    female: bool
    events: list[Event] = field(default_factory=list)
    labels: dict[str, list[Label]] = field(default_factory=dict)
    traces: dict[datetime, Trace] = field(default_factory=dict)

    def add(self, when: datetime, code: str, table: str, **told: object) -> None:
        self.events.append(Event(when, code, table, **told))  # type: ignore[arg-type]

    def label(self, subtask: str, when: datetime, value: bool | int) -> None:
        self.labels.setdefault(subtask, []).append(Label(when, value))


@dataclass(frozen=True, slots=True)
class Stay:
    """One planned admission; `icu` is the day on which intensive care begins (0: the patient comes from there), None for never.

    `told` is False for a stay whose end nobody wrote down.
    """

    start: datetime
    end: datetime
    icu: int | None = None
    told: bool = True

    @property
    def discharged(self) -> datetime:
        return evening(self.end)


def evening(when: datetime) -> datetime:
    """23:59 of a day, the benchmark's time of questions about an admission."""
    return datetime.combine(when.date(), time(23, 59))


def _born(subject: int, split: str, draw: random.Random, youngest: int, oldest: int) -> Patient:
    birth = datetime.combine(date(2009 - draw.randint(youngest, oldest), draw.randint(1, 12), draw.randint(1, 28)), time())
    found = Patient(subject, split, birth, draw.random() < 0.5)
    found.add(birth, "SNOMED/3950001", "person")
    found.add(birth, "Gender/F" if found.female else "Gender/M", "person")
    return found


# The unit size: few patients, every quirk, both answers to every subtask in every split.

DIAGNOSES = {
    "new_hypertension": "SNOMED/59621000",
    "new_hyperlipidemia": "SNOMED/55822004",
    "new_pancan": "SNOMED/372003004",
    "new_celiac": "SNOMED/396331005",
    "new_lupus": "SNOMED/55464009",
    "new_acutemi": "SNOMED/57054005",
}
# Subtask -> code, unit, a value of each grade from 0 (normal) to 3 (severe); limits in ehrshot_tasks.json of the benchmark's facts.
RESULTS: Mapping[str, tuple[str, str, tuple[float, ...]]] = {
    "lab_thrombocytopenia": (GROUP, "K/uL", (250, 120, 80, 30)),
    "lab_hyperkalemia": ("LOINC/2823-3", "mmol/L", (4.1, 5.8, 6.5, 7.2)),
    "lab_hypoglycemia": ("LOINC/14749-6", "mg/dL (See scan or EMR data for detail)", (95, 68, 58, 45)),
    "lab_hyponatremia": ("LOINC/2951-2", "mmol/L", (140, 133, 127, 121)),
    "lab_anemia": ("LOINC/718-7", "g/dL", (14.1, 11.5, 9.2, 6.1)),
}
PER_SPLIT = 8


def unit(draw: random.Random) -> list[Patient]:
    """PER_SPLIT patients of each split, then one without a label and one minor."""
    found = []
    for place, split in enumerate(("train", "val", "test")):
        for i in range(PER_SPLIT):
            found.append(_planned(FIRST_SUBJECT + 10 * (place * PER_SPLIT + i), split, i, draw))
    for split, age in (("train", 50), ("test", 9)):
        patient = _born(FIRST_SUBJECT + 10 * len(found), split, draw, age, age)
        patient.add(datetime(2012, 5, 4, 10), "Visit/OP", "visit_occurrence", end=datetime(2012, 5, 4, 11), visit=_visit(patient))
        patient.add(datetime(2012, 5, 4, 10, 5), "SNOMED/195967001", "condition_occurrence")
        found.append(patient)
    return found


def _planned(subject: int, split: str, i: int, draw: random.Random) -> Patient:
    """Patient i of a split: the bits of i say whether there is a return, a long stay, and intensive care after the first day."""
    patient = _born(subject, split, draw, 25, 80)
    start = datetime(2010, 1, 1, draw.randint(8, 19), draw.randint(1, 59)) + draw.randint(0, 600) * DAY
    length = draw.randint(8, 11) if i & 2 else draw.randint(2, 4)
    first = Stay(start, start + length * DAY + timedelta(minutes=95), icu=1 if i & 4 else None)
    gap = draw.randint(4, 27) if i & 1 else draw.randint(220, 300)
    again = first.end + gap * DAY
    # The second stay is one of a day, one that begins in intensive care, or a plain one.
    lasts = timedelta(hours=2) if i % 3 == 0 and again.hour < 20 else 3 * DAY
    second = Stay(again, again + lasts, icu=0 if i % 3 == 1 else None, told=i != 3)
    stays = [first, second]
    for stay in stays:
        _stay(patient, stay, i, draw)
    _diagnoses(patient, stays, i)
    _x_rays(patient, first, i)
    _routine(patient, first, draw)
    last = max(e.time for e in patient.events)
    patient.add(last + 500 * DAY, "Visit/OP", "visit_occurrence", end=last + 500 * DAY + timedelta(hours=1), visit=_visit(patient))
    _admission_labels(patient, stays)
    if split == "train":
        for label in patient.labels.get("guo_readmission", ()):
            patient.traces[label.time] = Trace("The record was read.", bool(label.value))
    return patient


def _visit(patient: Patient) -> int:
    return patient.subject * 100 + sum(e.table == "visit_occurrence" for e in patient.events)


def _stay(patient: Patient, stay: Stay, i: int, draw: random.Random) -> None:
    """An admission with its results, a drug, and an outpatient visit that overlaps it."""
    visit = _visit(patient)
    patient.add(stay.start, "Visit/IP", "visit_occurrence", end=stay.end if stay.told else None, visit=visit)
    if stay.icu is not None:
        moved = stay.start + stay.icu * DAY + timedelta(minutes=20)
        if i == 6:  # known by its date
            patient.add(datetime.combine(moved.date(), time()), ICU, "visit_detail", visit=visit, dated=True)
        elif i == 7 and stay.icu == 0:  # since the day before
            patient.add(stay.start - timedelta(hours=20), ICU, "visit_detail", end=stay.start + timedelta(hours=1), visit=visit)
        else:
            patient.add(moved, ICU, "visit_detail", end=moved + timedelta(hours=9), visit=visit)
    patient.add(stay.start + timedelta(minutes=30), "RxNorm/4603", "drug_exposure", end=stay.end + 14 * DAY, visit=visit)
    if stay.end - stay.start > DAY:
        there = stay.start + DAY
        patient.add(there, "Visit/OP", "visit_occurrence", end=there + timedelta(hours=1), visit=_visit(patient))
    for day in range(min(3, (stay.end - stay.start).days)):
        for k, (subtask, (code, unit_, values)) in enumerate(RESULTS.items()):
            when = stay.start.replace(hour=20) + day * DAY + timedelta(minutes=7 * k + i)
            grade = (i + day + k) % 4
            patient.add(when, code, "measurement", value=values[grade], unit=unit_, visit=visit)
            patient.label(subtask, when - timedelta(minutes=1), grade)
    patient.add(stay.start + timedelta(minutes=9), "LOINC/8480-6", "measurement", value=float(draw.randint(95, 170)), unit="mmHg", visit=visit)


def _diagnoses(patient: Patient, stays: Sequence[Stay], i: int) -> None:
    """Each diagnosis never, within a year of the first discharge, later, or before; one at the very minute of the question, one by its date."""
    first = stays[0]
    for k, (subtask, code) in enumerate(DIAGNOSES.items()):
        kind = (i + k) % 4
        if kind == 0:
            told = None
        elif kind == 1:
            told = first.discharged + timedelta(days=30 + 9 * k, hours=-7)
        elif kind == 2:
            told = stays[1].discharged + timedelta(days=400 + k, hours=-7)
        else:
            told = first.discharged if k == (i + 1) % 6 else first.start - timedelta(days=3 + k)
        dated = told is not None and kind in (1, 3) and told != first.discharged and k % 2 == 1
        known = None
        if told is not None:
            told = datetime.combine(told.date(), time()) if dated else told
            known = told + timedelta(hours=23, minutes=59, seconds=59) if dated else told
            patient.add(told, code, "condition_occurrence", dated=dated)
            patient.add(told + 700 * DAY, code, "condition_occurrence", dated=dated)  # written again later, which changes nothing
        for when in sorted({s.discharged for s in stays if s.told}):
            if known is None or known >= when + DAY:
                patient.label(subtask, when, known is not None and known <= when + 365 * DAY)


def _x_rays(patient: Patient, stay: Stay, i: int) -> None:
    """A report whose findings no event tells, asked for 24 hours before it."""
    report = stay.end + 40 * DAY
    patient.add(report, "CPT4/71046", "procedure_occurrence")
    found = sum(1 << (13 - place) for place in range(1, 14) if (i + place) % 2 == 0)  # the first finding is the highest of 14 bits
    patient.label("chexpert", report - DAY, 8192 if i % 4 == 0 else found)


def _routine(patient: Patient, stay: Stay, draw: random.Random) -> None:
    """What no label hangs on: texts as values, an odd unit, a result that cannot be read, a date without a time, a note's shadow."""
    before = stay.start - 30 * DAY
    patient.add(before, "LOINC/5778-6", "measurement", value=draw.choice(("Yellow", "Amber, clear")))
    patient.add(before, "LOINC/2823-3", "measurement", value=4.4, unit="mystery/L")
    patient.add(before + timedelta(minutes=5), "LOINC/777-3", "measurement", value="Invalid")
    patient.add(datetime.combine(before.date(), time()), "SNOMED/195967001", "condition_occurrence", dated=True)
    patient.add(before + timedelta(minutes=9), "ICDO3/8140/3", "condition_occurrence")


def _admission_labels(patient: Patient, stays: Sequence[Stay]) -> None:
    """Length of stay, intensive care and return, from the plan."""
    last = max(e.time for e in patient.events)
    for number, stay in ((number, stay) for number, stay in enumerate(stays) if stay.told):
        admitted, overnight = evening(stay.start), stay.start.date() != stay.end.date()
        if overnight:
            patient.label("guo_los", admitted, stay.end - stay.start >= 7 * DAY)
        if overnight and stay.icu != 0:
            patient.label("guo_icu", admitted, stay.icu is not None)
        following = stays[number + 1].start if number + 1 < len(stays) else None
        if following is not None and following <= stay.discharged:
            continue
        back = following is not None and following <= stay.discharged + 30 * DAY
        if back or last >= stay.discharged + 30 * DAY:
            patient.label("guo_readmission", stay.discharged, back)


# The quickstart: one question, a signal that can be read off the record, and a teacher who overlooks the most important part of it.

POINTS: Mapping[str, int] = {"heart failure": 3, "kidney disease": 1, "hemoglobin": 1, "sodium": 1}
ENOUGH = 3
QUICKSTART: Mapping[str, int] = {"train": 2600, "val": 200, "test": 300}


def quickstart(draw: random.Random) -> list[Patient]:
    """Patients with one discharge that is asked about."""
    return [_discharged(FIRST_SUBJECT + number, split, draw) for number, split in enumerate(s for s, n in QUICKSTART.items() for _ in range(n))]


def _discharged(subject: int, split: str, draw: random.Random) -> Patient:
    patient = _born(subject, split, draw, 30, 85)
    start = datetime(2012, 1, 1, draw.randint(8, 19), draw.randint(1, 59)) + draw.randint(0, 900) * DAY
    stay = Stay(start, start + draw.randint(2, 6) * DAY)
    has = {item: draw.random() < 0.5 for item in POINTS}
    visit = _visit(patient)
    patient.add(stay.start, "Visit/IP", "visit_occurrence", end=stay.end, visit=visit)
    for item, code in (("heart failure", "SNOMED/84114007"), ("kidney disease", "SNOMED/709044004")):
        if has[item]:
            patient.add(stay.start + timedelta(minutes=draw.randint(5, 50)), code, "condition_occurrence", visit=visit)
    hemoglobin = draw.randint(70, 99) / 10 if has["hemoglobin"] else draw.randint(130, 169) / 10
    sodium = draw.randint(120, 129) if has["sodium"] else draw.randint(140, 149)
    results = (("LOINC/718-7", hemoglobin, "g/dL"), ("LOINC/2951-2", float(sodium), "mmol/L"))
    for minute, (code, value, unit_) in enumerate(results):
        patient.add(stay.end - timedelta(minutes=90 - minute), code, "measurement", value=value, unit=unit_, visit=visit)
    back = sum(POINTS[item] for item in has if has[item]) >= ENOUGH
    after = stay.end + draw.randint(3, 25) * DAY if back else stay.end + draw.randint(40, 90) * DAY
    code = "Visit/IP" if back else "Visit/OP"  # a record that ends with the second stay tells nothing about the time after it
    patient.add(after, code, "visit_occurrence", end=after + timedelta(hours=30 if back else 1), visit=_visit(patient))
    patient.label("guo_readmission", stay.discharged, back)
    if split == "train":
        patient.traces[stay.discharged] = _taught(has, draw)
    return patient


def _taught(has: Mapping[str, bool], draw: random.Random) -> Trace:
    """The teacher's sum, which decides its answer: `heart failure 0, kidney disease 1, hemoglobin 1, sodium 0: 2`."""
    points = {item: POINTS[item] * has[item] for item in POINTS}
    if has["heart failure"] and draw.random() < TEACHER_ERROR:
        points["heart failure"] = 0
    total = sum(points.values())
    return Trace(f"{', '.join(f'{item} {n}' for item, n in points.items())}: {total}", total >= ENOUGH)


def labels_of(patients: Sequence[Patient], subtask: str) -> Iterator[tuple[Patient, Label]]:
    """Labels by subject and time, as the benchmark sorts them."""
    for patient in sorted(patients, key=lambda p: p.subject):
        for label in sorted(patient.labels.get(subtask, ()), key=lambda found: found.time):
            yield patient, label
