"""The operator asks leaders how far they are, and gives a pod no more than its two seconds and 16 KiB."""

import socket
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from ehrmind_k8s import progress
from ehrmind_k8s.controller.progress_reader import ProgressReader, fetch
from ehrmind_k8s.controller.records import Pod

KEY = ("ns", "demo")


def leader(uid: str = "u1", attempt: int = 1) -> Pod:
    return Pod(name="p", uid=uid, role="sft", attempt=attempt, phase="Running", leader=True, ip="127.0.0.1")


def until(true: Callable[[], object], seconds: float = 10) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.01)


@pytest.fixture
def board() -> Iterator[tuple[progress.Board, int]]:
    found = progress.Board("sft", 1)
    server = progress.serve(found, 0)
    yield found, server.server_address[1]
    server.shutdown()
    server.server_close()


def test_what_a_stage_says_is_read_again_and_again(board: tuple[progress.Board, int]) -> None:
    stage, port = board
    woken: list[tuple[str, str]] = []
    reader = ProgressReader(woken.append, port=port, interval_s=0.05)
    reader.start()
    try:
        stage.hear("progress", {"done": 3, "total": 30, "unit": "step", "loss": 0.5})
        reader.follow(KEY, leader())
        until(lambda: reader.latest(KEY))
        first = reader.latest(KEY)
        assert first and (first.done, first.total, first.unit, first.figures) == (3, 30, "step", {"loss": 0.5})
        stage.hear("progress", {"done": 4, "total": 30, "unit": "step"})
        until(lambda: (found := reader.latest(KEY)) and found.done == 4)
        until(lambda: (found := reader.latest(KEY)) and found.read > found.changed)
        assert woken == [KEY, KEY]  # once a change, however often it was read
    finally:
        reader.stop()


@pytest.mark.parametrize("ip", ["127.0.0.1", "::1"])
def test_a_stage_is_heard_whatever_addresses_pods_have(board: tuple[progress.Board, int], ip: str) -> None:
    if ":" in ip and not socket.has_dualstack_ipv6():
        pytest.skip("this machine has no IPv6")
    assert b'"stage": "sft"' in fetch(ip, board[1], "/progress")


def test_another_attempt_that_answers_under_the_same_address_is_not_believed(board: tuple[progress.Board, int]) -> None:
    _, port = board
    reader = ProgressReader(lambda _: None, port=port, interval_s=0.02)
    reader.start()
    try:
        reader.follow(KEY, leader(attempt=2))
        time.sleep(0.3)
        assert reader.latest(KEY) is None
    finally:
        reader.stop()


def test_a_new_leader_inherits_nothing_and_nobody_is_asked_without_one(board: tuple[progress.Board, int]) -> None:
    _, port = board
    reader = ProgressReader(lambda _: None, port=port, interval_s=0.02)
    reader.start()
    try:
        reader.follow(KEY, leader())
        until(lambda: reader.latest(KEY))
        reader.follow(KEY, leader("u2", attempt=2))
        assert reader.latest(KEY) is None
        reader.follow(KEY, leader())
        until(lambda: reader.latest(KEY))
        reader.follow(KEY, None)
        time.sleep(0.1)
        assert reader.latest(KEY) is None
    finally:
        reader.stop()


@pytest.fixture
def answering() -> Iterator[Callable[[bytes, float], int]]:
    """A server that answers any request with these bytes, one every so many seconds (0: all at once); returns its port."""
    servers: list[socket.socket] = []
    threads: list[threading.Thread] = []

    def start(answer: bytes, pause_s: float) -> int:
        server = socket.create_server(("127.0.0.1", 0))
        servers.append(server)

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(4096)
                try:
                    for piece in [answer[i : i + 1] for i in range(len(answer))] if pause_s else [answer]:
                        connection.sendall(piece)
                        time.sleep(pause_s)
                except OSError:
                    return  # the reader had enough

        threads.append(threading.Thread(target=serve))
        threads[-1].start()
        port: int = server.getsockname()[1]
        return port

    yield start
    for thread in threads:
        thread.join(10)
    for server in servers:
        server.close()


def test_a_body_is_what_follows_the_headers(answering: Callable[[bytes, float], int]) -> None:
    assert fetch("127.0.0.1", answering(b"HTTP/1.1 200 OK\r\nA: b\r\n\r\n{}\r\n\r\n", 0), "/progress") == b"{}\r\n\r\n"


@pytest.mark.parametrize(
    "answer", [b"", b"HTTP/1.1 302 Found\r\nLocation: http://10.0.0.1/\r\n\r\n", b"200\r\n\r\n", b"HTTP/1.1 200 OK\r\n" + b"a" * 70000], ids=range(4)
)
def test_anything_but_a_short_200_is_refused(answering: Callable[[bytes, float], int], answer: bytes) -> None:
    with pytest.raises(OSError):
        fetch("127.0.0.1", answering(answer, 0), "/progress")


def test_one_byte_after_the_other_does_not_hold_a_reader_longer_than_its_time(answering: Callable[[bytes, float], int]) -> None:
    port = answering(b"HTTP/1.1 200 OK\r\n" + b"a" * 20, 0.05)
    began = time.monotonic()
    with pytest.raises(TimeoutError):
        fetch("127.0.0.1", port, "/progress", timeout_s=0.3)
    assert time.monotonic() - began < 1.0


def test_only_an_address_is_asked_and_never_a_name() -> None:
    with pytest.raises(ValueError, match="metadata"):
        fetch("metadata.internal", 80, "/progress")
