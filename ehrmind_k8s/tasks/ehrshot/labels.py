"""Labels from files: the benchmark's CSV, MEDS label parquet, its few-shot samples, and a teacher's traces.

    benchmark/<subtask>/labeled_patients.csv    patient_id, prediction_time, value, label_type     (read by name: femr's writer swaps columns)
    labels/<subtask>/*.parquet                  subject_id, prediction_time, boolean_value or integer_value; also in folders below, as MEDS-DEV's
                                                labels/<subtask>/train/0.parquet
    labels/<subtask>.parquet, <subtask>.parquet beside the data: the same
    benchmark/<subtask>/all_shots_data.json     which labels a k-shot sample has
    traces.jsonl                                {"subject", "prediction_time", "subtask", "text"}: a completion to learn

Times are local times of the record, without a zone, and count to the second; a part of a second is cut off, so that nothing after it is known.
The benchmark's own count to the minute: its 23:59:59 is written 23:59:00, and stands for all of that minute (`minute`).
"""

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet

from ehrmind_k8s.errors import DataError, nearest
from ehrmind_k8s.records import Split
from ehrmind_k8s.tasks.ehrshot import columns
from ehrmind_k8s.tasks.ehrshot.subtasks import Subtask

CSV_NAME = "labeled_patients.csv"
SHOTS_NAME = "all_shots_data.json"
TRACES_NAME = "traces.jsonl"
CSV_COLUMNS = ("patient_id", "prediction_time", "value", "label_type")
VALUE_COLUMNS = ("boolean_value", "integer_value")
_TIME = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}[ T][0-9]{2}:[0-9]{2}(:[0-9]{2}(\.[0-9]{1,6})?)?$"
_BOOLEANS = {"true": 1, "false": 0, "1": 1, "0": 0, "1.0": 1, "0.0": 0}

Key = tuple[int, int, str]  # subject, prediction time (seconds since 1970), subtask


@dataclass(frozen=True, slots=True, eq=False)
class Labels:
    """N labels: subject (int64), time (datetime64[s]), value (int64)."""

    subject: np.ndarray
    time: np.ndarray
    value: np.ndarray

    def __len__(self) -> int:
        return len(self.subject)

    def rows(self, chosen: np.ndarray) -> "Labels":
        """The labels that an index or a mask chooses."""
        return Labels(self.subject[chosen], self.time[chosen], self.value[chosen])


def find(source: Path) -> dict[str, Path]:
    """Folder of a subtask -> its label file (or folder of parquet shards). Raises DataError where a subtask has two."""
    found: dict[str, Path] = {}
    for path in sorted(source.rglob(CSV_NAME)):
        _add(found, path.parent.name, path, source)
    for path in sorted(p for p in source.rglob("*.parquet") if _is_labels(p)):
        parts = path.relative_to(source).parts
        below = parts[parts.index("labels") + 1 :] if "labels" in parts[:-1] else parts[-1:]
        shared = path.parents[len(below) - 2] if len(below) > 1 else path
        _add(found, below[0].removesuffix(".parquet"), shared, source)
    return found


def shards(path: Path) -> list[Path]:
    """The files of a subtask's labels: itself, or every parquet below its folder."""
    return sorted(p for p in path.rglob("*.parquet") if not p.name.startswith(".")) if path.is_dir() else [path]


def read(path: Path, subtask: Subtask, to_the_minute: bool = False) -> Labels:
    """Labels of one subtask, as its file has them: value 0 or 1, times to the second or to the minute. Raises DataError with file, row, column."""
    found = _read_csv(path) if path.suffix == ".csv" else _read_parquet(path)
    bad = np.flatnonzero((found.value < 0) | (found.value > subtask.highest))
    if bad.size:
        raise DataError(
            f"{_name(path)}: row {bad[0] + 1} has the label {found.value[bad[0]]}, {subtask.name} knows 0 to {subtask.highest};"
            f" {bad.size} of {len(found)} rows are outside"
        )
    value = np.array([subtask.value(v) for v in range(int(found.value.max()) + 1)] if len(found) else [], dtype=np.int64)
    return Labels(found.subject, minute(found.time) if to_the_minute else found.time, value[found.value])


