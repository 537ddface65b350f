"""Asks the leaders of running stages how far they are: GET http://<pod ip>:9400/progress, each at most every 5 s.

A pod is not trusted with our time or memory: 2 s and 16 KiB in all, no redirects, no proxy, and of the answer only what `observe.progress`
knows. A pod that does not answer is asked less and less often, down to once a minute. What is read stays in memory; the store has the truth.
"""

import ipaddress
import random
import socket
import threading
import time
from collections.abc import Callable

from ehrmind_k8s.controller import observe
from ehrmind_k8s.controller.records import Pod, Progress
from ehrmind_k8s.controller.runtime.queue import Queue
from ehrmind_k8s.controller.runtime.rate import Bucket

Key = tuple[str, str]

PORT = 9400
INTERVAL_S = 5.0
LONGEST_INTERVAL_S = 60.0
TIMEOUT_S = 2.0
LIMIT_BYTES = 16 << 10
THREADS = 4  # of which an unreachable pod holds one for 2 s
PER_SECOND = 20.0  # over all runs


class ProgressReader:
    """Reads for the runs that `follow` named. `news` hears of a run whose leader said something new; it is called from a reader's thread."""

    def __init__(self, news: Callable[[Key], None], *, port: int = PORT, interval_s: float = INTERVAL_S) -> None:
        self._news, self._port, self._interval_s = news, port, interval_s
        self._queue: Queue[Key] = Queue()
        self._bucket = Bucket(PER_SECOND, int(PER_SECOND))
        self._lock = threading.Lock()
        self._leaders: dict[Key, Pod] = {}
        self._failures: dict[Key, int] = {}
        self._latest: dict[Key, Progress] = {}
        self._threads = [threading.Thread(target=self._work, name=f"progress-{i}", daemon=True) for i in range(THREADS)]

    def start(self) -> None:
        """Begin to ask."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Ask nobody any more."""
        self._queue.close()

    @property
    def ended(self) -> bool:
        """Whether a thread of it has ended without having been told to."""
        return not self._queue.closed and any(t.ident is not None and not t.is_alive() for t in self._threads)

    def follow(self, key: Key, leader: Pod | None) -> None:
        """From now on ask `leader` for this run; None: nobody."""
        with self._lock:
            before = self._leaders.get(key)
            if leader is None:
                for table in (self._leaders, self._failures, self._latest):
                    table.pop(key, None)
                return
            self._leaders[key] = leader
            if before and before.uid == leader.uid and before.ip == leader.ip:
                return
            self._failures.pop(key, None)
            self._latest.pop(key, None)
        self._queue.add_after(key, random.uniform(0, min(1.0, self._interval_s)))

    def latest(self, key: Key) -> Progress | None:
        """What the run's present leader said last."""
        return self._latest.get(key)

    def _work(self) -> None:
        while (key := self._queue.get()) is not None:
            try:
                pause = self._ask(key)
            finally:
                self._queue.done(key)
            if pause is not None:
                self._queue.add_after(key, pause * random.uniform(1.0, 1.2))

    def _ask(self, key: Key) -> float | None:
        """Ask once; returns the pause until the next time, None when nobody is to be asked any more."""
        leader, before = self._leaders.get(key), self._latest.get(key)
        if leader is None:
            return None
        self._bucket.wait()
        try:
            said = observe.progress(fetch(leader.ip, self._port, "/progress"), leader, time.time(), before)
        except Exception:  # a pod may answer anything, and none of it may end this thread
            said = None
        with self._lock:
            if self._leaders.get(key, leader).uid != leader.uid or key not in self._leaders:
                return None if key not in self._leaders else self._interval_s
            if said is None:
                self._failures[key] = min(self._failures.get(key, 0) + 1, 10)
                return min(LONGEST_INTERVAL_S, self._interval_s * 2.0 ** (self._failures[key] - 1))
            self._failures.pop(key, None)
            self._latest[key] = said
        if before is None or _told(before) != _told(said):
            self._news(key)
        return self._interval_s


def _told(said: Progress) -> tuple[object, ...]:
    return said.done, said.total, said.waiting, tuple(said.figures.items())


def fetch(ip: str, port: int, path: str, timeout_s: float = TIMEOUT_S, limit: int = LIMIT_BYTES) -> bytes:
    """Body of a 200 answer, within `timeout_s` in all and at most `limit` bytes with its headers. Raises OSError for anything else, and
    ValueError when `ip` is none (a name would be looked up, and that has no bound).

    The standard library's clients bound each read, not the whole: one byte a second would hold them for ever.
    """
    end = time.monotonic() + timeout_s
    ipaddress.ip_address(ip)
    with socket.create_connection((ip, port), timeout=timeout_s) as connection:
        connection.sendall(f"GET {path} HTTP/1.0\r\nHost: {ip}\r\nConnection: close\r\n\r\n".encode())
        answer = bytearray()
        while True:
            left = end - time.monotonic()
            if left <= 0:
                raise TimeoutError(f"{ip} took longer than {timeout_s} s")
            connection.settimeout(left)
            chunk = connection.recv(4096)
            if not chunk:
                break
            answer += chunk
            if len(answer) > limit:
                raise OSError(f"{ip} answered more than {limit} bytes")
    head, found, body = bytes(answer).partition(b"\r\n\r\n")
    if not found or head.split(b"\r\n", 1)[0].split(b" ")[1:2] != [b"200"]:
        raise OSError(f"{ip} did not answer 200")
    return body
