"""OMOP tables as batches of columns, and the vocabulary among them: CONCEPT gives concepts their codes and codes their names."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from ehrmind_k8s.errors import DataError
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
            made = pc.binary_join_element_wise(batch["vocabulary_id"], batch["concept_code"], "/")
            kept = pc.is_in(made, value_set=wanted)
            found |= dict(zip(made.filter(kept).to_pylist(), batch["concept_name"].filter(kept).to_pylist(), strict=True))
    return {code: text for code, text in found.items() if text}, read


class Concepts:
    """Codes and names of the concepts that occur, by a lookup in sorted ids."""

    def __init__(self, source: Path, used: np.ndarray) -> None:
        ids, codes = [np.array([*STANDARD], dtype=np.int64)], [pa.array([*STANDARD.values()], pa.string())]
        names = [pa.nulls(len(STANDARD), pa.string())]
        wanted = pa.array(used)
        for path in files(source, "concept"):
            for batch in batches(path, ("concept_id", "vocabulary_id", "concept_code", "concept_name")):
                concept = integers(batch["concept_id"], path.name, "concept_id")
                kept = pc.is_in(pa.array(concept), value_set=wanted)
                ids.append(concept[kept.to_numpy(zero_copy_only=False)])
                codes.append(pc.binary_join_element_wise(batch["vocabulary_id"], batch["concept_code"], "/").filter(kept))
                names.append(batch["concept_name"].filter(kept))
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
    """Columns (all, or `wanted`) by lower-case name, batch by batch; those of CSV are texts. Raises DataError."""
    header = column_names(path)
    names = {n.lower(): n for n in header}
    chosen = [names[w] for w in wanted if w in names] if wanted is not None else list(names.values())
    if not chosen:
        return
    if twice := [n for n in chosen if sum(n.lower() == other.lower() for other in header) > 1 and n]:
        raise DataError(f"{path.name}: two columns are called {twice[0]}; keep one of them")
    lower = {name: low for low, name in names.items()}
    try:
        if path.suffix == ".parquet":
            for batch in pq.ParquetFile(path).iter_batches(BATCH_ROWS, columns=chosen):
                yield {lower[n]: batch[n] for n in batch.schema.names}
            return
        delimiter = _delimiter(path)
        parse = pyarrow.csv.ParseOptions(delimiter=delimiter, quote_char=False if delimiter == "\t" else '"', newlines_in_values=delimiter == ",")
        convert = pyarrow.csv.ConvertOptions(column_types=dict.fromkeys(chosen, pa.string()), include_columns=chosen, strings_can_be_null=True)
        read = pyarrow.csv.ReadOptions(block_size=BLOCK_BYTES, column_names=header, skip_rows=1)
        with pyarrow.csv.open_csv(path, read_options=read, parse_options=parse, convert_options=convert) as reader:
            for batch in reader:
                yield {lower[n]: batch[n] for n in batch.schema.names}
    except pa.ArrowInvalid as error:
        raise DataError(f"{path.name}: {columns.problem(str(error), header, {})}") from None


def column_names(path: Path) -> list[str]:
    return list(pq.read_schema(path).names) if path.suffix == ".parquet" else columns.header(path, _delimiter(path))


def _delimiter(path: Path) -> str:
    """Athena's vocabularies have tabs, whatever their files are called."""
    return "\t" if len(columns.header(path, "\t")) > 1 else ","


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
    except pa.ArrowInvalid:
        raise DataError(f"{name}: column {field} holds something else than whole numbers") from None
    found: np.ndarray = pc.fill_null(whole, missing or 0).to_numpy(zero_copy_only=False)
    return found


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
