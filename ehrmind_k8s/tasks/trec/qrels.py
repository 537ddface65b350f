"""Who judged what: the official `topic 0 NCT grade` lines, BEIR's TSV, and the rows of the reference code's parquet.

Grades are the official ones, pinned here and nowhere else: 0 not relevant, 1 excluded, 2 eligible. Of the parquet only ids and labels count:
its numbers are the official grades, but the names that its texts give to 0 and 1 are swapped.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from ehrmind_k8s.errors import DataError
from ehrmind_k8s.tasks.sources import File
from ehrmind_k8s.tasks.trec import topics

GRADES: tuple[str, ...] = ("Not relevant", "Excluded", "Eligible")
HEADER = ("query-id", "corpus-id", "score")
COLUMNS = ("query_id", "corpus_id", "label")


class Judgment(NamedTuple):
    """One judged pair of a topic and a trial."""

    topic: str
    trial: str
    grade: int


def read(files: Sequence[File]) -> list[Judgment]:
    """Every judged pair once, by topic and trial. Raises DataError for an unknown grade, or for a pair that two lines grade differently."""
    grades: dict[tuple[str, str], int] = {}
    for file in files:
        for number, topic, trial, grade in _lines(file):
            before = grades.setdefault((topic, trial), grade)
            if before != grade:
                raise DataError(
                    f"{file.name}, line {number}: topic {topic}, trial {trial} has grade {grade}, and had {before} before; keep one of them"
                )
    if not grades:
        raise DataError(f"no judgment in {', '.join(f.name for f in files)}; expected lines `topic 0 trial grade`")
    return [Judgment(topic, trial, grade) for (topic, trial), grade in sorted(grades.items(), key=lambda pair: (order(pair[0][0]), pair[0][1]))]


def order(topic: str) -> tuple[str, int, str]:
    """By year, then by number as a number."""
    year, _, number = topic.partition("-")
    return year, int(number) if number.isdecimal() else 0, number


def _lines(file: File) -> Iterable[tuple[int, str, str, int]]:
    return _rows(file) if file.suffix == ".parquet" else _text(file)


def _rows(file: File) -> Iterable[tuple[int, str, str, int]]:
    try:
        table = pq.read_table(file.path, columns=list(COLUMNS))
    except (OSError, pa.ArrowInvalid, KeyError):
        raise DataError(f"{file.name}: not a whole parquet file with the columns {', '.join(COLUMNS)}") from None
    for number, row in enumerate(table.to_pylist(), 1):
        yield number, topics.identify(str(row["query_id"]), file.name), str(row["corpus_id"]), _grade(str(row["label"]), f"{file.name}, row {number}")


def _grade(found: str, where: str) -> int:
    if found not in ("0", "1", "2"):
        named = ", ".join(f"{i} {name.lower()}" for i, name in enumerate(GRADES))
        raise DataError(f"{where}: grade {found[:20]!r} is unknown; expected {named}")
    return int(found)


def _text(file: File) -> Iterable[tuple[int, str, str, int]]:
    beir = file.suffix == ".tsv"
    for number, line in enumerate(file.read().decode("utf-8-sig", "replace").splitlines(), 1):
        fields = line.split("\t") if beir else line.split()
        if not fields or not line.strip() or (beir and number == 1 and tuple(fields) == HEADER):
            continue
        where = f"{file.name}, line {number}"
        if len(fields) != (3 if beir else 4):
            expected = "\t".join(HEADER) if beir else "topic 0 trial grade"
            raise DataError(f"{where}: {len(fields)} fields, expected {expected!r}; is the line cut off?")
        query, trial, grade = fields[0], fields[-2], fields[-1]
        yield number, topics.identify(query if beir else query.lstrip("0") or "0", file.name), trial, _grade(grade, where)
