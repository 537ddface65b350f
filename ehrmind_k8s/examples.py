"""Prepared data on disk: one file per split, one row per `records.Example`, as parquet or JSON lines.

    read_split(Path("prepare/train.parquet")) -> list[Example]

`messages` is a list of `{role, content}` in both forms. `target` and `meta` differ from task to task, so parquet holds them as JSON text.
The same rows give the same bytes.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ehrmind_k8s.errors import DataError
from ehrmind_k8s.records import Example

FORMATS = ("parquet", "jsonl")
_JSON_COLUMNS = ("target", "meta")
BATCH = 1000  # examples per row group: about 16 MB where prompts have 4,000 tokens
_MESSAGE = pa.struct([("role", pa.string()), ("content", pa.string())])
SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("task", pa.string()),
        ("split", pa.string()),
        ("group", pa.string()),
        ("category", pa.string()),
        ("messages", pa.list_(_MESSAGE)),
        ("target", pa.string()),
        ("sft_text", pa.string()),
        ("n_tokens", pa.int64()),
        ("meta", pa.string()),
    ]
)


class SplitWriter:
    """Writes the examples of one split in their order, a batch in memory at a time; the suffix of `path` (.parquet or .jsonl) is the format."""

    def __init__(self, path: Path) -> None:
        self._batch: list[Example] = []
        self._open = _JsonLines(path) if path.suffix == ".jsonl" else pq.ParquetWriter(path, SCHEMA, compression="zstd")

    def __enter__(self) -> "SplitWriter":
        return self

    def __exit__(self, *_: object) -> None:
        self._flush()
        self._open.close()

    def write(self, example: Example) -> None:
        """Append one example."""
        self._batch.append(example)
        if len(self._batch) == BATCH:
            self._flush()

    def _flush(self) -> None:
        rows = [e.row() for e in self._batch]
        self._batch.clear()
        if isinstance(self._open, _JsonLines):
            self._open.write(rows)
        elif rows:
            columns = [row | {name: _dump(row[name]) for name in _JSON_COLUMNS} for row in rows]
            self._open.write_table(pa.Table.from_pylist(columns, schema=SCHEMA))


class _JsonLines:
    def __init__(self, path: Path) -> None:
        self._file = path.open("w", encoding="utf-8")

    def write(self, rows: Sequence[Mapping[str, Any]]) -> None:
        self._file.writelines(_dump(row) + "\n" for row in rows)

    def close(self) -> None:
        self._file.close()


def write_split(path: Path, examples: Iterable[Example]) -> None:
    """Write the examples in their order, as `SplitWriter` does."""
    with SplitWriter(path) as writer:
        for example in examples:
            writer.write(example)


def read_split(path: Path) -> list[Example]:
    """The examples of one file. Raises DataError naming the file (and the line of JSON lines) where it is not of this form."""
    if not path.is_file():
        raise DataError(f"{path}: {'a folder; a file is expected' if path.is_dir() else 'no such file'}")
    rows = _json_rows(path) if path.suffix == ".jsonl" else _parquet_rows(path)
    return [_example(row, f"{path}, row {number}") for number, row in enumerate(rows, 1)]


def _parquet_rows(path: Path) -> Iterator[dict[str, Any]]:
    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowInvalid):
        raise DataError(f"{path}: not a whole parquet file; prepare the data again") from None
    missing = sorted(set(SCHEMA.names) - set(table.schema.names))
    if missing:
        raise DataError(f"{path}: columns missing: {', '.join(missing)}; expected {', '.join(SCHEMA.names)}, as `ehrmind data prepare` writes them")
    for row in table.to_pylist():
        yield row | {name: json.loads(row[name]) for name in _JSON_COLUMNS}


def _json_rows(path: Path) -> Iterator[Any]:
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            try:
                yield json.loads(line.decode())
            except UnicodeDecodeError as error:
                raise DataError(f"{path}, line {number}: not UTF-8 (byte {error.start}); convert it, for example with iconv") from None
            except ValueError:
                raise DataError(f"{path}, line {number}: not a JSON object; prepare the data again") from None


def _example(row: Any, where: str) -> Example:
    fields = {name: row[name] for name in SCHEMA.names if name in row} if isinstance(row, dict) else {}
    if missing := sorted(set(SCHEMA.names) - fields.keys()):
        raise DataError(f"{where}: keys missing: {', '.join(missing)}; expected {', '.join(SCHEMA.names)}")
    return Example(**(fields | {"messages": tuple(fields["messages"])}))


def _dump(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
