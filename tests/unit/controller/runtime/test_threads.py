"""The operator's threads outlive whatever the API server says, and one that ended all the same is told to the kubelet."""

import json
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from ehrmind_k8s.controller import kinds
from ehrmind_k8s.controller.operator import Operator, Options
from ehrmind_k8s.controller.records import Decision
from ehrmind_k8s.controller.runtime import lease, reflector
from ehrmind_k8s.controller.runtime.client import Client
from ehrmind_k8s.controller.runtime.lease import Lease
from ehrmind_k8s.controller.runtime.reflector import Reflector
from ehrmind_k8s.controller.runtime.store import Store


class Server(ThreadingHTTPServer):
    """Answers every call with `said`, whatever it asked for."""

    daemon_threads = True

    def __init__(self) -> None:
        self.said: object = []
        self.calls = 0
        super().__init__(("127.0.0.1", 0), _Handler)


class _Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self.server.calls += 1
        self.rfile.read(int(self.headers.get("content-length") or 0))
        body = json.dumps(self.server.said).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_PUT = do_GET  # noqa: N815 (its names are given)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    found = Server()
    thread = threading.Thread(target=found.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield found
    found.shutdown()
    found.server_close()
    thread.join(5)


@pytest.fixture
def client(server: Server, monkeypatch: pytest.MonkeyPatch) -> Client:
    from kubernetes.client import Configuration

    monkeypatch.setattr(lease, "RETRY_S", 0.2)
    monkeypatch.setattr(reflector, "BACKOFF_S", (0.02, 0.05))
    return Client(Configuration(host=f"http://127.0.0.1:{server.server_address[1]}"))


def until(true: Callable[[], object], seconds: float = 10) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.01)


def test_an_answer_that_is_no_lease_is_a_failed_try_and_the_next_one_counts(server: Server, client: Client) -> None:
    won = threading.Event()
    one = Lease(client, "ns", "x", "me", won=won.set, lost=lambda: None)
    one.start()
    until(lambda: server.calls >= 2)
    assert not won.is_set() and not one.ended
    server.said = {"metadata": {"name": "x"}, "spec": {}}
    assert won.wait(10)
    one.release()
    assert not one.ended


def test_a_list_that_is_none_does_not_end_the_reflector(server: Server, client: Client) -> None:
    one = Reflector(client, kinds.POD, Store(lambda o: o, lambda o: ()), lambda _: None)
    one.start()
    until(lambda: server.calls >= 3 and one.failure)
    assert not one.ended
    server.said = {"metadata": {"resourceVersion": "1"}, "items": []}
    assert one.synced.wait(10)
    one.stop()
    assert not one.ended


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_thread_that_has_ended_is_told_to_the_kubelet(server: Server, client: Client) -> None:
    server.said = {"metadata": {"name": "x"}, "spec": {}}
    operator = Operator(client, Options("ns", port=0), lambda snapshot, now: Decision(), lost=lambda: None)
    assert operator._dead() == []
    operator.lease._won = sys.exit
    operator.lease.start()
    until(lambda: operator._dead() == ["thread lease has ended"])
    operator.probes._server.server_close()
