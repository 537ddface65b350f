"""A record written out by hand: `record(event(...), ...)` is a Timeline."""

from dataclasses import dataclass

import numpy as np

from ehrmind_k8s.tasks.ehrshot.timeline import TABLES, Names, Timeline


@dataclass(frozen=True)
class Event:
    """One event; times are ISO texts, "" for none."""

    code: str
    time: str
    end: str = ""
    value: float = float("nan")
    text: str = ""
    unit: str = ""
    table: str = "other"


def stay(start: str, end: str, code: str = "Visit/IP", table: str = "visit_occurrence") -> Event:
    """An inpatient visit."""
    return Event(code, start, end, table=table)


def death(time: str) -> Event:
    """A death."""
    return Event("MEDS_DEATH", time, table="death")


def icu(start: str, end: str) -> Event:
    """A stay in intensive care."""
    return stay(start, end, "CARE_SITE/7928450", "visit_detail")


def result(code: str, time: str, value: float, unit: str = "", text: str = "") -> Event:
    """A laboratory result."""
    return Event(code, time, value=value, unit=unit, text=text, table="measurement")


def record(*events: Event, subject: int = 1, born: str = "1950-01-01") -> Timeline:
    """The timeline of one subject."""
    rows = sorted([Event("MEDS_BIRTH", born, table="person"), *events], key=lambda e: e.time)
    codes, units, texts = (sorted({getattr(e, name) for e in rows} - {""}) for name in ("code", "unit", "text"))

    def places(known: list[str], name: str) -> np.ndarray:
        return np.array([known.index(getattr(e, name)) if getattr(e, name) else -1 for e in rows], dtype=np.int32)

    return Timeline(
        subject=subject,
        birth=np.datetime64(born, "s"),
        time=np.array([e.time or "NaT" for e in rows], dtype="datetime64[s]"),
        end=np.array([e.end or "NaT" for e in rows], dtype="datetime64[s]"),
        code=places(codes, "code"),
        value=np.array([e.value for e in rows]),
        text=places(texts, "text"),
        unit=places(units, "unit"),
        visit=np.full(len(rows), -1, dtype=np.int64),
        table=np.array([TABLES.index(e.table) for e in rows], dtype=np.int8),
        names=Names(codes, units, texts),
    )
