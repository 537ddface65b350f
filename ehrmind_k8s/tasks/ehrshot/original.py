"""EHRSHOT as released: one CSV of events, read by header name, since its column order has changed between copies.

    ,patient_id,start,end,code,value,unit,visit_id,omop_table

`value` is a number or a text, `visit_id` a whole number written as a float, rows are in no order.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from ehrmind_k8s.errors import DataError, nearest
from ehrmind_k8s.tasks.ehrshot import columns, concepts
from ehrmind_k8s.tasks.ehrshot.buckets import Events

NAME = "ehrshot.csv"
NEEDED = ("patient_id", "start", "code")
TYPES: Mapping[str, pa.DataType] = {
    "patient_id": pa.int64(),
    "start": pa.timestamp("us"),
    "end": pa.timestamp("us"),
    "code": pa.string(),
    "value": pa.string(),
    "unit": pa.string(),
    "visit_id": pa.float64(),
    "omop_table": pa.string(),
}
ROW_BYTES = 77  # of the released file, on average
BLOCK_BYTES = 4 << 20  # memory while dealing grows with it: 16 MB blocks take 300 MB more, and no less time


def find(source: Path) -> dict[str, Path]:
    """The events file; nothing where there is none. Raises DataError for two."""
    paths = [source] if source.name == NAME else sorted(source.rglob(NAME))
    if len(paths) > 1:
        raise DataError(f"{source}: two files {NAME}; pass the folder of one of them")
    return {p.name: p for p in paths}


def rows(files: Mapping[str, Path]) -> int:
    """About how many events there are."""
    return sum(p.stat().st_size for p in files.values()) // ROW_BYTES


def events(files: Mapping[str, Path], warnings: Counter[str]) -> Iterator[Events]:
    """All events. Raises DataError naming the column that cannot be read."""
    for path in files.values():
        yield from (_events(batch, path, warnings) for batch in _batches(path))


def described(source: Path, files: Mapping[str, Path], codes: frozenset[str]) -> tuple[dict[str, str], list[Path]]:
    """Descriptions of codes, and the files that they are from: the release has none, an OMOP CONCEPT table put beside it has."""
    return concepts.described(source, codes)


def _batches(path: Path) -> Iterator[pa.RecordBatch]:
    names = columns.header(path)
    for name in NEEDED:
        if name not in names:
            raise DataError(f"{path.name}: no column {name}; {nearest(name, names)}")
    here = {name: kind for name, kind in TYPES.items() if name in names}
    yield from concepts.csv_batches(path, names, here, pyarrow.csv.ParseOptions(newlines_in_values=True), BLOCK_BYTES)


def _events(batch: pa.RecordBatch, path: Path, warnings: Counter[str]) -> Events:
    have = {name: batch[name] for name in batch.schema.names}
    subject, time = have["patient_id"], have["start"]
    if missing := subject.null_count or time.null_count:
        column = "patient_id" if subject.null_count else "start"
        raise DataError(f"{path.name}: column {column} is empty in {missing} rows of a part; every event has a subject and a start")
    none = pa.nulls(len(batch), pa.string())
    value, text = columns.numbers(have.get("value", none))
    warnings["values_that_are_text"] += len(text) - text.null_count
    visit = pc.fill_null(have.get("visit_id", pa.nulls(len(batch), pa.float64())), -1.0).to_numpy(zero_copy_only=False)
    return Events(
        subject.to_numpy(),
        columns.seconds(time, path.name, "start"),
        columns.seconds(have["end"], path.name, "end") if "end" in have else np.full(len(batch), np.datetime64("NaT", "s")),
        have["code"],
        value,
        text,
        have.get("unit", none),
        visit.astype(np.int64),
        columns.tables(have.get("omop_table", none), have["code"]),
    )
