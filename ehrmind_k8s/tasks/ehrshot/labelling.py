"""Labels computed from events, for records that come without label files, and as a check of those that come with them.

An admission is the start of an inpatient visit (`outcomes.INPATIENT`), whether or not the source knows its end; a stay is one with an end
after its start, and questions are asked about stays alone. Discharge day and admission day are calendar days; 23:59 of a day is the prediction
time of everything about a stay. A patient leaves hospital if no other stay goes on at that time, none began on that day since, and the patient
lives. By subtask, with what is left out ("no label"):

    guo_los           23:59 of the admission day; positive: end - start >= 7 days.    No label: discharged on the day of admission.
    guo_icu           23:59 of the admission day; positive: an ICU stay starts between then and discharge.
                      No label: discharged, or in ICU, on the day of admission.
    guo_readmission   23:59 of the discharge day; positive: an admission starts 1 minute to 30 days later.
                      No label: does not leave hospital; record ends within the 30 days without an admission or a death (censored).
    new_*             23:59 of each discharge day; positive: the first diagnosis ever falls 1 to 365 days later.
                      No label: does not leave hospital; diagnosed by then, or within the next day. A record that ends early counts as
                      negative, as in the benchmark.
    lab_*             one minute before each result that can be read, none for results at the time of the very first event.
                      Positive: grade mild or worse. No label: a unit that is not known (potassium, glucose, hemoglobin need one).

Where the benchmark's code departs from its own description we follow the description: its code keeps stays whose patient returned later on
the discharge day, and counts a diagnosis within the first day as positive when its code is written again later; and it takes a death for the
end of a record that might have gone on. Findings of chest X-rays are read from reports, which records do not hold, so `chexpert` cannot be computed.
"""

from collections.abc import Callable

import numpy as np

from ehrmind_k8s.tasks.ehrshot.labels import Labels
from ehrmind_k8s.tasks.ehrshot.outcomes import ROOTS, Vocabulary
from ehrmind_k8s.tasks.ehrshot.timeline import TABLES, Timeline

DAY, MINUTE = np.timedelta64(1, "D"), np.timedelta64(1, "m")
LONG_STAY = 7 * DAY
READMISSION = (MINUTE, 30 * DAY)
DIAGNOSIS = (DAY, 365 * DAY)
NORMAL_WORDS = ("normal", "adequate")  # what laboratories write instead of a count
COMPUTED = ("guo_los", "guo_readmission", "guo_icu", *ROOTS)
IN_THE_EVENING = tuple(name for name in COMPUTED if not name.startswith("lab_"))  # asked at 23:59

_VISIT, _DETAIL, _DEATH = (TABLES.index(name) for name in ("visit_occurrence", "visit_detail", "death"))
# Beginning of the unit (lower case) -> factor to the unit of the limit. None: the benchmark reads the number whatever the unit.
# It divides potassium in mg/dL by 18, which is glucose's factor; no laboratory reports that, so it counts as unknown here.
_UNITS: dict[str, dict[str, float] | None] = {
    "lab_thrombocytopenia": None,
    "lab_hyponatremia": None,
    "lab_hyperkalemia": {"mmol/l": 1, "meq/l": 1},
    "lab_hypoglycemia": {"mg/dl": 1 / 18, "mmol/l": 1},
    "lab_anemia": {"g/dl": 10, "mg/dl": 1 / 100, "g/l": 1},
}
# Limits of grade mild, in the benchmark's units: 10^9/L, mmol/L, mmol/L, mmol/L, g/L.
_POSITIVE: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "lab_thrombocytopenia": lambda v: v < 150,
    "lab_hyponatremia": lambda v: v <= 135,
    "lab_hyperkalemia": lambda v: v > 5.5,
    "lab_hypoglycemia": lambda v: v <= 3.9,
    "lab_anemia": lambda v: v < 120,
}


