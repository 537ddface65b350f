"""Structured events on standard output: one JSON object a line, or a short line of text on a terminal.

An event has a name and plain fields: ids, counts, lengths, hashes, seconds. Text of a record or a completion is never a field.
`progress` events drive the bars that the local backend draws and, in a pod, the progress endpoint (`progress`, which listens).
"""

import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

Listener = Callable[[str, Mapping[str, Any]], None]
"""Takes the name and the fields of an event."""

_context: dict[str, Any] = {}
_listeners: list[Listener] = []


def bind(**fields: Any) -> None:
    """Fields that every later event of this process carries (run, stage, attempt)."""
    _context.update(fields)


def listen(listener: Listener) -> None:
    """Let `listener` hear of every later event of this process, in whichever thread it happens. It must not raise."""
    _listeners.append(listener)


def event(name: str, /, **fields: Any) -> None:
    """Write one event."""
    _tell(name, fields)
    if _text():
        line = " ".join([name, *(f"{k}={_short(v)}" for k, v in fields.items())])
    else:
        line = json.dumps({"time": round(time.time(), 3), "event": name, **_context, **fields}, default=str)
    sys.stdout.write(line + "\n")  # in one piece: print() writes the end of a line by itself, and other threads come between
    sys.stdout.flush()


def progress(done: int, total: int, unit: str, **fields: Any) -> None:
    """`done` of `total` units of this stage's work are finished; `fields` are figures worth a glance."""
    event("progress", done=done, total=total, unit=unit, **fields)


def figures(**fields: Any) -> None:
    """Figures of this stage as they are now, for whoever listens; a log line of them at every step would be too many."""
    _tell("figures", fields)


def _tell(name: str, fields: Mapping[str, Any]) -> None:
    for listener in _listeners:
        listener(name, fields)


def _text() -> bool:
    wanted = os.environ.get("EHRMIND_LOG_FORMAT", "auto")
    return wanted == "text" or (wanted == "auto" and sys.stdout.isatty())


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
