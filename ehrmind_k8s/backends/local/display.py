"""What the person at the terminal sees while a run goes on: a bar where there is a terminal, a line now and then elsewhere. On standard error."""

import sys
import time
from typing import Any, Protocol

EVERY_S = 10.0  # between two progress lines of one stage, where nobody can draw a bar
_NOT_FIGURES = {"event", "time", "stage", "attempt", "run", "done", "total", "unit"}


class Display(Protocol):
    """Shows lines and progress."""

    def say(self, text: str) -> None:
        """One line for the person."""

    def progress(self, stage: str, event: dict[str, Any]) -> None:
        """A `progress` event of a stage."""

    def close(self) -> None:
        """Leave the terminal clean."""


def choose() -> Display:
    """Bars on a terminal, lines elsewhere."""
    return Bars() if sys.stderr.isatty() else Lines()


def figures(event: dict[str, Any]) -> dict[str, float]:
    """The numbers of an event that are worth a glance (reward, loss, ...)."""
    return {k: v for k, v in event.items() if k not in _NOT_FIGURES and isinstance(v, int | float) and not isinstance(v, bool)}


def sentence(event: dict[str, Any]) -> str:
    """`12/30 steps  reward 0.62`."""
    shown = "  ".join(f"{k} {v:.4g}" for k, v in figures(event).items())
    return f"{event.get('done')}/{event.get('total')} {event.get('unit', '')}  {shown}".rstrip()


class Lines:
    """Plain lines at a bounded rate; the last one of a stage is always shown."""

    def __init__(self) -> None:
        self._shown: dict[str, float] = {}

    def say(self, text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    def progress(self, stage: str, event: dict[str, Any]) -> None:
        now = time.monotonic()
        if event.get("done") == event.get("total") or now - self._shown.get(stage, -EVERY_S) >= EVERY_S:
            self._shown[stage] = now
            self.say(f"{stage}: {sentence(event)}")

    def close(self) -> None:
        pass


class Bars:
    """One bar per stage."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

        columns = (TextColumn("{task.description:9}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
        self._progress = Progress(*columns, TextColumn("{task.fields[shown]}"), console=Console(stderr=True))
        self._progress.start()
        self._tasks: dict[str, Any] = {}

    def say(self, text: str) -> None:
        self._progress.console.print(text, markup=False, highlight=False)

    def progress(self, stage: str, event: dict[str, Any]) -> None:
        if stage not in self._tasks:
            self._tasks[stage] = self._progress.add_task(stage, shown="")
        shown = "  ".join(f"{k} {v:.4g}" for k, v in figures(event).items())
        self._progress.update(self._tasks[stage], completed=event.get("done"), total=event.get("total"), shown=shown)

    def close(self) -> None:
        self._progress.stop()
