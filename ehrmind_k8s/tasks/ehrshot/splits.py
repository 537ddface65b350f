"""Which split the source itself gives each subject, and which file says so.

    splits/person_id_map.csv           split, omop_person_id: the benchmark's own; where it is, it decides
    metadata/subject_splits.parquet    subject_id, split: MEDS
    *split*.csv, *split*.parquet       subject_id, split or split_name: femr's, or anybody's

A source's split is what makes figures comparable, so a file that should say it and cannot be read stops; nothing falls back to lots silently.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa

from ehrmind_k8s.errors import DataError, nearest
from ehrmind_k8s.tasks.ehrshot import columns, concepts
from ehrmind_k8s.tasks.ehrshot.sampling import WORDS

BENCHMARK, MEDS = "person_id_map", "subject_splits"
COLUMNS = (("omop_person_id", "split"), ("subject_id", "split"), ("subject_id", "split_name"), ("patient_id", "split"))
BY_LOT = "by lot"  # what the audit says where no file gives a split


@dataclass(frozen=True)
class Splits:
    """Splits of subjects in the source's own words, None where it gives none. `file` says them, `warnings` what else was found."""

    of: Mapping[int, str] | None = None
    file: Path | None = None
    warnings: Sequence[str] = field(default_factory=list)


def find(source: Path) -> Splits:
    """The source's splits. Raises DataError for a file that cannot be read, and for two of a kind that disagree."""
    if not source.is_dir():
        return Splits()
    read = {path: found for path in _candidates(source) if (found := _read(path)) is not None}
    if not read:
        return Splits()
    first = min(read, key=lambda path: (_rank(path), path))
    warnings = []
    for path, found in read.items():
        if differ := _differences(read[first], found):
            names = " and ".join(p.relative_to(source).as_posix() for p in (first, path))
            if _rank(path) == _rank(first):
                raise DataError(f"{names} give {differ} subjects different splits; keep one of them")
            warnings.append(f"{names} give {differ} subjects different splits; the first decides")
    return Splits(read[first], first, warnings)


def _candidates(source: Path) -> list[Path]:
    paths = (p for p in sorted(source.rglob("*")) if p.is_file() and p.name.lower().endswith(concepts.SUFFIXES) and not p.name.startswith("."))
    return [p for p in paths if _stem(p) == BENCHMARK or "split" in p.name.lower()]


def _stem(path: Path) -> str:
    return path.name.lower().split(".")[0]


def _rank(path: Path) -> int:
    """The benchmark's file before that of MEDS, whose own splits in EHRSHOT are not the benchmark's, before any other."""
    return {BENCHMARK: 0, MEDS: 1}.get(_stem(path), 2)


def _read(path: Path) -> dict[int, str] | None:
    """Split of each subject; None for a file of any name that is about something else. Raises DataError."""
    have = [name.lower() for name in concepts.column_names(path)]
    names = next((pair for pair in COLUMNS if set(pair) <= set(have)), None)
    if names is None:
        if _rank(path) < 2:
            wanted = COLUMNS[_rank(path)]
            missing = next(name for name in wanted if name not in have)
            raise DataError(f"{path.name}: no column {missing}, expected {' and '.join(wanted)}; {nearest(missing, have)}")
        return None
    found: dict[int, str] = {}
    for batch in concepts.batches(path, names):
        split = _words(batch[names[1]], path.name, names[1])
        for subject, word in zip(concepts.integers(batch[names[0]], path.name, names[0]).tolist(), split, strict=True):
            if found.setdefault(subject, word) != word:
                raise DataError(f"{path.name}: a subject is in two splits, {found[subject]} and {word}")
    return found


def _words(column: pa.Array, name: str, field: str) -> list[str]:
    if pa.types.is_integer(column.type):
        raise DataError(f"{name}: column {field} is {column.type}, expected texts")
    words = columns.texts(column, len(column), name, field)
    if words.null_count:
        raise DataError(f"{name}: column {field} is empty in {words.null_count} rows of a part")
    found: list[str] = words.to_pylist()
    return found


def _differences(first: Mapping[int, str], second: Mapping[int, str]) -> int:
    """Subjects of both files that are not in the same split, whatever it is called."""
    return sum(WORDS.get(first[subject], first[subject]) != WORDS.get(word, word) for subject, word in second.items() if subject in first)
