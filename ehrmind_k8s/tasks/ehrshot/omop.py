"""OMOP CDM 5.3 and 5.4: clinical tables as CSV, .csv.gz or parquet, one file or a folder of shards each, names in any case.

    PERSON.csv   visit_occurrence/part-0.parquet   measurement.csv.gz   CONCEPT.csv (Athena: tabs)

OMOP keeps dates; a time of day is often missing, or midnight for "unknown" (`buckets` says what becomes of midnight). The diagnoses of a stay
are written for its bill when it is over, and dated on its first day: they are held until the visit ends. A code is the concept's
`VOCABULARY/code` from CONCEPT; without CONCEPT it is `OMOP/<concept id>`, without a concept the source's own word, unless
it is prose. Notes are not read.
"""

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ehrmind_k8s.errors import DataError, nearest
from ehrmind_k8s.tasks.ehrshot import columns, concepts, texts
from ehrmind_k8s.tasks.ehrshot.buckets import DIAGNOSES, Events, dated
from ehrmind_k8s.tasks.ehrshot.concepts import Concepts
from ehrmind_k8s.tasks.ehrshot.timeline import NAT, TABLES


@dataclass(frozen=True, slots=True)
class Table:
    """Columns of one clinical table that events are made of (CDM 5.4 field list; 5.3 names are the same here)."""

    start: str  # stem of the start's date and datetime columns
    concept: str
    end: str = ""
    source: str = ""  # source concept and value, `<source>_source_concept_id` and `<source>_source_value`


CLINICAL: Mapping[str, Table] = {
    "visit_occurrence": Table("visit_start", "visit_concept_id", "visit_end", "visit"),
    "visit_detail": Table("visit_detail_start", "visit_detail_concept_id", "visit_detail_end", "visit_detail"),
    "condition_occurrence": Table("condition_start", "condition_concept_id", "condition_end", "condition"),
    "drug_exposure": Table("drug_exposure_start", "drug_concept_id", "drug_exposure_end", "drug"),
    "procedure_occurrence": Table("procedure", "procedure_concept_id", "procedure_end", "procedure"),
    "measurement": Table("measurement", "measurement_concept_id", "", "measurement"),
    "observation": Table("observation", "observation_concept_id", "", "observation"),
    "device_exposure": Table("device_exposure_start", "device_concept_id", "device_exposure_end", "device"),
    "death": Table("death", "cause_concept_id", "", "cause"),
}
TEXTS = ("value_as_number", "value_as_string")  # and all source values
PERSON = "person"
PERSON_CONCEPTS = ("gender_concept_id", "race_concept_id", "ethnicity_concept_id")
BIRTH = "MEDS_BIRTH"
MOST_YEARS = 9999
OLDEST = np.datetime64("1850-01-01", "D")
ROW_BYTES = 100
# Type concepts of records that were made for a bill (OHDSI Athena, vocabularies Type Concept, Condition Type, Procedure Type, Observation Type):
# claims and their headers and details, discharge and billing records of an EHR, and positions on a claim.
BILLING = np.array(
    [
        *(32019, 32810, 32811, 32812, 32816, 32821, 32823, 32824, 32882, 32886),
        *(*range(32844, 32847), *range(32853, 32856), *range(32859, 32862), 32869, *range(32871, 32874)),
        *(*range(38000183, 38000245), *range(38000248, 38000275), *range(44786627, 44786632), *range(45756835, 45756911)),
    ]
)
_SHARD = re.compile(r"[-_.]?(?:part)?[-_.]?[0-9]+(?:-of-[0-9]+)?$")


def find(source: Path) -> dict[str, Path]:
    """Files of the clinical tables and PERSON by their names in the source; nothing where PERSON is not among them. Raises DataError where a
    table is there twice: every event would be.
    """
    if not source.is_dir():
        return {}
    found = {p.relative_to(source).as_posix(): p for p in sorted(source.rglob("*")) if p.is_file() and _table(p, source) in (PERSON, *CLINICAL)}
    if not any(_table(p, source) == PERSON for p in found.values()):
        return {}
    copies: dict[str, dict[tuple[str, ...], str]] = {}
    for name, path in found.items():
        copies.setdefault(_table(path, source), {}).setdefault(_copy(path), name)
    for table, of in copies.items():
        if len(of) > 1:
            raise DataError(f"{source}: the table {table} is there twice, as {' and '.join(sorted(of.values())[:2])}; keep one")
    return found


