"""The records of a source, whichever of four layouts they have, as timelines by subject.

    ehrshot       the EHRSHOT "Original" tree: data/ehrshot.csv, splits/person_id_map.csv
    ehrshot_meds  the same benchmark as MEDS (metadata/dataset.json names it)
    meds          anybody's MEDS: parquet files with subject_id, time, code; metadata/ with splits and descriptions
    omop          OMOP CDM 5.3 or 5.4: a folder of CSV, .csv.gz or parquet tables, whole or sharded, names in any case

None of them tells dates from times at midnight, and much is known by its date alone: `buckets` says what becomes of it.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ehrmind_k8s.errors import DataError
from ehrmind_k8s.tasks import sources
from ehrmind_k8s.tasks.ehrshot import meds, omop, original, splits
from ehrmind_k8s.tasks.ehrshot.buckets import BUCKET_ROWS, MOST_BUCKETS, Buckets
from ehrmind_k8s.tasks.ehrshot.splits import Splits
from ehrmind_k8s.tasks.ehrshot.timeline import Names, Timeline

EHRSHOT, EHRSHOT_MEDS, MEDS, OMOP = "ehrshot", "ehrshot_meds", "meds", "omop"
KEY_BYTES = 1 << 20  # of each file that go into the key of row ids
BENCHMARK = (EHRSHOT, EHRSHOT_MEDS)
LAYOUTS = (
    "EHRSHOT as released (EHRSHOT_ASSETS with data/ehrshot.csv), as MEDS, or any MEDS folder with label parquet; OMOP CDM 5.3 or 5.4 tables as CSV,"
    " .csv.gz or parquet, with CONCEPT beside them. Labels are read from the benchmark's files or a MEDS label parquet, else computed from events."
)


@dataclass(frozen=True)
class Source:
    """A source that was read once, and the splits that it gives its subjects. `key` is what only those have who have the source (`key_of`)."""

    layout: str
    inputs: Mapping[str, str]
    splits: Splits
    names: Names
    key: bytes
    report: Mapping[str, Any]
    _buckets: Buckets

    def timelines(self, subjects: Collection[int] | None) -> Iterator[Timeline]:
        """Each of `subjects` (None: all) that has events, once. Memory is bounded by the largest bucket."""
        return self._buckets.timelines(subjects, self.names)


def open(source: Path, work: Path) -> Source:
    """Find the layout and deal all events to buckets in `work`. Raises DataError for files that are none of the above, or torn."""
    layout, files = _layout(source)
    reader = {EHRSHOT: original, MEDS: meds, EHRSHOT_MEDS: meds, OMOP: omop}[layout]
    folder = work / "buckets"
    folder.mkdir()
    buckets = Buckets(folder, min(MOST_BUCKETS, 1 + reader.rows(files) // BUCKET_ROWS))
    warnings: Counter[str] = Counter()
    try:
        for events in reader.events(files, warnings):
            buckets.deal(events)
    finally:
        buckets.close()
    described, told = reader.described(source, files, frozenset(buckets.codes.texts))
    given = splits.find(source)
    names = buckets.names(described)
    report = {
        "subjects": {"all": len(buckets.subjects), "without_birth": len(np.setdiff1d(buckets.subjects, buckets.born))},
        "events": {table: n for table, n in sorted(buckets.counts["events"].items()) if n},
        "events_left_out": {reason: n for reason, n in sorted(buckets.counts["left_out"].items()) if n},
        "codes": {"distinct": len(names.codes), "described": sum(code in described for code in names.codes)},
        "reading": {"events_known_at_the_end_of_their_day": buckets.dated, **{what: n for what, n in sorted(warnings.items()) if n}},
    }
    read = sorted({*files.values(), *told, *([given.file] if given.file else [])})
    inputs = {p.relative_to(source).as_posix() if p != source else p.name: sources.sha256(p) for p in read}
    return Source(layout, inputs, given, names, _key(files), report, buckets)


def key_of(source: Path) -> bytes:
    """A key that can be made from the records alone, and not from what is told about them: the manifest has the SHA-256 of each file, which is
    why this is another hash. The start of each file holds enough that nobody guesses.
    """
    return _key(_layout(source)[1])


def _key(files: Mapping[str, Path]) -> bytes:
    parts = []
    for path in files.values():
        with path.open("rb") as file:
            parts.append(hashlib.blake2b(file.read(KEY_BYTES), person=b"ehrshot rows", salt=path.stat().st_size.to_bytes(16, "little")).digest())
    return hashlib.blake2b(b"".join(sorted(parts))).digest()


def _layout(source: Path) -> tuple[str, Mapping[str, Path]]:
    """The layout, and the files that hold its events by name."""
    found = {layout: files for layout, files in ((EHRSHOT, original.find(source)), (MEDS, meds.find(source)), (OMOP, omop.find(source))) if files}
    if len(found) > 1:
        names = " and ".join(f"{layout} ({next(iter(files))})" for layout, files in found.items())
        raise DataError(f"{source}: holds two layouts, {names}; pass the folder of one of them")
    if not found:
        raise DataError(f"{source}: no records in it. Expected {LAYOUTS}")
    layout, files = next(iter(found.items()))
    return EHRSHOT_MEDS if layout == MEDS and _is_ehrshot(source) else layout, files


def _is_ehrshot(source: Path) -> bool:
    for path in source.rglob("dataset.json"):
        try:
            return "ehrshot" in str(json.loads(path.read_text(encoding="utf-8")).get("dataset_name", "")).lower()
        except (ValueError, AttributeError):
            return False
    return False