def unique(found: Labels) -> tuple[Labels, Labels, Labels]:
    """Labels by subject and time, each (subject, time) once; those left out as repetitions; those left out because they contradict each other.

    Where one question has both answers none of them is kept: no policy could be right.
    """
    order = np.lexsort((found.value, found.time, found.subject))
    found = found.rows(order)
    new = np.ones(len(found), dtype=bool)
    new[1:] = (found.subject[1:] != found.subject[:-1]) | (found.time[1:] != found.time[:-1])
    question = np.cumsum(new) - 1
    size = int(question[-1]) + 1 if len(found) else 0
    rows, positive = np.bincount(question, minlength=size), np.bincount(question, weights=found.value, minlength=size)
    torn = ((positive > 0) & (positive < rows))[question]
    return found.rows(new & ~torn), found.rows(~new & ~torn), found.rows(torn)


def shots(path: Path, subtask: Subtask, finding: str | None, k: int, replicate: int) -> dict[Split, set[tuple[int, int]]]:
    """(subject, minute) of the train and validation labels of a k-shot sample; `replicate` counts round. Raises DataError.

    A class with fewer than k labels was drawn with repetition there; each label counts once here.
    """
    try:  # nothing of the file is told but its type of fault: an id that is no number may still be a patient's
        samples = json.loads(path.read_text(encoding="utf-8"))[finding or subtask.folder]
        if str(k) not in samples:
            sizes = ", ".join(sorted((s for s in samples if s != "-1"), key=int))
            raise DataError(f"data.shots: {_name(path)} has no sample of {k} per class; it has {sizes or 'none'}")
        replicates = [samples[str(k)][r] for r in sorted(samples[str(k)], key=int)]
        sample = replicates[replicate % len(replicates)]
        words: tuple[tuple[Split, str], ...] = (("train", "train"), ("validation", "val"))
        return {split: _sample(sample, word, path) for split, word in words}
    except (ValueError, LookupError, TypeError, AttributeError, ArithmeticError, OSError, pa.ArrowException) as error:
        kind, what = type(error).__name__, finding or subtask.folder
        raise DataError(f"{_name(path)}: not the benchmark's few-shot samples of {what}, {k} per class ({kind})") from None


def _sample(sample: Mapping[str, Any], word: str, path: Path) -> set[tuple[int, int]]:
    """(subject, minute) of the labels that a sample has in one split. Raises as its form is wrong."""
    subjects, times = (sample[f"{name}_{word}_k"] for name in ("patient_ids", "label_times"))
    at = _times(pa.array(times, pa.string()), path, f"label_times_{word}_k")
    return set(zip(map(int, subjects), minutes(at), strict=True))


def traces(source: Path, wanted: Mapping[Key, Any], to_the_minute: Collection[str] = ()) -> dict[Key, str]:
    """The texts of `traces.jsonl` (anywhere in the source) for the labels that are wanted; the rest is not kept. Raises DataError.

    `to_the_minute` are the subtasks whose times count so.
    """
    found: dict[Key, str] = {}
    for path in sorted(source.rglob(TRACES_NAME)):
        for number, subject, time, subtask, text in _trace_lines(path):
            key = (subject, seconds(minute(time) if subtask in to_the_minute else time)[0], subtask)
            if key in wanted:
                if key in found:
                    raise DataError(f"{_name(path)}: line {number} is a second trace for one label; keep one")
                found[key] = text
    return found


def minute(time: np.ndarray) -> np.ndarray:
    """The beginning of each time's minute, which is how the benchmark writes that minute (datetime64[s])."""
    return time.astype("datetime64[m]").astype("datetime64[s]")


