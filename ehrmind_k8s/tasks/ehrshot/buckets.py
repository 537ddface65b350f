"""Events by subject without holding a table in memory: every batch is dealt to buckets on disk by a hash of the subject.

A bucket holds whole subjects, so sorting it gives timelines. Memory is that of one batch while dealing and of one bucket while reading;
`BUCKET_ROWS` sets both, whatever the size of the source.
"""

from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pyarrow as pa

from ehrmind_k8s.errors import DataError
from ehrmind_k8s.tasks.ehrshot import texts
from ehrmind_k8s.tasks.ehrshot.mixing import mixed
from ehrmind_k8s.tasks.ehrshot.timeline import BIRTHS, TABLES, Names, Timeline, demographic

BUCKET_ROWS = 400_000  # events; about 40 MB each
MOST_BUCKETS = 512  # open files while dealing
MOST_CODES = 1_000_000  # distinct ones, held in memory for the whole source; hospitals use some 100,000
LAST_SECOND = np.timedelta64(86399, "s")
_NEVER = np.iinfo(np.int64).min  # what NaT is as a number
PERSON, VISIT = TABLES.index("person"), TABLES.index("visit_occurrence")
DIAGNOSES = tuple(TABLES.index(t) for t in ("condition_occurrence", "observation"))  # a date in them does not say when they were written down
# Times are kept as datetime64's own integers, of which NaT is the least: events without a time sort first.
_SCHEMA = pa.schema(
    [
        ("subject", pa.int64()),
        ("time", pa.int64()),
        ("end", pa.int64()),
        ("code", pa.int32()),
        ("value", pa.float64()),
        ("text", pa.string()),
        ("unit", pa.int32()),
        ("visit", pa.int64()),
        ("table", pa.int8()),
        ("held", pa.bool_()),
    ]
)


@dataclass(frozen=True, slots=True, eq=False)
class Events:
    """A batch of E events as readers give them. Times are datetime64[s]; `code`, `text` and `unit` are arrow strings with nulls for none.

    `held` marks events that nobody knew before their visit was over, whatever their time says (None: there are none).
    """

    subject: np.ndarray
    time: np.ndarray
    end: np.ndarray
    code: pa.Array
    value: np.ndarray
    text: pa.Array
    unit: pa.Array
    visit: np.ndarray
    table: np.ndarray
    held: np.ndarray | None = None


class Dictionary:
    """Numbers texts in the order in which they come."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self._places: dict[str, int] = {}

    def place(self, text: str) -> int | None:
        """Number of a text that came already."""
        return self._places.get(text)

    def encode(self, column: pa.Array) -> np.ndarray:
        """Places of a column's texts (int32), -1 for null."""
        encoded = column.dictionary_encode()
        places = np.empty(len(encoded.dictionary) + 1, dtype=np.int32)
        for i, text in enumerate(encoded.dictionary.to_pylist()):
            places[i] = self._places.setdefault(text, len(self.texts))
            if places[i] == len(self.texts):
                self.texts.append(text)
        places[-1] = -1
        found: np.ndarray = places[encoded.indices.fill_null(len(encoded.dictionary)).to_numpy(zero_copy_only=False)]
        return found


