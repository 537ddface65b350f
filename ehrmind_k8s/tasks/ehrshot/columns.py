"""Columns of records as arrays: numbers out of mixed columns, times to the second, tables by name; what to say of one that cannot be read."""

import re
from collections.abc import Callable, Mapping, Sequence
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
_COLUMN = re.compile(r"column #([0-9]+)")
_PLACES = {name: i for i, name in enumerate(TABLES)}


def header(path: Path, delimiter: str = ",") -> list[str]:
    """Names of a CSV's columns. Raises DataError for an empty file."""
    with pa.input_stream(str(path), compression="gzip" if path.suffix == ".gz" else None) as file:
        first = file.read(1 << 16).split(b"\n", 1)[0].decode("utf-8", "replace").strip("\ufeff\r")
    if not first:
        raise DataError(f"{path.name}: empty; a header line is expected")
    return [name.strip().strip('"') for name in first.split(delimiter)]


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
    texts = encoded.dictionary.to_pylist()
    values = np.array([float(t) if _NUMBER.fullmatch(t) else np.nan for t in texts] + [np.nan])
    kept = pa.array([None if not np.isnan(v) or not t.strip() else t.strip() for t, v in zip(texts, values, strict=False)], pa.string())
    places = encoded.indices.fill_null(len(texts)).to_numpy(zero_copy_only=False)
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