def minutes(time: np.ndarray) -> list[int]:
    """Minutes since 1970, the resolution at which the benchmark tells labels apart."""
    found: list[int] = time.astype("datetime64[m]").astype(np.int64).tolist()
    return found


def seconds(time: np.ndarray) -> list[int]:
    """Seconds since 1970, the resolution at which labels are told apart."""
    found: list[int] = time.astype("datetime64[s]").astype(np.int64).tolist()
    return found


def _trace_lines(path: Path) -> Iterator[tuple[int, int, np.ndarray, str, str]]:
    """Number, subject, prediction time (of length 1), subtask and text of each line."""
    with columns.readable(path, _name(path)), path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
                subject, time, subtask, text = int(row["subject"]), str(row["prediction_time"]), str(row["subtask"]), row["text"]
            except (ValueError, KeyError, TypeError) as error:
                raise DataError(f"{_name(path)}: line {number} is not {{subject, prediction_time, subtask, text}} ({type(error).__name__})") from None
            if not isinstance(text, str):
                raise DataError(f"{_name(path)}: line {number}: text is {type(text).__name__}, expected a text")
            yield number, subject, _times(pa.array([time]), path, "prediction_time", number), subtask, text


def _is_labels(path: Path) -> bool:
    """A parquet file with prediction times: nothing else in a MEDS folder has them."""
    if path.name.startswith("."):
        return False
    try:
        return "prediction_time" in pyarrow.parquet.read_schema(path).names
    except (pa.ArrowException, OSError):
        return False  # the reader of events says what is wrong with it


def _add(found: dict[str, Path], name: str, path: Path, source: Path) -> None:
    if found.setdefault(name, path) != path:
        names = " and ".join(p.relative_to(source).as_posix() for p in (found[name], path))
        raise DataError(f"two label files for {name}: {names}; keep one, or pass the folder that holds one")


def _read_csv(path: Path) -> Labels:
    try:
        table = pyarrow.csv.read_csv(
            path, convert_options=pyarrow.csv.ConvertOptions(column_types=dict.fromkeys(CSV_COLUMNS, pa.string()), strings_can_be_null=True)
        )
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{_name(path)}: not a CSV file that can be read ({type(error).__name__})") from None
    _has_columns(path, table.column_names, CSV_COLUMNS[:3])
    _no_nulls(path, table, CSV_COLUMNS[:3])
    kinds = set(pc.unique(table["label_type"]).to_pylist()) if "label_type" in table.column_names else set()
    if len(kinds) > 1:
        raise DataError(f"{_name(path)}: column label_type has {len(kinds)} values, expected one for the whole file")
    subject = _whole(table["patient_id"], path, "patient_id")
    return Labels(subject, _times(table["prediction_time"], path, "prediction_time"), _values(table["value"], path, kinds))


def _values(column: pa.ChunkedArray, path: Path, kinds: set[str]) -> np.ndarray:
    """Labels as integers: True and False, or whole numbers. In a file of booleans nothing else is one."""
    words = pc.utf8_lower(pc.utf8_trim_whitespace(column)).combine_chunks()
    texts, codes = words.dictionary_encode().dictionary.to_pylist(), words.dictionary_encode().indices.to_numpy()
    known = {text: _BOOLEANS[text] if text in _BOOLEANS else _integer(text, kinds == {"boolean"}) for text in texts}
    wrong = [i for i, text in enumerate(texts) if known[text] is None]
    if wrong:
        row = int(np.flatnonzero(np.isin(codes, wrong))[0]) + 1
        kind = "True or False" if kinds == {"boolean"} else "True, False or a whole number"
        raise DataError(f"{_name(path)}: row {row}: column value is not {kind}")
    found: np.ndarray = np.array([known[text] for text in texts], dtype=np.int64)[codes]
    return found


def _integer(text: str, boolean: bool) -> int | None:
    digits = text.removesuffix(".0")
    return int(digits) if not boolean and digits.isascii() and digits.isdigit() and len(digits) < 6 else None