@dataclass
class Buckets:
    """Events on disk. `deal` them all, `close`, then read `timelines`.

    `counts` is what was kept by table, and what was not and why. `dated` counts events that came at midnight (see `deal`); `subjects` are all
    ids, `born` those with a birth.
    """

    folder: Path
    size: int
    counts: dict[str, Counter[str]] = field(default_factory=lambda: {"events": Counter(), "left_out": Counter()})
    dated: int = 0
    visits_end: bool = False
    codes: Dictionary = field(default_factory=Dictionary)
    units: Dictionary = field(default_factory=Dictionary)
    subjects: np.ndarray = field(default_factory=lambda: np.empty(0, dtype=np.int64))
    born: np.ndarray = field(default_factory=lambda: np.empty(0, dtype=np.int64))

    def __post_init__(self) -> None:
        options = pa.ipc.IpcWriteOptions(compression="lz4")
        self._facts: list[bool] = []
        self._files = [pa.OSFile(str(self.folder / f"{i}.arrow"), "wb") for i in range(self.size)]
        self._writers = [pa.ipc.new_stream(file, _SCHEMA, options=options) for file in self._files]

    def deal(self, events: Events) -> None:
        """Write a batch to the buckets of its subjects. Events without a code, and what is too long for one, are left out and counted.

        Raises DataError where there are more codes than any vocabulary has.

        A time of exactly midnight is a date: its event is known at the end of that day, and an end has come by then. Else a label of that
        morning would see the afternoon. Facts about the person (birth, sex) stay where they are, and need no time. Whatever else has none
        may have happened after any label, and is left out.
        """
        (codes, sentences), (text, long), (units, remarks) = (texts.short(column) for column in (events.code, events.text, events.unit))
        code, unit = self.codes.encode(codes), self.units.encode(units)
        if (most := max(len(self.codes.texts), len(self.units.texts))) > MOST_CODES:
            raise DataError(f"the source has more than {most - 1} distinct codes or units: one of these columns holds free text; leave it empty")
        fact, timeless = self._demographic()[code], np.isnat(events.time)
        birth = np.isin(code, self._births())
        table = np.where((fact & timeless) | birth, PERSON, events.table).astype(np.int8)
        lost = timeless & (code >= 0) & ((table != PERSON) | birth)
        kept = (code >= 0) & ~lost
        self.counts["left_out"]["without_code"] += int((code < 0).sum()) - sentences
        self.counts["left_out"]["codes_over_80_characters"] += sentences
        self.counts["left_out"]["units_over_80_characters"] += remarks
        self.counts["left_out"]["without_a_time"] += int(lost.sum())
        self.counts["left_out"]["texts_over_80_characters"] += long
        for place, n in enumerate(np.bincount(table[kept], minlength=len(TABLES)).tolist()):
            self.counts["events"][TABLES[place]] += n
        midnight = _is_midnight(events.time) & ~fact
        self.dated += int(midnight.sum())
        self.visits_end |= bool((~np.isnat(events.end[table == VISIT])).any())
        self.subjects = np.union1d(self.subjects, events.subject[kept])
        self.born = np.union1d(self.born, events.subject[birth])
        columns = [
            events.subject,
            np.where(midnight, events.time + LAST_SECOND, events.time).astype(np.int64),
            np.where(_is_midnight(events.end), events.end + LAST_SECOND, events.end).astype(np.int64),
            code,
            events.value,
            text,
            unit,
            events.visit,
            table,
            np.zeros(len(table), dtype=bool) if events.held is None else events.held,
        ]
        batch = pa.RecordBatch.from_arrays([pa.array(c) if isinstance(c, np.ndarray) else c for c in columns], schema=_SCHEMA)
        bucket = np.where(kept, mixed(events.subject) % np.uint64(self.size), np.uint64(self.size)).astype(np.uint16)
        order = np.argsort(bucket, kind="stable")
        batch, starts = batch.take(pa.array(order)), np.searchsorted(bucket[order], np.arange(self.size + 1))
        for i, writer in enumerate(self._writers):
            if starts[i + 1] > starts[i]:
                writer.write_batch(batch.slice(starts[i], starts[i + 1] - starts[i]))

    def close(self) -> None:
        """End writing."""
        for writer, file in zip(self._writers, self._files, strict=True):
            writer.close()
            file.close()

    def names(self, described: Mapping[str, str]) -> Names:
        """What codes and units stand for, once all events are dealt. `texts` are those of a bucket, so there are none here."""
        return Names(self.codes.texts, self.units.texts, (), described, self.visits_end)

    def timelines(self, subjects: Collection[int] | None, names: Names) -> Iterator[Timeline]:
        """Each of `subjects` (None: all) that has events, bucket by bucket, by subject within a bucket."""
        wanted = None if subjects is None else np.array(sorted(subjects), dtype=np.int64)
        births = self._births()
        for i in range(self.size):
            with pa.OSFile(str(self.folder / f"{i}.arrow"), "rb") as file, pa.ipc.open_stream(file) as stream:
                table = stream.read_all()
            if wanted is not None:
                table = table.filter(pa.array(np.isin(table["subject"].to_numpy(), wanted)))
            if len(table):
                yield from _sliced(table, births, names)

    def _demographic(self) -> np.ndarray:
        """Which of the codes so far are facts about a person; the last, which is place -1, is not."""
        self._facts += map(demographic, self.codes.texts[len(self._facts) :])
        return np.array([*self._facts, False])

    def _births(self) -> np.ndarray:
        return np.array([place for birth in BIRTHS if (place := self.codes.place(birth)) is not None], dtype=np.int32)


