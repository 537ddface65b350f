"""A call that ends in any odd way is one that got no answer: who called tries again, and no thread dies of it."""

import io
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
import urllib3

from ehrmind_k8s import kubeapi
from ehrmind_k8s.controller import kinds
from ehrmind_k8s.controller.runtime.client import Client, Watch


class Answers(BaseHTTPRequestHandler):
    """Says `said` to everything."""

    said = b""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("content-length", str(len(self.said)))
        self.end_headers()
        self.wfile.write(self.said)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def address() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()
    thread.join(5)


def client(host: str, **more: Any) -> Client:
    from kubernetes.client import Configuration

    configuration = Configuration(host=host)
    for name, value in more.items():
        setattr(configuration, name, value)
    return Client(configuration)


def watch(said: bytes) -> Watch:
    return Watch(urllib3.HTTPResponse(io.BytesIO(said), preload_content=False))


@pytest.mark.parametrize("said", [b'{"type": "ADDED", "obj', b'{"type": "ADDED"}', b"[]", b"<html>"])
def test_a_watch_that_breaks_off_within_an_event_is_unavailable(said: bytes) -> None:
    with pytest.raises(kubeapi.Unavailable):
        list(watch(b'{"type": "ADDED", "object": {}}\n' + said))


def test_an_answer_that_is_half_a_text_is_unavailable(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Answers, "said", b'{"kind": "Pod", "meta')
    with pytest.raises(kubeapi.Unavailable):
        client(address).get(kinds.POD, "ns", "a")


def test_a_token_that_cannot_be_read_is_unavailable(address: str) -> None:
    def gone(_: object) -> None:
        raise FileNotFoundError

    with pytest.raises(kubeapi.Unavailable, match="FileNotFoundError"):
        client(address, refresh_api_key_hook=gone, api_key={"authorization": "x"}).get(kinds.POD, "ns", "a")