def _read_parquet(path: Path) -> Labels:
    return joined([_read_parquet_file(file) for file in shards(path)])


def _read_parquet_file(path: Path) -> Labels:
    with columns.readable(path, _name(path)):
        table = pyarrow.parquet.read_table(path)
    if not len(table):
        return joined([])
    column = next((c for c in VALUE_COLUMNS if c in table.column_names and table[c].null_count < len(table)), None)
    if column is None:
        has = ", ".join(c for c in table.column_names if c.endswith("_value")) or "none"
        raise DataError(f"{_name(path)}: no values in boolean_value or integer_value (columns of values: {has}); the questions here are yes or no")
    needed = ("subject_id", "prediction_time", column)
    _has_columns(path, table.column_names, needed)
    _no_nulls(path, table, needed)
    time = table["prediction_time"]
    if not pa.types.is_timestamp(time.type) or time.type.tz is not None:
        raise DataError(f"{_name(path)}: prediction_time is {time.type}, expected a timestamp without a time zone, as the record's times are")
    for name, kind in (("subject_id", pa.types.is_integer), (column, _is_integer_or_boolean)):
        if not kind(table[name].type):
            raise DataError(f"{_name(path)}: column {name} is {table[name].type}, expected whole numbers")
    subject, value = (columns.whole(table[name].combine_chunks(), _name(path), name) for name in ("subject_id", column))
    return Labels(subject, time.to_numpy().astype("datetime64[s]"), value)


def _is_integer_or_boolean(kind: pa.DataType) -> bool:
    return bool(pa.types.is_boolean(kind) or pa.types.is_integer(kind))


def joined(parts: Sequence[Labels]) -> Labels:
    """Labels one after the other."""
    if not parts:
        return Labels(np.empty(0, np.int64), np.empty(0, "datetime64[s]"), np.empty(0, np.int64))
    return Labels(*(np.concatenate([getattr(p, name) for p in parts]) for name in ("subject", "time", "value")))


def _whole(column: pa.ChunkedArray, path: Path, name: str) -> np.ndarray:
    try:
        found: np.ndarray = column.cast(pa.int64()).to_numpy()
        return found
    except pa.ArrowInvalid:
        right = pc.match_substring_regex(column, r"^-?[0-9]{1,18}$")
        raise DataError(f"{_name(path)}: row {_first(right)}: column {name} is not a whole number") from None


def _times(column: pa.ChunkedArray | pa.Array, path: Path, name: str, row: int | None = None) -> np.ndarray:
    """Times to the second, from text with a blank or a T between date and time."""
    right = pc.match_substring_regex(column, _TIME)
    if not pc.all(right).as_py() and len(column):
        raise DataError(f"{_name(path)}: row {row or _first(right)}: column {name} is not YYYY-MM-DD HH:MM:SS, without a time zone")
    try:
        times = pc.cast(column, pa.timestamp("us"))
    except pa.ArrowInvalid:
        raise DataError(f"{_name(path)}: column {name} holds a time that no calendar has") from None
    whole: np.ndarray = np.asarray(times).astype("datetime64[s]")
    return whole


def _has_columns(path: Path, names: Sequence[str], needed: Sequence[str]) -> None:
    for name in needed:
        if name not in names:
            raise DataError(f"{_name(path)}: no column {name}; {nearest(name, names)}")


def _no_nulls(path: Path, table: pa.Table, names: Sequence[str]) -> None:
    for name in names:
        if table[name].null_count:
            raise DataError(f"{_name(path)}: row {_first(pc.is_valid(table[name]))}: column {name} is empty ({table[name].null_count} rows in all)")


def _first(right: pa.ChunkedArray | pa.Array) -> int:
    """The first row (from 1) where a check is not true."""
    return int(np.flatnonzero(~np.asarray(right.fill_null(False)))[0]) + 1


def _name(path: Path) -> str:
    """A file as messages call it: with its folder, which names the subtask."""
    return f"{path.parent.name}/{path.name}"
