"""The operator's metrics. Labels are kinds, verbs, codes and states: never a run."""

from pathlib import Path

from ehrmind_k8s.controller.runtime.metrics import Labels, Registry

PAGE_BYTES = 4096


class Meters:
    """What is counted while the operator works; `text()` is /metrics. Gauges are added by who knows them."""

    def __init__(self) -> None:
        self.registry = Registry()
        counter = self.registry.counter
        self.reconciles = counter("ehrmind_reconciles_total", "Looks at a run: ok, refused, conflict, unavailable, error.", ("result",))
        self.bugs = counter("ehrmind_bugs_total", "Looks that failed in a way that is a bug, of whatever class: what an alert sees grow from 0.")
        self.errors = counter("ehrmind_reconcile_errors_total", "Looks that failed in a way that is a bug, by class of the error.", ("error",))
        self.writes = counter("ehrmind_writes_total", "Writes that the API server took.", ("verb", "kind"))
        self.requests = counter("ehrmind_api_requests_total", "Calls to the API server by verb and status (- without an answer).", ("verb", "code"))
        self.seconds = self.registry.histogram("ehrmind_reconcile_seconds", "How long a look at a run took, with its writes.")
        self.queued = self.registry.histogram("ehrmind_queue_seconds", "How long a run that was due waited for a worker.")
        self.registry.gauge("process_resident_memory_bytes", "Resident memory.", _memory)

    def text(self) -> str:
        """All metrics in Prometheus' text format."""
        return self.registry.text()


def _memory() -> dict[Labels, float]:
    return {(): int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * PAGE_BYTES}
