"""The record of one subject, and the one place that cuts it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

TABLES: tuple[str, ...] = (
    "person",
    "visit_occurrence",
    "visit_detail",
    "condition_occurrence",
    "drug_exposure",
    "procedure_occurrence",
    "measurement",
    "observation",
    "device_exposure",
    "death",
    "note",
    "other",
)
BIRTHS = ("MEDS_BIRTH", "SNOMED/3950001", "SNOMED/184099003")  # of MEDS; of EHRSHOT; "date of birth"
DEMOGRAPHIC = ("gender", "sex", "race", "ethnicity")  # vocabularies, in lower case, whose codes are true of a person at any time
NAT = np.datetime64("NaT", "s")


@dataclass(frozen=True, slots=True, eq=False)
class Names:
    """What the codes of timelines stand for. `codes`, `units` and `described` are those of the whole source, `texts` those of a part of it.

    `visits_end` is False for a source that never tells when a visit ended: a visit without an end may then be long over.
    """

    codes: Sequence[str]
    units: Sequence[str]
    texts: Sequence[str]
    described: Mapping[str, str] = field(default_factory=dict)
    visits_end: bool = True


_UNLINKED = np.empty(0, dtype=np.int64)


def demographic(code: str) -> bool:
    """Whether a code tells of birth, sex or descent, which are known from the start, however a source dates them."""
    return code in BIRTHS or code.partition("/")[0].lower() in DEMOGRAPHIC


@dataclass(frozen=True, slots=True, eq=False)
class Timeline:
    """All E events of one subject by time, those without a time (static facts about the person, always known) first.

    `time` is when an event became known; `code` (int32), `text` (int32) and `unit` (int32) are places in `names`, -1 for none; `value` is NaN
    where there is no number; `visit` (int64) is -1 for none; `table` (int8) is a place in TABLES. `birth` is None where the source has none.
    `before` (int64) is the place of the event before with the same code and table, -1 for the first, and `nth` how many there are up to it: what a
    cut needs to tell the last of each code, made once. Neither depends on what comes later.
    """

    subject: int
    birth: np.datetime64 | None
    time: np.ndarray
    end: np.ndarray
    code: np.ndarray
    value: np.ndarray
    text: np.ndarray
    unit: np.ndarray
    visit: np.ndarray
    table: np.ndarray
    names: Names
    before: np.ndarray = field(default_factory=lambda: _UNLINKED, repr=False)
    nth: np.ndarray = field(default_factory=lambda: _UNLINKED, repr=False)

    def __post_init__(self) -> None:
        if self.before is _UNLINKED:
            before, nth = _links(self.code * np.int64(len(TABLES)) + self.table)
            object.__setattr__(self, "before", before)
            object.__setattr__(self, "nth", nth)

    def until(self, at: np.datetime64) -> "Timeline":
        """What was known at the second `at`: events up to then, and no end that came later (a visit goes on)."""
        static = int(np.isnat(self.time).sum())
        known = static + int(np.searchsorted(self.time[static:], at, side="right"))
        end = self.end[:known]
        cut = {name: getattr(self, name)[:known] for name in ("time", "code", "value", "text", "unit", "visit", "table", "before", "nth")}
        return replace(self, end=np.where(end > at, NAT, end), **cut)


def _links(key: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of each place in `key`, the place before with the same key (-1 for none), and how many places up to it have that key."""
    order = np.argsort(key, kind="stable")
    first = np.ones(len(key), dtype=bool)
    first[1:] = key[order[1:]] != key[order[:-1]]
    starts = np.flatnonzero(first)
    before, nth = np.empty(len(key), dtype=np.int64), np.empty(len(key), dtype=np.int64)
    before[order] = np.where(first, -1, np.roll(order, 1))
    nth[order] = np.arange(len(key)) - np.repeat(starts, np.diff(starts, append=len(key))) + 1
    return before, nth
