"""A record as text within a budget of tokens: what was known, the most recent first, days before now instead of dates.

    Patient:
    - Age: 63 years
    - Gender: female
    Visits:
    - Inpatient visit (since 3 days ago)
    - Emergency visit (40 days ago, for 1 day)
    Measurements:
    - Hemoglobin: 9.8 g/dL (today), earlier 10.1, 11.2

A record holds thousands of events and a prompt some hundred lines. Each visit is one line; of everything else each code is one, with its last
value, up to EARLIER values before it, and how long ago the last was. Sections have shares of the budget; what one does not spend goes to those
after it, then once more to all by priority. Every event is accounted for, in `kept` or in `dropped`.

No calendar date is written: neither the days that pass until an outcome nor a year that a model knows can be read off one. Ages of 90 and over
are one class (HIPAA Safe Harbor, 45 CFR 164.514(b)(2)(i)(C)).
"""

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np

from ehrmind_k8s.tasks.ehrshot.timeline import BIRTHS, TABLES, Timeline

EARLIER = 2  # values before the last one
OLDEST_AGE = 90
# Vocabularies whose codes say nothing by themselves. With a description they are shown as any other.
WITHOUT_MEANING = tuple(f"{v}/" for v in ("CARE_SITE", "ICDO3", "Domain", "Condition Type", "CMS Place of Service", "Medicare Specialty"))
# What sources without descriptions still need words for (OMOP vocabularies Visit and Gender).
STANDARD: Mapping[str, str] = {
    "Visit/IP": "Inpatient visit",
    "Visit/OP": "Outpatient visit",
    "Visit/ER": "Emergency visit",
    "Visit/ERIP": "Emergency and inpatient visit",
    "Gender/F": "female",
    "Gender/M": "male",
}
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}|[0-9]{1,2}[/.][0-9]{1,2}[/.][0-9]{2,4}")
_DAY = np.timedelta64(1, "D")

Count = Callable[[str], int]


@dataclass(frozen=True, slots=True)
class Section:
    """A part of the text. `share` is its part of the budget (of 1)."""

    name: str
    tables: tuple[str, ...]
    share: float

    @property
    def heading(self) -> str:
        return f"{self.name.capitalize()}:\n"


# In order of priority. Shares are ours: the parts of a record that clinical scores are made of come first.
PATIENT = Section("patient", ("person",), 1.0)
VISITS = Section("visits", ("visit_occurrence",), 0.1)
SECTIONS = (
    VISITS,
    Section("measurements", ("measurement",), 0.3),
    Section("conditions", ("condition_occurrence",), 0.25),
    Section("drugs", ("drug_exposure",), 0.15),
    Section("procedures", ("procedure_occurrence",), 0.12),
    Section("other", ("visit_detail", "observation", "device_exposure", "death", "note", "other"), 0.08),
)


@dataclass(frozen=True, slots=True)
class Text:
    """A record in words. `kept` counts events that the text shows, by section; `dropped` those that it does not, by reason.

    A reason is a section (no room left), `repeated` (earlier events of a code that is shown) or `without_meaning`.
    """

    text: str
    kept: Mapping[str, int]
    dropped: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class _Line:
    """One line in two parts, so that the tokens of either are counted once for many records. `shown` of `events` events are in it."""

    head: str
    tail: str
    shown: int = 1
    events: int = 1


@dataclass(slots=True)
class _Draft:
    """The lines of one section, taken one by one as long as there is room."""

    section: Section
    lines: Iterator[_Line]
    count: Count
    taken: list[tuple[_Line, int]] = field(default_factory=list)
    used: int = 0
    waiting: tuple[_Line, int] | None = None

    def fill(self, limit: int) -> None:
        """Take lines while the section has at most `limit` tokens."""
        while (found := self.waiting or self._next()) is not None:
            cost = found[1] + (0 if self.taken else self.count(self.section.heading))
            if self.used + cost > limit:
                self.waiting = found
                return
            self.waiting = None
            self.taken.append((found[0], cost))
            self.used += cost

    def give_back(self) -> int:
        """Leave out the last line; the tokens that it took."""
        _, cost = self.taken.pop()
        self.used -= cost
        return cost

    def text(self) -> str:
        return "".join([self.section.heading, *(line.head + line.tail for line, _ in self.taken)]) if self.taken else ""

    def _next(self) -> tuple[_Line, int] | None:
        line = next(self.lines, None)
        return None if line is None else (line, self.count(line.head) + self.count(line.tail))


