"""MEDS (Medical Event Data Standard 0.3 and 0.4): parquet files of events, subject_id, time, code, numeric_value, text_value and more.

EHRSHOT has been released so twice: one file with `omop_table` and no visits, and shards with `table`, `visit_id` and `end`. An event without
a time is a static fact if it tells of the person; `buckets` leaves out all others.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ehrmind_k8s.errors import DataError
from ehrmind_k8s.tasks.ehrshot import columns, concepts
from ehrmind_k8s.tasks.ehrshot.buckets import DIAGNOSES, Events, dated

DATA = "data"  # where MEDS has its events; what lies beside may be another copy of them
NEEDED = ("subject_id", "time", "code")
WANTED = (*NEEDED, "numeric_value", "text_value", "unit", "visit_id", "end", "omop_table", "table")


def find(source: Path) -> dict[str, Path]:
    """Files of events by name: the parquet below `data` that have the columns, or all where there is no such folder. Raises DataError for two."""
    if source.is_file():
        return {source.name: source} if set(NEEDED) <= _names(source) else {}
    found = {p.relative_to(source): p for p in sorted(source.rglob("*.parquet")) if set(NEEDED) <= _names(p)}
    inside = {name: p for name, p in found.items() if DATA in name.parts[:-1]}
    folders = sorted({"/".join(name.parts[: name.parts.index(DATA) + 1]) for name in inside})
    if len(folders) > 1:
        raise DataError(f"{source}: two MEDS data folders, {folders[0]} and {folders[1]}; pass the folder of one of them")
    return {name.as_posix(): p for name, p in (inside or found).items()}


def rows(files: Mapping[str, Path]) -> int:
    """How many events there are."""
    return sum(map(concepts.row_count, files.values()))


def events(files: Mapping[str, Path], warnings: Counter[str]) -> Iterator[Events]:
    """All events. Raises DataError naming file and column."""
    for name, path in files.items():
        with columns.readable(path, name):
            schema = pq.read_schema(path)
        _check(name, schema)
        _check_more(name, schema)
        for batch in concepts.parquet_batches(path, [column for column in WANTED if column in schema.names], name):
            yield _events(name, _plain(name, batch), warnings)


def described(source: Path, files: Mapping[str, Path], codes: frozenset[str]) -> tuple[dict[str, str], list[Path]]:
    """Descriptions in metadata/codes.parquet, or of an OMOP CONCEPT table put beside the data, and the files that they are from."""
    found, read = concepts.described(source, codes)
    for path in sorted(source.rglob("codes.parquet")) if source.is_dir() else ():
        if {"code", "description"} <= _names(path):
            for batch in concepts.batches(path, ("code", "description")):
                told = zip(*(concepts.texts(batch, name, path.name).to_pylist() for name in ("code", "description")), strict=True)
                found |= {code: text for code, text in told if code in codes and text}
            read.append(path)
    return found, read


def _names(path: Path) -> set[str]:
    return set(concepts.column_names(path))


def _check(name: str, schema: pa.Schema) -> None:
    """Types of the columns that matter."""
    kinds = {"subject_id": pa.types.is_integer, "time": pa.types.is_timestamp, "code": _is_text}
    for column, fits in kinds.items():
        kind = schema.field(column).type
        if not fits(kind):
            expected = {"subject_id": "whole numbers", "time": "timestamps", "code": "texts"}[column]
            raise DataError(f"{name}: column {column} is {kind}, expected {expected}")
    for column in [c for c in ("time", "end") if c in schema.names]:
        kind = schema.field(column).type
        if pa.types.is_timestamp(kind) and kind.tz is not None:
            raise DataError(f"{name}: column {column} has the zone {kind.tz}; expected local times without one, as labels have them")
        if not (pa.types.is_timestamp(kind) or pa.types.is_date(kind) or pa.types.is_null(kind)):
            raise DataError(f"{name}: column {column} is {kind}, expected timestamps")


def _check_more(name: str, schema: pa.Schema) -> None:
    """Types of the columns that a source may have beside those."""
    numbers = ((pa.types.is_floating, pa.types.is_integer, pa.types.is_decimal), "numbers")
    times, texts = ((pa.types.is_timestamp, pa.types.is_date), "timestamps"), ((_is_text,), "texts")
    expected = {"numeric_value": numbers, "end": times}
    expected |= dict.fromkeys(("text_value", "unit", "omop_table", "table"), texts)
    for column, (fits, words) in expected.items():
        if column in schema.names and not any(fit(kind := schema.field(column).type) for fit in (*fits, pa.types.is_null)):
            raise DataError(f"{name}: column {column} is {kind}, expected {words}")


def _plain(name: str, batch: pa.RecordBatch) -> pa.RecordBatch:
    """The batch with its texts as such. Raises DataError for bytes that are none."""
    made = [columns.plain(batch[column]) for column in batch.schema.names]
    for column, array in zip(batch.schema.names, made, strict=True):
        if pa.types.is_binary(array.type):
            raise DataError(f"{name}: column {column} holds bytes that are not UTF-8 text")
    return pa.RecordBatch.from_arrays(made, batch.schema.names)


def _is_text(kind: pa.DataType) -> bool:
    inner = kind.value_type if pa.types.is_dictionary(kind) else kind
    return bool(pa.types.is_string(inner) or pa.types.is_large_string(inner) or pa.types.is_string_view(inner))


def _events(name: str, batch: pa.RecordBatch, warnings: Counter[str]) -> Events:
    have = {column: batch[column] for column in batch.schema.names}
    if have["subject_id"].null_count:
        raise DataError(f"{name}: column subject_id is empty in {have['subject_id'].null_count} rows of a part")
    size, none = len(batch), pa.nulls(len(batch), pa.string())
    texts = {column: have[column].cast(pa.string()) if column in have else none for column in ("code", "text_value", "unit")}
    value = have["numeric_value"].cast(pa.float64()) if "numeric_value" in have else pa.nulls(size, pa.float64())
    visit = concepts.identifiers(have.get("visit_id"), name, "visit_id", size)
    table = have.get("omop_table", have.get("table"))
    time = columns.seconds(have["time"], name, "time")
    place = columns.tables(table.cast(pa.string()) if table is not None else none, texts["code"])
    held = (visit >= 0) & dated(time) & np.isin(place, DIAGNOSES)
    warnings["events_without_a_time"] += have["time"].null_count
    warnings["events_known_at_the_end_of_their_visit"] += int(held.sum())
    return Events(
        columns.whole(have["subject_id"], name, "subject_id"),
        time,
        _ends(have["end"], name) if "end" in have else np.full(size, np.datetime64("NaT", "s")),
        texts["code"],
        value.fill_null(float("nan")).to_numpy(zero_copy_only=False),
        texts["text_value"],
        texts["unit"],
        visit,
        place,
        held,
    )


def _ends(column: pa.Array, name: str) -> np.ndarray:
    """Ends, of which a source may have dates only, or none. A cast to times would drop a zone without a word."""
    return columns.seconds(column if pa.types.is_timestamp(column.type) else column.cast(pa.timestamp("s")), name, "end")
