"""MEDS (Medical Event Data Standard 0.3 and 0.4): parquet files of events, subject_id, time, code, numeric_value, text_value and more.

EHRSHOT has been released so twice: one file with `omop_table` and no visits, and shards with `table`, `visit_id` and `end`. An event without
a time is a static fact if it tells of the person; `buckets` leaves out all others.
"""

import csv
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ehrmind_k8s.errors import DataError, nearest
from ehrmind_k8s.tasks.ehrshot import columns, concepts
from ehrmind_k8s.tasks.ehrshot.buckets import DIAGNOSES, Events, dated

NEEDED = ("subject_id", "time", "code")
WANTED = (*NEEDED, "numeric_value", "text_value", "unit", "visit_id", "end", "omop_table", "table")
SPLIT_COLUMNS = (("subject_id", "split"), ("subject_id", "split_name"))
BATCH_ROWS = 200_000


def find(source: Path) -> dict[str, Path]:
    """Files of events by name: every parquet that has the columns, as `data/*.parquet` of a MEDS folder does."""
    paths = [source] if source.is_file() else sorted(source.rglob("*.parquet"))
    return {p.relative_to(source).as_posix() if p != source else p.name: p for p in paths if set(NEEDED) <= _names(p)}


def rows(files: Mapping[str, Path]) -> int:
    """How many events there are."""
    return sum(pq.ParquetFile(p).metadata.num_rows for p in files.values())


def events(files: Mapping[str, Path], warnings: Counter[str]) -> Iterator[Events]:
    """All events. Raises DataError naming file and column."""
    for name, path in files.items():
        file = pq.ParquetFile(path)
        chosen = [column for column in WANTED if column in file.schema_arrow.names]
        _check(name, file.schema_arrow)
        try:
            for batch in file.iter_batches(BATCH_ROWS, columns=chosen):
                yield _events(name, batch, warnings)
        except (OSError, pa.ArrowException) as error:
            raise DataError(f"{name}: not a whole parquet file ({type(error).__name__}); copy it again") from None


def splits(source: Path) -> tuple[dict[int, str] | None, Path | None]:
    """Split of each subject: metadata/subject_splits.parquet, or a CSV with subject_id and split (femr's has split_name)."""
    for path in sorted(p for p in source.rglob("*split*") if p.suffix in (".parquet", ".csv")) if source.is_dir() else ():
        pairs = _pairs(path)
        if pairs is None:
            continue
        found: dict[int, str] = {}
        for subject, split in pairs:
            if found.setdefault(subject, split) != split:
                raise DataError(f"{path.name}: a subject is in two splits, {found[subject]} and {split}")
        return found, path
    return None, None


def described(source: Path, files: Mapping[str, Path], codes: frozenset[str]) -> tuple[dict[str, str], list[Path]]:
    """Descriptions in metadata/codes.parquet, or of an OMOP CONCEPT table put beside the data, and the files that they are from."""
    found, read = concepts.described(source, codes)
    for path in sorted(source.rglob("codes.parquet")) if source.is_dir() else ():
        if {"code", "description"} <= _names(path):
            table = pq.read_table(path, columns=["code", "description"])
            told = zip(table["code"].to_pylist(), table["description"].to_pylist(), strict=True)
            found |= {code: text.strip() for code, text in told if code in codes and text and text.strip()}
            read.append(path)
    return found, read


def _names(path: Path) -> set[str]:
    try:
        return set(pq.read_schema(path).names)
    except (pa.ArrowException, OSError):
        raise DataError(f"{path.name}: not a whole parquet file; copy it again") from None


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


def _is_text(kind: pa.DataType) -> bool:
    inner = kind.value_type if pa.types.is_dictionary(kind) else kind
    return bool(pa.types.is_string(inner) or pa.types.is_large_string(inner))


def _events(name: str, batch: pa.RecordBatch, warnings: Counter[str]) -> Events:
    have = {column: batch[column] for column in batch.schema.names}
    if have["subject_id"].null_count:
        raise DataError(f"{name}: column subject_id is empty in {have['subject_id'].null_count} rows of a part")
    size, none = len(batch), pa.nulls(len(batch), pa.string())
    texts = {column: have[column].cast(pa.string()) if column in have else none for column in ("code", "text_value", "unit")}
    value = have["numeric_value"].cast(pa.float64()) if "numeric_value" in have else pa.nulls(size, pa.float64())
    visit = have["visit_id"].cast(pa.int64()) if "visit_id" in have else pa.nulls(size, pa.int64())
    table = have.get("omop_table", have.get("table"))
    time, visit = columns.seconds(have["time"], name, "time"), pc.fill_null(visit, -1).to_numpy(zero_copy_only=False)
    place = columns.tables(table.cast(pa.string()) if table is not None else none, texts["code"])
    held = (visit >= 0) & dated(time) & np.isin(place, DIAGNOSES)
    warnings["events_without_a_time"] += have["time"].null_count
    warnings["events_known_at_the_end_of_their_visit"] += int(held.sum())
    return Events(
        have["subject_id"].cast(pa.int64()).to_numpy(),
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


def _pairs(path: Path) -> list[tuple[int, str]] | None:
    """Subject and split of each row; None for a file that has other columns."""
    if path.suffix == ".parquet":
        table = pq.read_table(path)
        names = next((pair for pair in SPLIT_COLUMNS if set(pair) <= set(table.column_names)), None)
        return None if names is None else list(zip(table[names[0]].to_pylist(), table[names[1]].to_pylist(), strict=True))
    with path.open(encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file)
        names = next((pair for pair in SPLIT_COLUMNS if set(pair) <= set(reader.fieldnames or ())), None)
        if names is None:
            return None
        try:
            return [(int(row[names[0]]), row[names[1]]) for row in reader]
        except (TypeError, ValueError):
            raise DataError(f"{path.name}: column {names[0]} is not a whole number in line {reader.line_num}; {nearest(names[0], names)}") from None