def serialise(past: Timeline, at: np.datetime64, budget: int, count: Count) -> Text:
    """What `past` (cut at `at`) says, in at most `budget` tokens by `count`. `count` is asked often for the same texts, so it should remember."""
    record = _Record(past, at)
    patient = _Draft(PATIENT, record.patient(), count)
    patient.fill(budget)
    drafts = [_Draft(s, record.visits() if s is VISITS else record.codes(s), count) for s in SECTIONS]
    _share_out(drafts, budget - patient.used)
    drafts = [patient, *drafts]
    text = _fitted(drafts, budget, count)
    kept = {d.section.name: n for d in drafts if (n := sum(line.shown for line, _ in d.taken))}
    repeated = sum(line.events - line.shown for d in drafts for line, _ in d.taken)
    dropped = {"repeated": repeated, "without_meaning": record.without_meaning}
    dropped |= {d.section.name: record.events[d.section.name] - sum(line.events for line, _ in d.taken) for d in drafts}
    return Text(text, kept, {reason: n for reason, n in dropped.items() if n})


def _share_out(drafts: list[_Draft], room: int) -> None:
    """By share, what is not spent passed on; then what is still left, by priority."""
    carried = 0.0
    for draft in drafts:
        carried += draft.section.share * room
        draft.fill(int(carried))
        carried -= draft.used
    left = room - sum(d.used for d in drafts)
    for draft in drafts:
        before = draft.used
        draft.fill(before + left)
        left -= draft.used - before


def _fitted(drafts: list[_Draft], budget: int, count: Count) -> str:
    """The whole text. A tokenizer may count it higher than its lines, so lines are given back until it fits, the least important first."""
    while (over := count(text := "".join(d.text() for d in drafts)) - budget) > 0:
        while over > 0 and (last := next((d for d in reversed(drafts) if d.taken), None)) is not None:
            over -= last.give_back()
        if not any(d.taken for d in drafts):
            return ""
    return text


