"""Large transfers on a real S3 server that is killed, slow, silent or far away."""

import base64
import hashlib
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ehrmind_k8s import artifacts
from ehrmind_k8s.errors import SpecError, StoreUnavailable
from ehrmind_k8s.settings import Settings
from ehrmind_k8s.storage import s3_client, s3_upload
from ehrmind_k8s.storage.base import ObjectInfo
from ehrmind_k8s.storage.s3 import S3Store
from tests.conftest import needs, needs_program
from tests.integration.s3_server import BUCKET, Line, S3Server, settings_for
from tests.tools import build

pytestmark = pytest.mark.s3

PART = 5 << 20
PARTS = 12
URI = f"s3://{BUCKET}/run"


@pytest.fixture
def large(tmp_path: Path) -> Path:
    """12 parts and a bit, no two parts alike."""
    path = tmp_path / "large"
    path.write_bytes(b"".join(hashlib.sha256(n.to_bytes(4, "big")).digest() * (PART // 64) for n in range(2 * PARTS)) + b"end")
    return path


@pytest.fixture
def line() -> Iterator[Callable[..., Line]]:
    lines: list[Line] = []

    def lay(*args: object, **kwargs: object) -> Line:
        lines.append(Line(*args, **kwargs))  # type: ignore[arg-type]
        return lines[-1]

    yield lay
    for made in lines:
        made.close()


def test_a_server_killed_in_the_middle_of_an_upload_gets_only_the_missing_parts_afterwards(
    own_s3_server: S3Server, large: Path, tmp_path: Path, line: Callable[..., Line], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3_client, "ATTEMPTS", 2)
    first = line(own_s3_server.port, after=PARTS * PART * 0.6, then=own_s3_server.kill)
    with pytest.raises(StoreUnavailable, match="no answer from"):
        S3Store(URI, settings_for(first.port), PART).put_file("weights", large)

    own_s3_server.start()
    second = line(own_s3_server.port)
    store = S3Store(URI, settings_for(second.port), PART)
    store.put_file("weights", large)
    assert second.sent_bytes < (PARTS - 1) * PART  # at least two parts did not travel again
    store.get_file("weights", tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == large.read_bytes()
    assert list(s3_upload.open_uploads(store.client, BUCKET, "run/")) == []


def test_parts_of_another_content_are_not_taken_for_ours(own_s3_server: S3Server, large: Path, tmp_path: Path) -> None:
    store = S3Store(URI, own_s3_server.settings, PART)
    started = store.client.create_multipart_upload(Bucket=BUCKET, Key="run/weights")["UploadId"]
    store.client.upload_part(Bucket=BUCKET, Key="run/weights", UploadId=started, PartNumber=1, Body=b"x" * PART)
    store.put_file("weights", large)
    store.get_file("weights", tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == large.read_bytes()


def test_a_slow_line_that_moves_is_not_a_dead_one(
    s3_server: S3Server, s3_uri: str, tmp_path: Path, line: Callable[..., Line], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3_client, "READ_TIMEOUT_S", 1.5)
    monkeypatch.setattr(s3_client, "ATTEMPTS", 1)
    part = 8 << 20
    source = tmp_path / "source"
    source.write_bytes(bytes(part + 1))
    slow = line(s3_server.port, bytes_per_s=3 << 20)  # a part takes 2.7 s, of which the socket's buffers hide less than one
    store = S3Store(s3_uri, settings_for(slow.port), part)
    store.put_file("slow", source)
    assert store.head("slow") == ObjectInfo("slow", part + 1)


def test_a_silent_server_is_given_up_within_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3_client, "READ_TIMEOUT_S", 0.2)
    monkeypatch.setattr(s3_client, "ATTEMPTS", 2)
    with socket.create_server(("127.0.0.1", 0)) as silent:  # the kernel takes connections that nobody ever reads
        port = silent.getsockname()[1]
        with pytest.raises(StoreUnavailable, match=f"no answer from http://127.0.0.1:{port}"):
            S3Store(URI, settings_for(port)).get_bytes("x")


def test_a_server_that_is_not_there_is_named_with_what_to_check(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3_client, "ATTEMPTS", 2)
    with pytest.raises(StoreUnavailable, match=r"s3://bucket/run/x: no answer from http://127.0.0.1:1 .*ConnectionRefused.* EHRMIND_S3_ENDPOINT_URL"):
        S3Store(URI, settings_for(1)).get_bytes("x")


def test_a_server_that_restarts_is_waited_for(own_s3_server: S3Server) -> None:
    store = S3Store(URI, own_s3_server.settings)
    store.put_bytes("before", b"1")
    own_s3_server.kill()
    back = threading.Timer(0.3, own_s3_server.start)
    back.start()
    assert store.get_bytes("before") == b"1"
    back.join()


def test_a_broken_download_goes_on_where_it_broke(s3_server: S3Server, s3_settings: Settings, s3_uri: str, large: Path, tmp_path: Path) -> None:
    S3Store(s3_uri, s3_settings, PART).put_file("weights", large)
    target = tmp_path / "back"
    with _Cutting(s3_server.port, every=3 << 20) as cutting:
        S3Store(s3_uri, settings_for(cutting.port), PART).get_file("weights", target)
    assert target.read_bytes() == large.read_bytes()
    assert cutting.cuts >= PARTS


def test_a_byte_that_changes_on_its_way_up_is_refused_by_the_server(s3_server: S3Server, s3_uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Line, "altered", lambda self, data: data.replace(b"glucose", b"glucosf"))
    noisy = Line(s3_server.port)
    store = S3Store(s3_uri, settings_for(noisy.port))
    with pytest.raises(StoreUnavailable, match="try again"):
        store.put_bytes("x", b"glucose")
    noisy.close()
    assert S3Store(s3_uri, s3_server.settings).head("x") is None


def test_over_tls_the_authority_is_checked_and_every_body_carries_its_md5(tmp_path: Path, large: Path) -> None:
    needs("versitygw, the S3 server of the tests", build.GET_GO, there=build.available("versitygw"))
    openssl = needs_program("openssl", "apt-get install openssl")
    certificate, key = tmp_path / "certificate.pem", tmp_path / "key.pem"
    name = ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"]
    command = [openssl, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", *name, "-keyout", key, "-out", certificate]
    subprocess.run(command, check=True, capture_output=True)
    server = S3Server(tmp_path / "s3", certificate, key)
    server.start()
    try:
        access = settings_for(server.port).model_copy(update={"s3_endpoint_url": f"https://127.0.0.1:{server.port}"})
        with pytest.raises(SpecError, match=r"certificate of https://127.0.0.1:\d+ is not accepted"):
            S3Store(URI, access).get_bytes("x")
        store = S3Store(URI, access.model_copy(update={"s3_ca_bundle": str(certificate)}), PART)
        store.client.create_bucket(Bucket=BUCKET)
        digests: list[str] = []
        store.client.meta.events.register("before-send.s3.UploadPart", lambda request, **_: digests.append(request.headers["Content-MD5"].decode()))
        store.put_file("weights", large)
        store.get_file("weights", tmp_path / "back")
    finally:
        server.kill()
    assert (tmp_path / "back").read_bytes() == large.read_bytes()
    content = large.read_bytes()
    expected = [base64.b64encode(hashlib.md5(content[at : at + PART]).digest()).decode() for at in range(0, len(content), PART)]
    assert sorted(digests) == sorted(expected)


def test_publishing_gives_back_what_killed_uploads_held(s3_settings: Settings, s3_uri: str, tmp_path: Path) -> None:
    store = S3Store(s3_uri, s3_settings, PART)
    prefix = s3_uri.removeprefix(f"s3://{BUCKET}/")
    for key in ("policy/v1-a1/gone.safetensors", "policy/v2-a1/other.safetensors"):
        store.client.create_multipart_upload(Bucket=BUCKET, Key=f"{prefix}/{key}")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "config.json").write_text("{}")
    artifacts.publish(store, "policy/v1-a1", tmp_path / "out", "policy")
    left = [key for key, _ in s3_upload.open_uploads(store.client, BUCKET, f"{prefix}/")]
    assert left == [f"{prefix}/policy/v2-a1/other.safetensors"]


class _Cutting(Line):
    """A line that breaks each connection after so many bytes have come down."""

    def __init__(self, port: int, every: int) -> None:
        self.every, self.cuts = every, 0
        super().__init__(port)

    def __enter__(self) -> "_Cutting":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _pump(self, source: socket.socket, sink: socket.socket, count: Callable[[int], None] | None) -> None:
        if count:
            return super()._pump(source, sink, count)
        left = self.every
        while left > 0 and (data := source.recv(min(left, 1 << 16))):
            sink.sendall(data)
            left -= len(data)
        self.cuts += left == 0
        return self._hang_up(source, sink)
