"""The text that Prometheus reads, and the server that gives it."""

import http.client

from ehrmind_k8s.controller.runtime.metrics import Registry
from ehrmind_k8s.controller.runtime.probes import Probes


def test_the_text_is_as_prometheus_wants_it() -> None:
    registry = Registry()
    writes = registry.counter("ehr_writes_total", "Writes.", ("verb", "kind"))
    registry.gauge("ehr_leader", "Leads.", lambda: {(): 1.0})
    seconds = registry.histogram("ehr_seconds", "Duration.")
    writes.add("create", "Job")
    writes.add("create", "Job")
    writes.add("apply", 'a"b\\c\nd', by=0.5)
    for value in (0.003, 0.004, 70.0):
        seconds.observe(value)
    text = registry.text()
    assert text.startswith(
        "# HELP ehr_writes_total Writes.\n# TYPE ehr_writes_total counter\n"
        'ehr_writes_total{verb="apply",kind="a\\"b\\\\c\\nd"} 0.5\nehr_writes_total{verb="create",kind="Job"} 2\n'
        "# HELP ehr_leader Leads.\n# TYPE ehr_leader gauge\nehr_leader 1\n"
    )
    assert 'ehr_seconds_bucket{le="0.0025"} 0\nehr_seconds_bucket{le="0.005"} 2\n' in text
    assert text.endswith('ehr_seconds_bucket{le="60"} 2\nehr_seconds_bucket{le="+Inf"} 3\nehr_seconds_sum 70.007\nehr_seconds_count 3\n')


def ask(port: int, path: str) -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


def test_probes_say_what_is_wrong_and_metrics_are_served() -> None:
    wrong: list[str] = ["Pod"]
    probes = Probes(0, live=lambda: [], ready=lambda: wrong, metrics=lambda: "a 1\n")
    probes.start()
    try:
        assert ask(probes.port, "/livez") == (200, "ok\n")
        assert ask(probes.port, "/healthz?verbose") == (200, "ok\n")
        assert ask(probes.port, "/readyz") == (503, "Pod\n")
        wrong.clear()
        assert ask(probes.port, "/readyz") == (200, "ok\n")
        assert ask(probes.port, "/metrics") == (200, "a 1\n")
        assert ask(probes.port, "/")[0] == 404
    finally:
        probes.stop()