def _sliced(table: pa.Table, births: np.ndarray, names: Names) -> Iterator[Timeline]:
    """The timelines of one bucket. Events of one time keep the order of the source."""
    columns = {name: table[name].to_numpy() for name in _SCHEMA.names if name != "text"}
    told = Dictionary()
    columns["text"] = told.encode(table["text"].combine_chunks()) if len(table) else np.empty(0, dtype=np.int32)
    columns["time"] = _known(columns, columns.pop("held"))
    order = np.lexsort((columns["time"], columns["subject"]))
    columns = {name: column[order] for name, column in columns.items()}
    for name in ("time", "end"):
        columns[name] = columns[name].view("datetime64[s]")
    subjects, starts = np.unique(columns.pop("subject"), return_index=True)
    mine = replace(names, texts=told.texts)
    for subject, start, stop in zip(subjects.tolist(), starts, [*starts[1:], len(order)], strict=True):
        own = {name: column[start:stop] for name, column in columns.items()}
        yield Timeline(subject, _birth(own, births), names=mine, **own)


def _known(columns: Mapping[str, np.ndarray], held: np.ndarray) -> np.ndarray:
    """When each event of a bucket was known: what is held, at the end of its visit, or with the last event of a visit whose end is not told."""
    subject, visit, time = (columns[name] for name in ("subject", "visit", "time"))
    rows = np.flatnonzero(np.isin(visit, visit[held & (visit >= 0)]))
    if not len(rows):
        return time
    rows = rows[np.lexsort((visit[rows], subject[rows]))]
    first = np.ones(len(rows), dtype=bool)
    first[1:] = (subject[rows][1:] != subject[rows][:-1]) | (visit[rows][1:] != visit[rows][:-1])
    starts = np.flatnonzero(first)
    ends = np.where(columns["table"] == VISIT, columns["end"], _NEVER)[rows]
    end, last = np.maximum.reduceat(ends, starts), np.maximum.reduceat(time[rows], starts)
    over = np.repeat(np.where(end == _NEVER, last, end), np.diff(starts, append=len(rows)))
    known = time.copy()
    known[rows] = np.where(held[rows], np.maximum(time[rows], over), time[rows])
    return known


def _birth(columns: Mapping[str, np.ndarray], births: np.ndarray) -> np.datetime64 | None:
    """The time of the first event that says so."""
    found = columns["time"][np.isin(columns["code"], births)]
    found = found[~np.isnat(found)]
    return found.min() if len(found) else None


def dated(time: np.ndarray) -> np.ndarray:
    """Which times stand for a date: midnight, or the last second of a day, which some write for it."""
    found: np.ndarray = _is_midnight(time) | _is_midnight(time + np.timedelta64(1, "s"))
    return found


def _is_midnight(time: np.ndarray) -> np.ndarray:
    found: np.ndarray = ~np.isnat(time) & (time.astype(np.int64) % 86400 == 0)
    return found
