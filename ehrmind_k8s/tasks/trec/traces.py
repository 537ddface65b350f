"""Reasoning to warm up on: `traces.jsonl` beside the topics, lines `{"topic", "trial", "text"}` with a whole completion each.

TREC has none; they are a user's own (a teacher's), or the twin's.
"""

import json
from pathlib import Path

from ehrmind_k8s.errors import DataError

NAME = "traces.jsonl"


def read(folder: Path) -> dict[tuple[str, str], str]:
    """Topic and trial -> completion; empty where there is no file. Raises DataError naming the line."""
    path = folder / NAME
    if not path.is_file():
        return {}
    found: dict[tuple[str, str], str] = {}
    with path.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            try:
                row = json.loads(line)
                found[str(row["topic"]), str(row["trial"])] = str(row["text"])
            except (ValueError, KeyError, TypeError):
                raise DataError(f'{path}, line {number}: expected {{"topic": "2021-38", "trial": "NCT...", "text": ...}}') from None
    return found