class _Record:
    """The past by section: of each code its last event and how many there were. `events` counts all events of a section that could be shown."""

    def __init__(self, past: Timeline, at: np.datetime64) -> None:
        self.past, self.names = past, past.names
        self.birth, self.at = past.birth, at
        self.static = int(np.isnat(past.time).sum())
        self.days = np.zeros(len(past.time), dtype=np.int64)  # before now; 0 for static events, which are shown without
        self.days[self.static :] = (at.astype("datetime64[D]") - past.time[self.static :].astype("datetime64[D]")) // _DAY
        self.events: Counter[str] = Counter()
        self.without_meaning = 0
        key = past.code * np.int64(len(TABLES)) + past.table  # a code may be in two tables, as that of a visit and of its details
        order = np.argsort(key, kind="stable")  # by code, and by time within a code
        new = np.flatnonzero(np.diff(key[order], prepend=-1))
        self._order, self._starts, self._stops = order, new, np.append(new, len(order))[1:]
        self._last = order[self._stops - 1]  # of each code, the place of its last event

    def patient(self) -> Iterator[_Line]:
        """Age, then what the table `person` says; of each vocabulary (Gender, Race) one line."""
        groups = self._groups(PATIENT)
        births = [g for g in groups if self._code(self._last[g]) in BIRTHS]
        if self.birth is not None:
            yield _Line("- Age", f": {age(self.birth, self.at)}\n", len(births), sum(self._size(g) for g in births))
        for g in reversed(groups):  # the oldest first: codes of one person have no order
            if g in births:
                continue
            vocabulary, _, rest = self._code(self._last[g]).partition("/")
            yield _Line(f"- {vocabulary}", f": {self._name(self._last[g], rest)}\n", 1, self._size(g))

    def visits(self) -> Iterator[_Line]:
        """Every visit, the last first. One without an end goes on, if the source tells ends at all."""
        places = np.flatnonzero(self.past.table == TABLES.index(VISITS.tables[0]))[::-1]
        self.events[VISITS.name] = len(places)
        return (_Line(f"- {self._name(i)}", f" ({self._stay(i)})\n") for i in places)

    def codes(self, section: Section) -> Iterator[_Line]:
        """Each code of a section with its last values, the last seen first."""
        return (self._code_line(g) for g in self._groups(section))

    def _groups(self, section: Section) -> list[int]:
        """Codes of a section that mean something, the last seen first."""
        tables = np.isin(self.past.table[self._last], [TABLES.index(t) for t in section.tables])
        found = np.flatnonzero(tables)
        found = found[np.argsort(-self._last[found])]
        kept = [g for g in found.tolist() if self._means_something(self._last[g])]
        sizes = {name: sum(map(self._size, groups)) for name, groups in (("all", found.tolist()), ("kept", kept))}
        self.events[section.name] = sizes["kept"]
        self.without_meaning += sizes["all"] - sizes["kept"]
        return kept

    def _code_line(self, group: int) -> _Line:
        places = self._order[self._starts[group] : self._stops[group]]
        last = places[-1]
        value = self._value(last)
        values = [v for i in places[-1 - EARLIER : -1][::-1] if (v := self._value(i, self.past.unit[last]))]
        told = f": {value}" if value else ""
        earlier = f", earlier {', '.join(values)}" if values else ""
        return _Line(f"- {self._name(last)}", f"{told}{self._ago(last)}{earlier}\n", 1 + len(values), len(places))

    def _stay(self, i: int) -> str:
        if i < self.static:
            return "no date"
        began = ago(int(self.days[i]))
        if np.isnat(self.past.end[i]):
            return f"since {began}" if self.names.visits_end else began
        days = int((self.past.end[i].astype("datetime64[D]") - self.past.time[i].astype("datetime64[D]")) // _DAY)
        return f"{began}, for {days} {'day' if days == 1 else 'days'}" if days > 0 else began

    def _ago(self, i: int) -> str:
        return f" ({ago(int(self.days[i]))})" if i >= self.static else ""

    def _value(self, i: int, told: int = -1) -> str:
        """Number and unit (unless it is the one that was `told`), or a short text, in which a date is no date."""
        value, unit = float(self.past.value[i]), int(self.past.unit[i])
        if np.isfinite(value):
            return number(value) if unit in (-1, told) else f"{number(value)} {self.names.units[unit].partition(' (')[0]}".strip()
        text = int(self.past.text[i])
        return _DATE.sub("(date)", self.names.texts[text]) if text >= 0 else ""

    def _name(self, i: int, otherwise: str | None = None) -> str:
        code = self._code(i)
        return self.names.described.get(code) or STANDARD.get(code) or otherwise or code

    def _code(self, i: int) -> str:
        return self.names.codes[int(self.past.code[i])]

    def _means_something(self, i: int) -> bool:
        code = self._code(i)
        return code in self.names.described or not code.startswith(WITHOUT_MEANING)

    def _size(self, group: int) -> int:
        return int(self._stops[group] - self._starts[group])


def age(birth: np.datetime64, at: np.datetime64) -> str:
    """Whole years at a time; days in the first month, months in the first two years."""
    days = int((at.astype("datetime64[D]") - birth.astype("datetime64[D]")) // _DAY)
    months = _months(birth, at)
    if months >= 12 * OLDEST_AGE:
        return f"{OLDEST_AGE} years or older"
    if months >= 24:
        return f"{months // 12} years"
    return f"{months} months" if months else f"{days} days"


def ago(days: int) -> str:
    """How many calendar days before now."""
    return "today" if days == 0 else "1 day ago" if days == 1 else f"{days} days ago"


def number(value: float) -> str:
    """A number as a laboratory would write it: six significant digits, whole numbers without a point."""
    return str(int(value)) if value == int(value) and abs(value) < 1e15 else f"{value:.6g}"


def _months(birth: np.datetime64, at: np.datetime64) -> int:
    """Whole months between two times."""
    months = int((at.astype("datetime64[M]") - birth.astype("datetime64[M]")).astype(np.int64))
    day_of = [int((t.astype("datetime64[D]") - t.astype("datetime64[M]").astype("datetime64[D]")) // _DAY) for t in (birth, at)]
    return months - (day_of[1] < day_of[0])
