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


@dataclass(frozen=True, slots=True, eq=False)
class Timeline:
    """All E events of one subject by time, those without a time (static facts) first.

    `time` is when an event became known; `code` (int32), `text` (int32) and `unit` (int32) are places in `names`, -1 for none; `value` is NaN
    where there is no number; `visit` (int64) is -1 for none; `table` (int8) is a place in TABLES. `birth` is None where the source has none.
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

    def until(self, at: np.datetime64) -> "Timeline":
        """What was known at the minute of `at`: events up to its last second, and no end that came later (a visit goes on)."""
        last = at.astype("datetime64[m]").astype("datetime64[s]") + np.timedelta64(59, "s")
        static = int(np.isnat(self.time).sum())
        known = static + int(np.searchsorted(self.time[static:], last, side="right"))
        end = self.end[:known]
        cut = {name: getattr(self, name)[:known] for name in ("time", "code", "value", "text", "unit", "visit", "table")}
        return replace(self, end=np.where(end > last, NAT, end), **cut)
