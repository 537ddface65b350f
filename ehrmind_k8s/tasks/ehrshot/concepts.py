"""OMOP tables as batches of columns, and the vocabulary among them: CONCEPT gives concepts their codes and codes their names."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from ehrmind_k8s.errors import DataError, nearest
from ehrmind_k8s.tasks.ehrshot import columns

SUFFIXES = (".csv", ".csv.gz", ".tsv", ".parquet")
BATCH_ROWS = 200_000
BLOCK_BYTES = 4 << 20
EXACT_FLOATS = 1 << 53  # up to here every whole number has a float of its own
# Concepts that everything else here hangs on, for sources without CONCEPT (OHDSI Athena, standard concepts of Gender and Visit).
STANDARD: Mapping[int, str] = {8507: "Gender/M", 8532: "Gender/F", 9201: "Visit/IP", 9202: "Visit/OP", 9203: "Visit/ER", 262: "Visit/ERIP"}


def described(source: Path, codes: frozenset[str]) -> tuple[dict[str, str], list[Path]]:
    """Code -> concept name, for the codes that occur, and the files that say so; both empty where the source has no CONCEPT."""
    found: dict[str, str] = {}
    read, wanted = files(source, "concept"), pa.array(sorted(codes), pa.string())
    for path in read:
        for batch in batches(path, ("vocabulary_id", "concept_code", "concept_name")):
            made, name = made_codes(batch, path.name), texts(batch, "concept_name", path.name)
            kept = pc.is_in(made, value_set=wanted)
            found |= dict(zip(made.filter(kept).to_pylist(), name.filter(kept).to_pylist(), strict=True))
    return {code: text for code, text in found.items() if text}, read


class Concepts:
    """Codes and names of the concepts that occur, by a lookup in sorted ids."""

    def __init__(self, source: Path, used: np.ndarray) -> None:
        ids, codes = [np.array([*STANDARD], dtype=np.int64)], [pa.array([*STANDARD.values()], pa.string())]
        names = [pa.nulls(len(STANDARD), pa.string())]
        wanted = pa.array(used)
        for path in files(source, "concept"):
            for batch in batches(path, ("concept_id", "vocabulary_id", "concept_code", "concept_name")):
                concept = integers(needed(batch, "concept_id", path.name), path.name, "concept_id")
                kept = pc.is_in(pa.array(concept), value_set=wanted)
                ids.append(concept[kept.to_numpy(zero_copy_only=False)])
                codes.append(made_codes(batch, path.name).filter(kept))
                names.append(texts(batch, "concept_name", path.name).filter(kept))
        found = np.concatenate(ids)
        order = np.argsort(found, kind="stable")
        self._ids = found[order]
        self._codes, self._names = (pa.concat_arrays(texts).take(pa.array(order)) for texts in (codes, names))

    def codes(self, concept: np.ndarray) -> pa.Array:
        """`VOCABULARY/code` of each concept id, `OMOP/<id>` for one that CONCEPT lacks, null for 0 (no concept)."""
        place, known = self._places(concept)
        bare = pc.binary_join_element_wise(pa.scalar("OMOP"), pa.array(concept).cast(pa.string()), "/")
        none = pa.scalar(None, pa.string())
        return pc.if_else(known, self._codes.take(place), pc.if_else(pa.array(concept > 0), bare, none))

    def names(self, concept: np.ndarray) -> pa.Array:
        """Name of each concept id; null for 0, and for one that CONCEPT lacks."""
        place, known = self._places(concept)
        return pc.if_else(known, self._names.take(place), pa.scalar(None, pa.string()))

    def _places(self, concept: np.ndarray) -> tuple[pa.Array, pa.Array]:
        """Place of each concept among the known ones, and whether it is one."""
        place = np.searchsorted(self._ids, concept)
        known = (place < len(self._ids)) & (concept > 0)
        known[known] = self._ids[place[known]] == concept[known]
        return pa.array(np.where(known, place, 0)), pa.array(known)


def batches(path: Path, wanted: Sequence[str] | None) -> Iterator[dict[str, pa.Array]]:
    """Columns (all, or `wanted`) by lower-case name, batch by batch, in their plain form; those of CSV are texts. Raises DataError."""
    header = column_names(path)
    names = {n.lower(): n for n in header}
    chosen = [names[w] for w in wanted if w in names] if wanted is not None else list(names.values())
    if not chosen:
        return
    if twice := [n for n in chosen if sum(n.lower() == other.lower() for other in header) > 1 and n]:
        raise DataError(f"{path.name}: two columns are called {twice[0]}; keep one of them")
    lower = {name: low for low, name in names.items()}
    read = parquet_batches(path, chosen) if columns.is_parquet(path) else _csv_batches(path, header, chosen)
    for batch in read:
        yield {lower[n]: columns.plain(batch[n]) for n in batch.schema.names}


def parquet_batches(path: Path, chosen: Sequence[str], name: str = "") -> Iterator[pa.RecordBatch]:
    """Columns of a parquet file, batch by batch. Raises DataError for a file that is torn."""
    with columns.readable(path, name):
        yield from pq.ParquetFile(path).iter_batches(BATCH_ROWS, columns=list(chosen))


def _csv_batches(path: Path, header: Sequence[str], chosen: Sequence[str]) -> Iterator[pa.RecordBatch]:
    delimiter = _delimiter(path)
    parse = pyarrow.csv.ParseOptions(delimiter=delimiter, quote_char=False if delimiter == "\t" else '"', newlines_in_values=delimiter == ",")
    yield from csv_batches(path, header, dict.fromkeys(chosen, pa.string()), parse, BLOCK_BYTES)


def csv_batches(
    path: Path, header: Sequence[str], types: Mapping[str, pa.DataType], parse: pyarrow.csv.ParseOptions, block_bytes: int
) -> Iterator[pa.RecordBatch]:
    """Columns of a CSV file by the names of `header`, whatever blanks or marks its own first line has beside them. Raises DataError."""
    convert = pyarrow.csv.ConvertOptions(column_types=types, include_columns=list(types), strings_can_be_null=True)
    read = pyarrow.csv.ReadOptions(block_size=block_bytes, column_names=list(header), skip_rows=1)
    with columns.readable(path, "", header, types):
        try:
            reader = pyarrow.csv.open_csv(columns.stream(path), read_options=read, parse_options=parse, convert_options=convert)
        except pa.ArrowInvalid as error:
            if str(error).startswith(columns.ONLY_HEADER):
                return
            raise
        with reader:
            yield from reader


def column_names(path: Path) -> list[str]:
    """Names of a file's columns, as it writes them. Raises DataError."""
    if not columns.is_parquet(path):
        return columns.header(path, _delimiter(path))
    with columns.readable(path):
        return list(pq.read_schema(path).names)


