"""Counters, gauges and histograms in Prometheus' text format: the hundred lines of it that are needed, instead of a dependency.

No name or id of a run is ever a label: labels have few values, known when the code is written (kinds, verbs, codes, states).
"""

import threading
from collections.abc import Callable, Mapping, Sequence

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0)
Labels = tuple[str, ...]


class Counter:
    """A number per combination of labels that only grows."""

    kind = "counter"

    def __init__(self, name: str, help_: str, labels: Sequence[str]) -> None:
        self.name, self.help, self.labels = name, help_, tuple(labels)
        self._values: dict[Labels, float] = {} if labels else {(): 0.0}
        self._lock = threading.Lock()

    def add(self, *labels: str, by: float = 1.0) -> None:
        """Count `by` more under these values of the labels, in their order."""
        assert len(labels) == len(self.labels), (self.name, labels)
        with self._lock:
            self._values[labels] = self._values.get(labels, 0.0) + by

    def value(self, *labels: str) -> float:
        """What was counted so far."""
        return self._values.get(labels, 0.0)

    def lines(self) -> list[str]:
        """The samples."""
        with self._lock:
            return [f"{self.name}{_braces(self.labels, values)} {_number(v)}" for values, v in sorted(self._values.items())]


class Gauge:
    """Numbers that are asked for when somebody reads the metrics."""

    kind = "gauge"

    def __init__(self, name: str, help_: str, labels: Sequence[str], read: Callable[[], Mapping[Labels, float]]) -> None:
        self.name, self.help, self.labels, self._read = name, help_, tuple(labels), read

    def lines(self) -> list[str]:
        """The samples, read now."""
        return [f"{self.name}{_braces(self.labels, values)} {_number(v)}" for values, v in sorted(self._read().items())]


class Histogram:
    """How often a duration (seconds) was at most each of `SECONDS`."""

    kind = "histogram"

    def __init__(self, name: str, help_: str) -> None:
        self.name, self.help = name, help_
        self._counts = [0] * (len(SECONDS) + 1)
        self._sum = 0.0
        self._lock = threading.Lock()

    def observe(self, seconds: float) -> None:
        """Count one duration."""
        index = next((i for i, bound in enumerate(SECONDS) if seconds <= bound), len(SECONDS))
        with self._lock:
            self._counts[index] += 1
            self._sum += seconds

    def lines(self) -> list[str]:
        """The samples; buckets hold everything up to their bound."""
        with self._lock:
            counts, total = list(self._counts), self._sum
        lines, seen = [], 0
        for bound, count in zip([*map(_number, SECONDS), "+Inf"], counts, strict=True):
            seen += count
            lines.append(f'{self.name}_bucket{{le="{bound}"}} {seen}')
        return [*lines, f"{self.name}_sum {_number(total)}", f"{self.name}_count {seen}"]


class Registry:
    """The metrics of one process, in the order they were made."""

    def __init__(self) -> None:
        self._metrics: list[Counter | Gauge | Histogram] = []

    def counter(self, name: str, help_: str, labels: Sequence[str] = ()) -> Counter:
        """Make a counter; its name ends in `_total`."""
        metric = Counter(name, help_, labels)
        self._metrics.append(metric)
        return metric

    def gauge(self, name: str, help_: str, read: Callable[[], Mapping[Labels, float]], labels: Sequence[str] = ()) -> None:
        """Make a gauge that `read` answers for: values of the labels -> number."""
        self._metrics.append(Gauge(name, help_, labels, read))

    def histogram(self, name: str, help_: str) -> Histogram:
        """Make a histogram of seconds."""
        metric = Histogram(name, help_)
        self._metrics.append(metric)
        return metric

    def text(self) -> str:
        """All metrics in the text format, version 0.0.4."""
        lines = []
        for metric in self._metrics:
            lines += [f"# HELP {metric.name} {metric.help}", f"# TYPE {metric.name} {metric.kind}", *metric.lines()]
        return "\n".join(lines) + "\n"


def _braces(names: Labels, values: Labels) -> str:
    if not names:
        return ""
    escaped = (v.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n") for v in values)
    return "{" + ",".join(f'{n}="{v}"' for n, v in zip(names, escaped, strict=True)) + "}"


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else repr(value)
