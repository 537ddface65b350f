"""Columns of records as arrays: numbers out of mixed columns, times to the second, tables by name; what to say of one that cannot be read."""

import csv
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ehrmind_k8s.errors import DataError
from ehrmind_k8s.tasks.ehrshot.timeline import TABLES

OTHER = TABLES.index("other")
# Where a source does not say which table an event is from, its vocabulary does.
VOCABULARIES: Mapping[str, str] = {
    "Visit": "visit_occurrence",
    "Gender": "person",
    "Race": "person",
    "Ethnicity": "person",
    "MEDS_BIRTH": "person",
    "MEDS_DEATH": "death",
    "LOINC": "measurement",
    "RxNorm": "drug_exposure",
    "RxNorm Extension": "drug_exposure",
    "CVX": "drug_exposure",
    "SNOMED": "condition_occurrence",
    "ICD10CM": "condition_occurrence",
    "ICD9CM": "condition_occurrence",
    "ICDO3": "condition_occurrence",
    "CPT4": "procedure_occurrence",
    "ICD10PCS": "procedure_occurrence",
    "ICD9Proc": "procedure_occurrence",
    "HCPCS": "procedure_occurrence",
}
_NUMBER = re.compile(r"\s*[-+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?\s*")
NOT_A_NUMBER = "nan"  # how some exports write that there is none
_COLUMN = re.compile(r"column #([0-9]+)")
_PLACES = {name: i for i, name in enumerate(TABLES)}
NO_TYPES: Mapping[str, pa.DataType] = {}
ONLY_HEADER = "Could not skip initial"  # pyarrow of a CSV file that ends with its header, without a line end


def is_parquet(path: Path) -> bool:
    return path.name.lower().endswith(".parquet")


def is_gzip(path: Path) -> bool:
    return path.name.lower().endswith(".gz")