def refusal(subtask: str, vocabulary: Vocabulary, visits_end: bool) -> str | None:
    """Why a source's events cannot tell a subtask's labels; None where they can. `visits_end`: the source says when visits end."""
    if subtask not in COMPUTED:
        return f"computable: {', '.join(COMPUTED)}"
    if not subtask.startswith("lab_") and not visits_end:
        return "the source does not say when visits end"
    if subtask == "guo_icu" and not vocabulary.icu.any():
        return "no code of the source says intensive care"
    return None


def compute(timeline: Timeline, subtask: str, vocabulary: Vocabulary) -> Labels:
    """All labels of one subject for a subtask of COMPUTED, sorted by time."""
    if subtask.startswith("lab_"):
        return _laboratory(timeline, subtask, vocabulary)
    if subtask.startswith("new_"):
        return _diagnosis(timeline, vocabulary.outcome(subtask), vocabulary)
    return {"guo_los": _stay, "guo_icu": _icu, "guo_readmission": _readmission}[subtask](timeline, vocabulary)


def admissions(timeline: Timeline, vocabulary: Vocabulary) -> tuple[np.ndarray, np.ndarray]:
    """Starts and ends (NaT for one that is not known) of A inpatient visits, by start."""
    return _spans(timeline, (timeline.table == _VISIT) & vocabulary.inpatient[timeline.code])


def stays(timeline: Timeline, vocabulary: Vocabulary) -> tuple[np.ndarray, np.ndarray]:
    """Starts and ends of the S admissions that can be asked about: an end is known, and it comes after the start."""
    start, end = admissions(timeline, vocabulary)
    return start[end > start], end[end > start]


def _stay(timeline: Timeline, vocabulary: Vocabulary) -> Labels:
    start, end = stays(timeline, vocabulary)
    kept = _day(start) != _day(end)
    return _labels(timeline, _evening(start)[kept], (end - start >= LONG_STAY)[kept])


def _icu(timeline: Timeline, vocabulary: Vocabulary) -> Labels:
    start, end = stays(timeline, vocabulary)
    moved, back = _spans(timeline, (timeline.table == _DETAIL) & vocabulary.icu[timeline.code])
    time, left = _evening(start)[:, None], np.where(_dated(moved)[None, :], _evening(end)[:, None], end[:, None])
    there: np.ndarray = (_day(moved) <= _day(start)[:, None]) & (_day(np.fmax(moved, back)) >= _day(start)[:, None])
    kept: np.ndarray = (_day(start) != _day(end)) & ~there.any(axis=1)
    value = np.asarray(((moved >= time) & (moved <= left)).any(axis=1))
    return _labels(timeline, _evening(start)[kept], value[kept])


def _readmission(timeline: Timeline, vocabulary: Vocabulary) -> Labels:
    start, _ = admissions(timeline, vocabulary)
    time = _discharges(timeline, vocabulary)
    value = _within(start, time, *READMISSION)
    seen = value | (_last(timeline) >= time + READMISSION[1]) | _within(_deaths(timeline, vocabulary), time, *READMISSION)
    return _labels(timeline, time[seen], value[seen])


def _discharges(timeline: Timeline, vocabulary: Vocabulary) -> np.ndarray:
    """The evenings of days on which the patient leaves hospital, once each.

    A visit without an end goes on as long as the stay does in which it began; the next stay says that one before it is over.
    """
    starts, ends = admissions(timeline, vocabulary)
    start, end = (at[:, None] for at in stays(timeline, vocabulary))
    evening = _evening(end)
    again = (starts >= end) & (starts <= evening)
    goes_on = (starts <= evening) & ((ends > evening) | (np.isnat(ends) & (starts > start)))
    dead = _deaths(timeline, vocabulary) <= evening
    here = (again | goes_on).any(axis=1) | dead.any(axis=1)
    return np.setdiff1d(evening, evening[here])


def _diagnosis(timeline: Timeline, outcome: np.ndarray, vocabulary: Vocabulary) -> Labels:
    time = _discharges(timeline, vocabulary)
    told = timeline.time[outcome[timeline.code] & ~np.isnat(timeline.time)]
    if not len(told):
        return _labels(timeline, time, np.zeros(len(time), dtype=bool))
    first = _minute(told).min()
    time = time[first >= time + DIAGNOSIS[0]]
    return _labels(timeline, time, first <= time + DIAGNOSIS[1])


