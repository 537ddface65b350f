"""A real S3 server (versitygw over a folder) on a free port, and a line to it that can be slow or break. For tests only.

Fixtures: `s3_server` (one for the whole session), `s3_settings`, `s3_uri` (a fresh prefix in its bucket).
"""

import contextlib
import socket
import subprocess
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from pydantic import SecretStr

from ehrmind_k8s.settings import Settings
from ehrmind_k8s.storage import s3_client
from tests.conftest import needs
from tests.tools import build

ACCESS, SECRET, BUCKET = "test-access", "test-secret-of-this-server", "bucket"
START_S = 30


class S3Server:
    """One versitygw process. Its objects live in `folder`, so a killed server comes back with what it had."""

    def __init__(self, folder: Path, certificate: Path | None = None, key: Path | None = None) -> None:
        self.folder, self.port = folder, _free_port()
        self.tls = ["--cert", certificate, "--key", key] if certificate and key else []
        for name in ("objects", "meta"):
            (folder / name).mkdir(parents=True)

    @property
    def settings(self) -> Settings:
        return settings_for(self.port)

    def start(self) -> None:
        # A sidecar folder for metadata: not every file system of a test machine has extended attributes.
        command = [build.build("versitygw"), "--quiet", "--port", f"127.0.0.1:{self.port}", "--access", ACCESS, "--secret", SECRET, *self.tls]
        with (self.folder / "log").open("a") as log:
            backend = ["posix", "--sidecar", self.folder / "meta", self.folder / "objects"]
            self.process = subprocess.Popen([*command, *backend], stdout=log, stderr=log)
        deadline = time.monotonic() + START_S
        while not _answers(self.port):
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"versitygw did not start:\n{(self.folder / 'log').read_text()[-2000:]}")
            time.sleep(0.02)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def create_bucket(self) -> None:
        s3_client.connect(self.settings).create_bucket(Bucket=BUCKET)


class Line:
    """A TCP line to a server that counts what goes up, at most `bytes_per_s` of it, and calls `then` once `after` bytes have gone."""

    def __init__(self, port: int, bytes_per_s: float = float("inf"), after: float = float("inf"), then: Callable[[], None] = lambda: None) -> None:
        self.target, self.bytes_per_s, self.after, self.then = port, bytes_per_s, after, then
        self.sent_bytes = 0
        self._lock = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.close()

    def altered(self, data: bytes) -> bytes:
        """What arrives of what goes up."""
        return data

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._carry, args=(client,), daemon=True).start()

    def _carry(self, client: socket.socket) -> None:
        with client, contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.target)) as server:
            down = threading.Thread(target=self._pump, args=(server, client, None), daemon=True)
            down.start()
            self._pump(client, server, self._count)
            down.join()

    def _pump(self, source: socket.socket, sink: socket.socket, count: Callable[[int], None] | None) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                sink.sendall(self.altered(data) if count else data)
                if count:
                    count(len(data))
        self._hang_up(source, sink)

    def _hang_up(self, *ends: socket.socket) -> None:
        for end in ends:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def _count(self, size: int) -> None:
        with self._lock:
            before = self.sent_bytes
            self.sent_bytes += size
            due = before < self.after <= self.sent_bytes
            time.sleep(size / self.bytes_per_s)
        if due:
            self.then()


def settings_for(port: int, access: str = ACCESS, secret: str = SECRET) -> Settings:
    return Settings(s3_endpoint_url=f"http://127.0.0.1:{port}", s3_access_key_id=access, s3_secret_access_key=SecretStr(secret))


@pytest.fixture
def own_s3_server(tmp_path: Path) -> Iterator[S3Server]:
    """A server that a test may kill."""
    yield from _running(tmp_path / "s3")


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    yield from _running(tmp_path_factory.mktemp("s3") / "shared")


@pytest.fixture
def s3_settings(s3_server: S3Server) -> Settings:
    return s3_server.settings


@pytest.fixture
def s3_uri(s3_server: S3Server) -> str:
    return f"s3://{BUCKET}/{uuid.uuid4().hex}"


def _running(folder: Path) -> Iterator[S3Server]:
    needs("versitygw, the S3 server of the tests", build.GET_GO, there=build.available("versitygw"))
    server = S3Server(folder)
    server.start()
    try:
        server.create_bucket()
        yield server
    finally:
        server.kill()


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def _answers(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False