def row_count(path: Path) -> int:
    """Rows of a parquet file. Raises DataError for one that is torn."""
    with columns.readable(path):
        return int(pq.ParquetFile(path).metadata.num_rows)


def _delimiter(path: Path) -> str:
    """Athena's vocabularies have tabs, whatever their files are called."""
    return "\t" if len(columns.header(path, "\t")) > 1 else ","


def needed(batch: Mapping[str, pa.Array], name: str, file: str) -> pa.Array:
    """A column. Raises DataError where there is none."""
    if name not in batch:
        raise DataError(f"{file}: no column {name}; {nearest(name, batch)}")
    return batch[name]


def texts(batch: Mapping[str, pa.Array], name: str, file: str) -> pa.Array:
    """A column that must be there, as texts. Raises DataError."""
    column = needed(batch, name, file)
    return columns.texts(column, len(column), file, name)


def made_codes(batch: Mapping[str, pa.Array], file: str) -> pa.Array:
    """`VOCABULARY/code` of each row of CONCEPT."""
    return pc.binary_join_element_wise(texts(batch, "vocabulary_id", file), texts(batch, "concept_code", file), "/")


def integers(column: pa.Array | None, name: str, field: str, missing: int | None = None, size: int = 0) -> np.ndarray:
    """Whole numbers; `missing` where there are none. Raises DataError naming the column."""
    if column is None:
        if missing is None:
            raise DataError(f"{name}: no column {field}")
        return np.full(size, missing, dtype=np.int64)
    if column.null_count and missing is None:
        raise DataError(f"{name}: column {field} is empty in {column.null_count} rows of a part")
    try:
        whole = _whole(column)
    except pa.ArrowException:
        raise DataError(f"{name}: column {field} holds something else than whole numbers") from None
    found: np.ndarray = pc.fill_null(whole, missing or 0).to_numpy(zero_copy_only=False)
    return found


def identifiers(column: pa.Array | None, name: str, field: str, size: int) -> np.ndarray:
    """Ids that tell rows apart and no more, as whole numbers, -1 for none: digits as they are, any other text (a UUID) as its hash."""
    if column is None:
        return np.full(size, -1, dtype=np.int64)
    try:
        return integers(column, name, field, missing=-1)
    except DataError:
        encoded = columns.texts(column, size, name, field).dictionary_encode()
    ids = np.array([_identifier(text) for text in encoded.dictionary.to_pylist()] + [-1], dtype=np.int64)
    found: np.ndarray = ids[encoded.indices.fill_null(len(ids) - 1).to_numpy(zero_copy_only=False)]
    return found


def _identifier(text: str) -> int:
    digits = text.removesuffix(".0")
    if digits.isascii() and digits.isdigit() and len(digits) < 19:
        return int(digits)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little") >> 1


def _whole(column: pa.Array) -> pa.Array:
    """A column as int64. Ids are exact: beside digits only the form of a float is read (`7.0`, `1e3`), and that no further than floats count."""
    if pa.types.is_string(column.type):
        text = pc.utf8_trim_whitespace(column)
        text = pc.replace_substring_regex(pc.if_else(pc.equal(text, ""), pa.scalar(None, pa.string()), text), r"^([-+]?[0-9]+)\.0*$", r"\1")
        try:
            return text.cast(pa.int64())
        except pa.ArrowInvalid:
            column = text.cast(pa.float64())
    if pa.types.is_floating(column.type) and pc.any(pc.greater(pc.abs(column), float(EXACT_FLOATS))).as_py():
        raise pa.ArrowInvalid("a float of this size stands for several numbers")
    return column.cast(pa.int64())


def files(source: Path, table: str) -> list[Path]:
    """Files of a table by its lower-case name: one file, or the shards in a folder of that name."""
    if not source.is_dir():
        return []
    found = [p for p in sorted(source.rglob("*")) if p.is_file() and p.name.lower().endswith(SUFFIXES)]
    whole = [p for p in found if p.name.lower().split(".")[0] == table]
    return whole or [p for p in found if p.parent.name.lower() == table]
