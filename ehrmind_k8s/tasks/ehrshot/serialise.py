"""A record as text within a budget of tokens: what was known, the most recent first, days before now instead of dates.

    Patient:
    - Age: 63 years
    - Gender: female
    Visits:
    - Inpatient visit (since 3 days ago)
    - Emergency visit (40 days ago, for 1 day)
    Measurements:
    - Hemoglobin (today): 9.8 g/dL, earlier 10.1, 11.2

A record holds thousands of events and a prompt some hundred lines. Each visit is one line; of everything else each code is one, with its last
value, up to EARLIER values before it, and how long ago the last was. Sections have shares of the budget; what one does not spend goes to those
after it, then once more to all by priority. Every event is accounted for, in `kept` or in `dropped`.

No calendar date is written: neither the days that pass until an outcome nor a year that a model knows can be read off one; `texts` says what of
a source's own words is shown. Ages of 90 and over are one class (HIPAA Safe Harbor, 45 CFR 164.514(b)(2)(i)(C)), and so are times that long ago.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite

import numpy as np

from ehrmind_k8s.tasks.ehrshot.texts import line, plain
from ehrmind_k8s.tasks.ehrshot.timeline import BIRTHS, TABLES, Names, Timeline

EARLIER = 2  # values before the last one
OLDEST_AGE = 90
LONGEST_AGO = OLDEST_AGE * 365  # days
LEAST_DATE = 10_000_000  # numbers from here on may be a date, as 20200304
CHUNK = 96  # lines made at a time: more waste values, fewer waste calls
REMEMBERED = 1 << 16  # parts of lines whose tokens are remembered; some 10 MB
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
_NUMBERED = re.compile(r"(?:OMOP|SNOMED|RxNorm)/[0-9]+")  # codes that are numbers, some of which look like a date
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
_NUMBERS = {section.name: number for number, section in enumerate((PATIENT, *SECTIONS))}
_SECTION_OF = np.array([next(_NUMBERS[s.name] for s in (PATIENT, *SECTIONS) if table in s.tables) for table in TABLES])
_VISIT = TABLES.index(VISITS.tables[0])


@dataclass(slots=True)
class _Line:
    """One line and about how many tokens it takes. `shown` of its `events` events are in it."""

    text: str
    tokens: int
    shown: int = 1
    events: int = 1


@dataclass(frozen=True, slots=True)
class Text:
    """A record in words. `kept` counts events that the text shows, by section; `dropped` those that it does not, by reason.

    A reason is a section (no room left), `repeated` (earlier events of a code that is shown) or `without_meaning`.
    """

    text: str
    kept: Mapping[str, int]
    dropped: Mapping[str, int]


class Serialiser:
    """Writes records of one source, each in at most `budget` tokens by `count`. It remembers the tokens of the parts of lines, not of texts."""

    def __init__(self, budget: int, count: Count) -> None:
        self._budget, self._count = budget, count
        self._names = Names((), (), ())
        self._agos: dict[int | None, tuple[str, int]] = {}
        self._parts: dict[str, tuple[str, int]] = {}

    def text(self, past: Timeline, at: np.datetime64) -> Text:
        """What `past` (cut at `at`) says."""
        if past.names.codes is not self._names.codes:
            self._of_source(past.names)
        self._names = past.names
        record = _Record(past, at, self._shown)
        patient = _Draft(PATIENT, self._patient(record), self._part(PATIENT.heading)[1])
        patient.fill(self._budget)
        drafts = [_Draft(s, self._lines(record, s), self._part(s.heading)[1]) for s in SECTIONS]
        _share_out(drafts, self._budget - patient.used)
        drafts = [patient, *drafts]
        text = _fitted(drafts, self._budget, self._count)
        kept = {d.section.name: n for d in drafts if (n := sum(line.shown for line in d.taken))}
        used = {d.section.name: sum(line.events for line in d.taken) for d in drafts}
        dropped = {"repeated": sum(used.values()) - sum(kept.values()), "without_meaning": record.without_meaning}
        dropped |= {name: record.events[name] - n for name, n in used.items()}
        return Text(text, kept, {reason: n for reason, n in dropped.items() if n})

    def _of_source(self, names: Names) -> None:
        """Which codes are shown, and what is known of them so far (a line's beginning, by code)."""
        self._shown = np.array([c in names.described or not c.startswith(WITHOUT_MEANING) for c in names.codes], dtype=bool)
        self._heads: list[tuple[str, int] | None] = [None] * len(names.codes)

    def _patient(self, record: "_Record") -> Iterator[_Line]:
        """Age, then what the table `person` says; of each vocabulary (Gender, Race) one line."""
        codes, places = self._names.codes, record.of(PATIENT)[::-1].tolist()  # the oldest first: codes of one person have no order
        births = [i for i in places if codes[record.past.code[i]] in BIRTHS]
        if record.past.birth is not None:
            told = f"- Age: {age(record.past.birth, record.at)}\n"
            yield _Line(told, self._part(told)[1], len(births), sum(int(record.past.nth[i]) for i in births))
        for i in places:
            if i not in births or record.past.birth is None:
                code = codes[record.past.code[i]]
                vocabulary, _, rest = _shown(code).partition("/")
                told = f"- {vocabulary}: {self._named(code) or rest.strip('/')}\n"
                yield _Line(told, self._part(told)[1], 1, int(record.past.nth[i]))

    def _lines(self, record: "_Record", section: Section) -> Iterator[_Line]:
        """The lines of a section, the last seen first. They are asked for until the room is full, so they are made CHUNK at a time."""
        places = record.of(section)
        for start in range(0, len(places), CHUNK):
            chosen = places[start : start + CHUNK]
            yield from self._stays(record, chosen) if section is VISITS else self._values(record, chosen)

    def _stays(self, record: "_Record", places: np.ndarray) -> Iterator[_Line]:
        """Every visit: when it began, and how long it was. One without an end goes on, if the source tells ends at all."""
        past = record.past
        ended = ~np.isnat(past.end[places])
        days = _day_numbers(past.end[places]) - _day_numbers(past.time[places])  # meaningless where there is no end
        rows = zip(past.code[places].tolist(), record.days[places].tolist(), ended.tolist(), days.tolist(), strict=True)
        for code, ago_, over, length in rows:
            if ago_ is None:
                when = " (no date)\n"
            elif not over:
                when = f" (since {ago(ago_)})\n" if self._names.visits_end else f" ({ago(ago_)})\n"
            else:
                when = f" ({ago(ago_)}, for {_days(length)})\n" if length > 0 else f" ({ago(ago_)})\n"
            (head, cost), (tail, more) = self._heads[code] or self._head(code), self._part(when)
            yield _Line(head + tail, cost + more)

    def _values(self, record: "_Record", places: np.ndarray) -> Iterator[_Line]:
        """Each code with its last values."""
        past, chain = record.past, [places]
        for _ in range(EARLIER):
            chain.append(np.where(chain[-1] >= 0, past.before[chain[-1]], -1))
        columns = [self._told(past, c, None if c is places else past.unit[places]) for c in chain]
        rows = zip(past.code[places].tolist(), record.days[places].tolist(), past.nth[places].tolist(), zip(*columns, strict=True), strict=True)
        for code, days, events, (value, *before) in rows:
            head, cost = self._heads[code] or self._head(code)
            when, more = self._agos.get(days) or self._ago(days)
            earlier = [v for v in before if v]
            if earlier:
                value = f"{value}, earlier {', '.join(earlier)}" if value else f"earlier {', '.join(earlier)}"
            tail, most = self._part(f": {value}\n" if value else "\n")
            yield _Line(head + when + tail, cost + more + most, 1 + len(earlier), events)

    def _told(self, past: Timeline, places: np.ndarray, unit: np.ndarray | None) -> list[str]:
        """The values at places (-1: nowhere) in words, "" where there is none; `unit` are units that need not be told again."""
        value, text = past.value[places], past.text[places]
        there = (np.isfinite(value) | (text >= 0)) & (places >= 0)
        if not there.any():
            return [""] * len(places)
        units = past.unit[places] if unit is None else np.where(past.unit[places] == unit, -1, past.unit[places])
        rows = zip(there.tolist(), value.tolist(), units.tolist(), text.tolist(), strict=True)
        return [self._value(*row) if here else "" for here, *row in rows]

    def _value(self, value: float, unit: int, text: int) -> str:
        """Number and unit (-1: none, or one that has been told), or a short text; neither is a date."""
        if isfinite(value):
            told = number(value) if abs(value) < LEAST_DATE else plain(number(value))
            return f"{told} {plain(self._names.units[unit].partition(' (')[0])}".rstrip() if unit >= 0 else told
        return plain(self._names.texts[text]) if text >= 0 else ""

    def _head(self, code: int) -> tuple[str, int]:
        text = self._names.codes[code]
        head = f"- {self._named(text) or _shown(text)}"
        self._heads[code] = found = (head, self._count(head))
        return found

    def _named(self, code: str) -> str | None:
        return line(self._names.described.get(code, "")) or STANDARD.get(code)

    def _ago(self, days: int | None) -> tuple[str, int]:
        self._agos[days] = found = self._part("" if days is None else f" ({ago(days)})")
        return found

    def _part(self, text: str) -> tuple[str, int]:
        """A part of a line and its tokens."""
        found = self._parts.get(text)
        if found is None:
            if len(self._parts) >= REMEMBERED:
                self._parts.clear()
            found = self._parts[text] = (text, self._count(text) if text else 0)
        return found


def serialise(past: Timeline, at: np.datetime64, budget: int, count: Count) -> Text:
    """What one record, cut at `at`, says in at most `budget` tokens by `count`. For many records a Serialiser is faster."""
    return Serialiser(budget, count).text(past, at)


@dataclass(slots=True)
class _Draft:
    """The lines of one section, taken one by one as long as there is room; `heading` is the tokens of its heading."""

    section: Section
    lines: Iterator[_Line]
    heading: int
    taken: list[_Line] = field(default_factory=list)
    used: int = 0
    waiting: _Line | None = None

    def fill(self, limit: int) -> None:
        """Take lines while the section has at most `limit` tokens."""
        while (line := self.waiting or next(self.lines, None)) is not None:
            used = self.used + line.tokens + (0 if self.taken else self.heading)
            if used > limit:
                self.waiting = line
                return
            self.waiting, self.used = None, used
            self.taken.append(line)

    def give_back(self) -> int:
        """Leave out the last line; the tokens that it took."""
        before, line = self.used, self.taken.pop()
        self.used -= line.tokens + (0 if self.taken else self.heading)
        return before - self.used

    def text(self) -> str:
        return "".join([self.section.heading, *(line.text for line in self.taken)]) if self.taken else ""


def _share_out(drafts: Sequence[_Draft], room: int) -> None:
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


def _fitted(drafts: Sequence[_Draft], budget: int, count: Count) -> str:
    """The whole text. A tokenizer may count it higher than its lines, so lines are given back until it fits, the least important first."""
    while (over := count(text := "".join(d.text() for d in drafts)) - budget) > 0:
        while over > 0 and (last := next((d for d in reversed(drafts) if d.taken), None)) is not None:
            over -= last.give_back()
        if not any(d.taken for d in drafts):
            return ""
    return text


class _Record:
    """The past by section: places of the events that make lines, the last first. `events` counts all events of a section that could be shown.

    `days` (object) are calendar days before `at`, None for facts without a time.
    """

    def __init__(self, past: Timeline, at: np.datetime64, shown: np.ndarray) -> None:
        self.past, self.at = past, at
        static = int(np.isnat(past.time).sum())
        self.days = np.full(len(past.time), None, dtype=object)
        self.days[static:] = _day_numbers(np.array(at)) - _day_numbers(past.time[static:])
        last = np.ones(len(past.time), dtype=bool)
        last[past.before[past.before >= 0]] = False
        visit = past.table == _VISIT
        self._places = np.flatnonzero((last | visit) & shown[past.code])[::-1]
        self._sections = _SECTION_OF[past.table[self._places]]
        sizes = np.where(visit, 1, past.nth)[self._places]
        counts = np.bincount(self._sections, weights=sizes, minlength=1 + len(SECTIONS)).astype(int).tolist()
        self.events = dict(zip((PATIENT.name, *(s.name for s in SECTIONS)), counts, strict=True))
        self.without_meaning = len(past.time) - sum(counts)

    def of(self, section: Section) -> np.ndarray:
        """Places of a section's lines."""
        found: np.ndarray = self._places[self._sections == _NUMBERS[section.name]]
        return found


def _day_numbers(time: np.ndarray) -> np.ndarray:
    """Days since 1970 as whole numbers."""
    return time.astype("datetime64[D]").astype(np.int64)


def age(birth: np.datetime64, at: np.datetime64) -> str:
    """Whole years at a time; days in the first month, months in the first two years."""
    days = int((at.astype("datetime64[D]") - birth.astype("datetime64[D]")) // _DAY)
    months = _months(birth, at)
    if months >= 12 * OLDEST_AGE:
        return f"{OLDEST_AGE} years or older"
    if months >= 24:
        return f"{months // 12} years"
    return f"{months} months" if months else f"{days} days"


def _shown(code: str) -> str:
    """A code that has no description."""
    return code if _NUMBERED.fullmatch(code) else plain(code)


def ago(days: int) -> str:
    """How many calendar days before now."""
    if days >= LONGEST_AGO:
        return f"{OLDEST_AGE} years ago or more"
    return "today" if days == 0 else "1 day ago" if days == 1 else f"{days} days ago"


def _days(length: int) -> str:
    return "1 day" if length == 1 else f"{length} days"


def number(value: float) -> str:
    """A number as a laboratory would write it: six significant digits, whole numbers without a point."""
    return str(int(value)) if value == int(value) and abs(value) < 1e15 else f"{value:.6g}"


def _months(birth: np.datetime64, at: np.datetime64) -> int:
    """Whole months between two times."""
    months = int((at.astype("datetime64[M]") - birth.astype("datetime64[M]")).astype(np.int64))
    day_of = [int((t.astype("datetime64[D]") - t.astype("datetime64[M]").astype("datetime64[D]")) // _DAY) for t in (birth, at)]
    return months - (day_of[1] < day_of[0])