def rows(files: Mapping[str, Path]) -> int:
    """About how many events there are."""
    return sum(concepts.row_count(p) if columns.is_parquet(p) else _csv_bytes(p) // ROW_BYTES for p in files.values())


def events(files: Mapping[str, Path], warnings: Counter[str]) -> Iterator[Events]:
    """All events. Raises DataError naming file and column."""
    _check_persons({name: path for name, path in files.items() if _table(path, _root(files)) == PERSON})
    vocabulary = Concepts(_root(files), _used(files))
    for name, path in files.items():
        table = _table(path, _root(files))
        for batch in concepts.batches(path, None):
            _check_texts(batch, name)
            made = _people(batch, vocabulary, name) if table == PERSON else [_events(batch, table, vocabulary, name, warnings)]
            yield from made


def described(source: Path, files: Mapping[str, Path], codes: frozenset[str]) -> tuple[dict[str, str], list[Path]]:
    """Code -> concept name, and the files that say so."""
    return concepts.described(source, codes)


def _check_persons(files: Mapping[str, Path]) -> None:
    """That PERSON has each person once: two rows would make one subject of both sexes and two births."""
    seen = np.empty(0, dtype=np.int64)
    for name, path in files.items():
        for batch in concepts.batches(path, ("person_id",)):
            ids, counts = np.unique(concepts.integers(batch["person_id"], name, "person_id"), return_counts=True)
            if twice := int((counts > 1).sum() + np.isin(ids[counts == 1], seen).sum()):
                raise DataError(f"{name}: {twice} persons are there twice (person_id); keep one row of each")
            seen = np.union1d(seen, ids)


def _people(batch: Mapping[str, pa.Array], vocabulary: Concepts, name: str) -> Iterator[Events]:
    """Birth, then sex, race and ethnicity as facts without a time."""
    subject = concepts.integers(_needed(batch, "person_id", name), name, "person_id")
    yield _plain(subject, _births(batch, name), pa.array([BIRTH] * len(subject), pa.string()))
    for column in PERSON_CONCEPTS:
        if column in batch:
            codes = vocabulary.codes(concepts.integers(batch[column], name, column))
            yield _plain(subject, np.full(len(subject), NAT), codes)


def _births(batch: Mapping[str, pa.Array], name: str) -> np.ndarray:
    """The date of birth: what `birth_datetime` adds to year, month and day; else the first of July where the month is missing, the first of a month
    where the day is.
    """
    year = concepts.integers(_needed(batch, "year_of_birth", name), name, "year_of_birth", missing=-1)
    year = np.where(year > MOST_YEARS, -1, year)
    month, day = (concepts.integers(batch.get(f"{what}_of_birth"), name, f"{what}_of_birth", -1, len(year)) for what in ("month", "day"))
    exact = _times(batch.get("birth_datetime"), name, "birth_datetime", len(year)).astype("datetime64[D]")
    fits = ~np.isnat(exact) & ((year < 0) | (year == exact.astype("datetime64[Y]").astype(np.int64) + 1970)) & ((month < 0) | (day < 0))
    month, day = np.where(month < 0, 7, month), np.where(day < 0, 1, day)
    written = (year - 1970).astype("datetime64[Y]").astype("datetime64[M]") + (np.clip(month, 1, 12) - 1)
    dates = np.where(fits, exact, written.astype("datetime64[D]") + (day - 1))
    right = (month >= 1) & (month <= 12) & (day >= 1) & (dates.astype("datetime64[M]") == written)
    if bad := int((~(fits | right) | (dates < OLDEST)).sum()):
        raise DataError(f"{name}: {bad} persons have no date of birth that a calendar has (year_of_birth, month_of_birth, day_of_birth)")
    found: np.ndarray = dates.astype("datetime64[s]")
    return found


def _plain(subject: np.ndarray, time: np.ndarray, code: pa.Array) -> Events:
    size, none = len(subject), pa.nulls(len(subject), pa.string())
    table = np.full(size, TABLES.index(PERSON), dtype=np.int8)
    return Events(subject, time, np.full(size, NAT), code, np.full(size, np.nan), none, none, np.full(size, -1), table)


def _events(batch: Mapping[str, pa.Array], table: str, vocabulary: Concepts, name: str, warnings: Counter[str]) -> Events:
    layout = CLINICAL[table]
    subject = concepts.integers(_needed(batch, "person_id", name), name, "person_id")
    size, none = len(subject), pa.nulls(len(subject), pa.string())
    concept = concepts.integers(batch.get(layout.concept), name, layout.concept, missing=0, size=size)
    own = concepts.integers(batch.get(f"{layout.source}_source_concept_id"), name, f"{layout.source}_source_concept_id", missing=0, size=size)
    code = vocabulary.codes(np.where(concept > 0, concept, own))
    if table == "death":
        code = pa.array(["MEDS_DEATH"] * size, pa.string())
    elif code.null_count:
        words, prose = _words(_texts(batch.get(f"{layout.source}_source_value"), size), code)
        code = pc.coalesce(code, pc.binary_join_element_wise(pa.scalar("SOURCE"), words, "/"))
        warnings["source_values_that_are_prose"] += prose
    value, text = _values(batch, vocabulary, name, size)
    warnings["values_that_are_text"] += size - text.null_count
    unit = _texts(batch.get("unit_source_value"), size)
    if "unit_concept_id" in batch:
        unit = pc.coalesce(unit, _unit_codes(vocabulary, batch, name))
    time = _time(batch, layout.start, name, size)
    end = _time(batch, layout.end, name, size) if layout.end else np.full(size, NAT)
    if missing := int(np.isnat(time).sum()):
        raise DataError(f"{name}: {missing} rows of a part have no {layout.start}_date; every event has one")
    visit = concepts.identifiers(batch.get("visit_occurrence_id"), name, "visit_occurrence_id", size)
    held = _held(batch, table, time, visit, name)
    warnings["events_known_at_the_end_of_their_visit"] += int(held.sum())
    place = np.full(size, TABLES.index(table), dtype=np.int8)
    return Events(subject, time, end, code, value, text if len(text) else none, unit, visit, place, held)


def _words(written: pa.Array, code: pa.Array) -> tuple[pa.Array, int]:
    """The source's own words for events without a code, null for what is long or has a date: a note, not a name. And how many notes there were."""
    encoded = pc.if_else(pc.is_null(code), written, pa.scalar(None, pa.string())).dictionary_encode()
    names = pa.array([None if len(t) > texts.LONGEST or texts.has_date(t) else t for t in encoded.dictionary.to_pylist()], pa.string())
    words = pc.take(names, encoded.indices)
    return words, words.null_count - encoded.null_count


def _held(batch: Mapping[str, pa.Array], table: str, time: np.ndarray, visit: np.ndarray, name: str) -> np.ndarray:
    """Which events of a visit nobody knew before it was over: what was written for its bill, and diagnoses of which only the date is told."""
    if table in ("visit_occurrence", "visit_detail", "death"):
        return np.zeros(len(time), dtype=bool)
    field = f"{CLINICAL[table].source}_type_concept_id"
    billed = np.isin(concepts.integers(batch.get(field), name, field, missing=0, size=len(time)), BILLING)
    return (visit >= 0) & (billed | (dated(time) if TABLES.index(table) in DIAGNOSES else False))


def _values(batch: Mapping[str, pa.Array], vocabulary: Concepts, name: str, size: int) -> tuple[np.ndarray, pa.Array]:
    """Number and text of each event. A number column may hold text (counted, not refused); a coded result is a text."""
    value, text = columns.numbers(_texts(batch.get("value_as_number"), size))
    coded = concepts.integers(batch.get("value_as_concept_id"), name, "value_as_concept_id", missing=0, size=size)
    text = pc.coalesce(text, _texts(batch.get("value_as_string"), size), vocabulary.names(coded))
    text = pc.coalesce(text, _texts(batch.get("value_source_value"), size), vocabulary.codes(coded))
    numeric = pa.array(~np.isnan(value))
    return value, pc.if_else(numeric, pa.scalar(None, pa.string()), text)


def _unit_codes(vocabulary: Concepts, batch: Mapping[str, pa.Array], name: str) -> pa.Array:
    """The unit as UCUM writes it."""
    codes = vocabulary.codes(concepts.integers(batch["unit_concept_id"], name, "unit_concept_id", missing=0))
    return pc.if_else(pc.starts_with(codes, "UCUM/"), pc.utf8_slice_codeunits(codes, 5), pa.scalar(None, pa.string()))


def _time(batch: Mapping[str, pa.Array], stem: str, name: str, size: int) -> np.ndarray:
    """The time of an event where it is told, else the midnight of its date."""
    exact, date = (_times(batch.get(f"{stem}_{kind}"), name, f"{stem}_{kind}", size) for kind in ("datetime", "date"))
    return np.where(np.isnat(exact), date, exact)


def _times(column: pa.Array | None, name: str, field: str, size: int) -> np.ndarray:
    if column is None or pa.types.is_null(column.type):  # parquet that pandas wrote of an empty column
        return np.full(size, NAT)
    if pa.types.is_string(column.type):
        try:
            column = _texts(column, size).cast(pa.timestamp("us"))
        except pa.ArrowInvalid:
            raise DataError(f"{name}: column {field} holds something else than YYYY-MM-DD or YYYY-MM-DD HH:MM:SS without a zone") from None
    elif pa.types.is_date(column.type):
        column = column.cast(pa.timestamp("s"))
    if not pa.types.is_timestamp(column.type):
        raise DataError(f"{name}: column {field} is {column.type}, expected dates or times")
    return columns.seconds(column, name, field)


def _check_texts(batch: Mapping[str, pa.Array], name: str) -> None:
    """That the columns which become texts can. Raises DataError naming the first that cannot."""
    for field, column in batch.items():
        if (field in TEXTS or field.endswith("_source_value")) and not pa.types.is_string(column.type):
            columns.texts(column, len(column), name, field)


def _texts(column: pa.Array | None, size: int) -> pa.Array:
    """A column as texts, blank ones null."""
    if column is None:
        return pa.nulls(size, pa.string())
    text = pc.utf8_trim_whitespace(column.cast(pa.string()))
    return pc.if_else(pc.equal(text, ""), pa.scalar(None, pa.string()), text)


def _needed(batch: Mapping[str, pa.Array], field: str, name: str) -> pa.Array:
    if field not in batch:
        raise DataError(f"{name}: no column {field}; {nearest(field, batch)}")
    return batch[field]


def _used(files: Mapping[str, Path]) -> np.ndarray:
    """Every concept id that occurs, so that only their rows of CONCEPT (millions) are kept."""
    used: set[int] = {0}
    for path in files.values():
        names = [n for n in concepts.column_names(path) if n.lower().endswith("concept_id") and not n.lower().endswith("type_concept_id")]
        for batch in concepts.batches(path, [n.lower() for n in names]):
            for field, column in batch.items():
                used |= set(np.unique(concepts.integers(column, path.name, field, missing=0)).tolist())
    return np.array(sorted(used), dtype=np.int64)


def _csv_bytes(path: Path) -> int:
    return path.stat().st_size * (8 if columns.is_gzip(path) else 1)


def _table(path: Path, source: Path) -> str:
    """Which table a file belongs to: its name, or the folder of its shard. "" for a file of another kind."""
    stem, suffix = _stem(path)
    if not suffix:
        return ""
    known = (PERSON, *CLINICAL)
    folder = path.parent.name.lower() if path.parent != source else ""
    return next((table for table in (_SHARD.sub("", stem), stem, folder) if table in known), "")


def _stem(path: Path) -> tuple[str, str]:
    """Name and suffix of a file, in lower case; no suffix where it is none that tables have."""
    name = path.name.lower()
    suffix = next((s for s in concepts.SUFFIXES if name.endswith(s)), "")
    return name.removesuffix(suffix), suffix


def _copy(path: Path) -> tuple[str, ...]:
    """What files of one table have in common: the file itself where it is called as the table, else the folder and the form of its shards."""
    stem, suffix = _stem(path)
    return (str(path),) if stem in (PERSON, *CLINICAL) else (str(path.parent), suffix)


def _root(files: Mapping[str, Path]) -> Path:
    """The source's folder, from a file and its name in it."""
    name, path = next(iter(files.items()))
    return path.parents[name.count("/")]