def _laboratory(timeline: Timeline, subtask: str, vocabulary: Vocabulary) -> Labels:
    timed = ~np.isnat(timeline.time)
    rows = np.flatnonzero(vocabulary.outcome(subtask)[timeline.code] & timed)
    if not len(rows):
        return _labels(timeline, timeline.time[:0], np.zeros(0, dtype=bool))
    rows = rows[timeline.time[rows] > timeline.time[timed].min()]
    value = timeline.value[rows] * _factor(timeline, subtask, rows)
    normal = np.array([i >= 0 and timeline.names.texts[i].strip().lower() in NORMAL_WORDS for i in timeline.text[rows]], dtype=bool)
    positive = np.zeros(len(rows), dtype=bool)
    read = ~np.isnan(value)
    positive[read] = _POSITIVE[subtask](value[read])
    kept = read | normal
    return _labels(timeline, (timeline.time[rows] - MINUTE)[kept], positive[kept])


def _factor(timeline: Timeline, subtask: str, rows: np.ndarray) -> np.ndarray:
    """To the unit of the limits; NaN for a unit that is not known. Some units go on: `mg/dL (See scan or EMR data for detail)`."""
    units = _UNITS[subtask]
    if units is None:
        return np.ones(len(rows))
    known = {i: _factor_of(timeline.names.units[i], units) if i >= 0 else np.nan for i in set(timeline.unit[rows].tolist())}
    return np.array([known[i] for i in timeline.unit[rows].tolist()], dtype=float)


def _factor_of(unit: str, units: dict[str, float]) -> float:
    return next((factor for name, factor in units.items() if unit.strip().lower().startswith(name)), float("nan"))


def _spans(timeline: Timeline, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Starts and ends (NaT for one that is not known) of events, by start."""
    kept = rows & ~np.isnat(timeline.time)
    start, end = _minute(timeline.time[kept]), _minute(timeline.end[kept])
    order = np.argsort(start, kind="stable")
    return start[order], end[order]


def _deaths(timeline: Timeline, vocabulary: Vocabulary) -> np.ndarray:
    """When the source says that the patient died, by time; more than once if it says so twice."""
    told = (timeline.table == _DEATH) | vocabulary.death[timeline.code]
    return np.sort(_minute(timeline.time[told & ~np.isnat(timeline.time)]))


def _dated(time: np.ndarray) -> np.ndarray:
    """Which starts are the last minute of a day, which stands for a date without a time: it may have been at any time of that day."""
    found: np.ndarray = time == _evening(time)
    return found


def _within(events: np.ndarray, time: np.ndarray, after: np.timedelta64, until: np.timedelta64) -> np.ndarray:
    """Whether one of `events` (sorted) lies in [t + after, t + until], for each t of `time`."""
    return np.searchsorted(events, time + until, side="right") > np.searchsorted(events, time + after, side="left")


def _labels(timeline: Timeline, time: np.ndarray, value: np.ndarray) -> Labels:
    order = np.argsort(time, kind="stable")
    return Labels(np.full(len(time), timeline.subject, dtype=np.int64), _minute(time[order]), value[order].astype(np.int64))


def _last(timeline: Timeline) -> np.datetime64:
    timed = _minute(timeline.time[~np.isnat(timeline.time)])
    return timed.max() if len(timed) else np.datetime64("NaT")


def _minute(time: np.ndarray) -> np.ndarray:
    """To the minute, as labels are: a date without a time of day is known at 23:59:59, which is 23:59."""
    return time.astype("datetime64[m]").astype("datetime64[s]")


def _day(time: np.ndarray) -> np.ndarray:
    return time.astype("datetime64[D]")


def _evening(time: np.ndarray) -> np.ndarray:
    """23:59 of the day."""
    return (_day(time) + DAY).astype("datetime64[s]") - MINUTE