@contextmanager
def readable(path: Path, name: str = "", header: Sequence[str] = (), types: Mapping[str, pa.DataType] = NO_TYPES) -> Iterator[None]:
    """What libraries raise for a file that they cannot read becomes a DataError that names it. `header` and `types` are those of a CSV file."""
    try:
        yield
    except pa.ArrowMemoryError:
        raise
    except (pa.ArrowException, OSError, EOFError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{name or path.name}: {_why(path, error, header, types)}") from None


def _why(path: Path, error: Exception, header: Sequence[str], types: Mapping[str, pa.DataType]) -> str:
    if isinstance(error, OSError) and error.errno:
        return f"cannot be read ({error.strerror})"
    if is_parquet(path):
        return f"not a whole parquet file ({type(error).__name__}); copy it again"
    if is_gzip(path) and isinstance(error, OSError | EOFError):
        return "not a whole gzip file; copy it again"
    return "not UTF-8; convert it, for example with iconv" if isinstance(error, UnicodeDecodeError) else problem(str(error), header, types)


def header(path: Path, delimiter: str = ",") -> list[str]:
    """Names of a CSV's columns. Raises DataError for an empty file."""
    with readable(path):
        with stream(path) as file:
            first = file.read(1 << 16).split(b"\n", 1)[0].decode("utf-8", "replace").strip("\ufeff\r")
        if not first:
            raise DataError(f"{path.name}: empty; a header line is expected")
        return [name.strip().strip('"') for name in next(csv.reader([first], delimiter=delimiter))]


def stream(path: Path) -> pa.NativeFile:
    """The bytes of a file, unpacked."""
    return pa.input_stream(str(path), compression="gzip" if is_gzip(path) else None)


def plain(column: pa.Array) -> pa.Array:
    """A column in the one form that readers work with: texts as string, no dictionary, NaN as null. What has no such form stays as it is:
    nobody may ask for it.
    """
    if isinstance(column, pa.ExtensionArray):
        column = column.storage
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    kind = column.type
    if pa.types.is_floating(kind):
        return pc.if_else(pc.is_nan(column), pa.scalar(None, kind), column)
    if not (_is_text(kind) or pa.types.is_binary(kind) or pa.types.is_large_binary(kind)):
        return column
    try:
        text = column.cast(pa.string())
        text.validate(full=True)
    except pa.ArrowInvalid:
        return column.cast(pa.binary())
    return text


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def whole(column: pa.Array, file: str, name: str) -> np.ndarray:
    """A column of whole numbers or booleans as int64. Raises DataError for a number that is larger."""
    try:
        found: np.ndarray = column.cast(pa.int64()).to_numpy(zero_copy_only=False)
    except pa.ArrowInvalid:
        raise DataError(f"{file}: column {name} has a number over {np.iinfo(np.int64).max}") from None
    return found


def texts(column: pa.Array | None, size: int, file: str, name: str) -> pa.Array:
    """A plain column as texts, blank ones null; all null where there is none. Raises DataError naming the column."""
    if column is None:
        return pa.nulls(size, pa.string())
    if pa.types.is_binary(column.type):
        raise DataError(f"{file}: column {name} holds bytes that are not UTF-8 text")
    try:
        text = pc.utf8_trim_whitespace(column.cast(pa.string()))
    except pa.ArrowException:
        raise DataError(f"{file}: column {name} is {column.type}, expected texts") from None
    return pc.if_else(pc.equal(text, ""), pa.scalar(None, pa.string()), text)


def problem(said: str, names: Sequence[str], types: Mapping[str, pa.DataType]) -> str:
    """A sentence about what pyarrow could not read. Its own words quote the value, which may be a patient's."""
    if "UTF8" in said:
        return "not UTF-8; convert it, for example with iconv"
    match = _COLUMN.search(said)
    if match is None or int(match[1]) >= len(names):
        return "a line has another number of fields than the header" if "columns, got" in said else "not a CSV file that can be read to its end"
    name = names[int(match[1])]
    expected = {"timestamp[us]": "times YYYY-MM-DD HH:MM:SS without a zone", "int64": "whole numbers"}.get(str(types.get(name)), "numbers")
    return f"column {name} holds something else than {expected}"


def seconds(column: pa.Array, file: str, name: str) -> np.ndarray:
    """Times of a timestamp column as datetime64[s], null as NaT. Raises DataError for times with a zone.

    A part of a second counts as its end, when the event is known for sure; the last second of a day stays in its day.
    """
    if column.type.tz is not None:
        raise DataError(f"{file}: times of column {name} have the zone {column.type.tz}; expected local times without one, as labels have them")
    exact: np.ndarray = column.to_numpy(zero_copy_only=False)
    second: np.ndarray = exact.astype("datetime64[s]")
    after = second + np.timedelta64(1, "s")
    return np.where((second < exact) & (after.astype("datetime64[D]") == second.astype("datetime64[D]")), after, second)


def numbers(column: pa.Array) -> tuple[np.ndarray, pa.Array]:
    """Numbers of a column of texts (NaN for none), and the texts that are no number (null for none)."""
    encoded = column.dictionary_encode()
    words = encoded.dictionary.to_pylist()
    words = ["" if t.strip().lower() == NOT_A_NUMBER else t for t in words]
    values = np.array([float(t) if _NUMBER.fullmatch(t) else np.nan for t in words] + [np.nan])
    kept = pa.array([None if not np.isnan(v) or not t.strip() else t.strip() for t, v in zip(words, values, strict=False)], pa.string())
    places = encoded.indices.fill_null(len(words)).to_numpy(zero_copy_only=False)
    return values[places], pc.take(kept, encoded.indices)


def tables(named: pa.Array, codes: pa.Array) -> np.ndarray:
    """Place in TABLES of each event (int8): by name, else by the vocabulary of its code."""
    by_name = _looked_up(named, lambda text: _PLACES.get(text.strip().lower(), OTHER))
    by_code = _looked_up(codes, lambda text: _PLACES[VOCABULARIES.get(text.partition("/")[0], "other")])
    found: np.ndarray = np.where(by_name < 0, by_code, by_name)
    return np.where(found < 0, OTHER, found).astype(np.int8)


def _looked_up(column: pa.Array, place: Callable[[str], int]) -> np.ndarray:
    """`place` of each text, asked once for each distinct one; -1 for null."""
    encoded = column.dictionary_encode()
    places = np.array([place(text) for text in encoded.dictionary.to_pylist()] + [-1])
    found: np.ndarray = places[encoded.indices.fill_null(len(places) - 1).to_numpy(zero_copy_only=False)]
    return found
