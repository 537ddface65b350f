"""What a user reads when a real S3 server refuses: the address, the reason, the fix, and never the secret."""

import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from ehrmind_k8s import artifacts, storage
from ehrmind_k8s.errors import IntegrityError, SpecError
from ehrmind_k8s.settings import Settings
from ehrmind_k8s.storage import ObjectStore
from ehrmind_k8s.storage.s3 import S3Store
from tests.integration.s3_server import ACCESS, BUCKET, SECRET, S3Server, settings_for

pytestmark = pytest.mark.s3

OPERATIONS: dict[str, Callable[[ObjectStore, Path], object]] = {
    "put_bytes": lambda store, path: store.put_bytes("x", b"1"),
    "put_file": lambda store, path: store.put_file("x", path),
    "put_if_absent": lambda store, path: store.put_if_absent("x", b"1"),
    "get_bytes": lambda store, path: store.get_bytes("x"),
    "get_file": lambda store, path: store.get_file("x", path.with_name("target")),
    "head": lambda store, path: store.head("x"),
    "list": lambda store, path: list(store.list()),
    "delete": lambda store, path: store.delete("x"),
    "discard_unfinished": lambda store, path: store.discard_unfinished(""),
}


@pytest.fixture(params=OPERATIONS)
def operation(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[ObjectStore], object]:
    (tmp_path / "source").write_bytes(b"1")
    return lambda store: OPERATIONS[request.param](store, tmp_path / "source")


def test_a_wrong_secret_is_told_without_showing_it(s3_server: S3Server, operation: Callable[[ObjectStore], object]) -> None:
    store = S3Store(f"s3://{BUCKET}/run", settings_for(s3_server.port, secret="quite-another-secret"))
    with pytest.raises(SpecError, match=rf"s3://{BUCKET}/run.*127.0.0.1:{s3_server.port}.*EHRMIND_S3_SECRET_ACCESS_KEY") as refused:
        operation(store)
    assert "quite-another-secret" not in str(refused.value)


def test_an_unknown_access_key_is_told(s3_server: S3Server) -> None:
    store = S3Store(f"s3://{BUCKET}/run", settings_for(s3_server.port, access="nobody"))
    with pytest.raises(SpecError, match="wrong S3 credentials; check EHRMIND_S3_ACCESS_KEY_ID"):
        store.get_bytes("x")


def test_a_missing_bucket_is_no_missing_key(s3_settings: Settings, operation: Callable[[ObjectStore], object]) -> None:
    with pytest.raises(SpecError, match=r"s3://no-such-bucket/run.*bucket.*create it, or correct the store URI"):
        operation(S3Store("s3://no-such-bucket/run", s3_settings))


def test_half_of_the_credentials_are_told_before_anything_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EHRMIND_S3_ACCESS_KEY_ID", ACCESS)
    with pytest.raises(SpecError, match="EHRMIND_S3_SECRET_ACCESS_KEY is not set"):
        storage.open("s3://bucket/run")


def test_no_credentials_at_all_are_told_without_asking_a_metadata_service(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_EC2_METADATA_DISABLED")
    with socket.create_server(("127.0.0.1", 0)) as metadata:
        monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", f"http://127.0.0.1:{metadata.getsockname()[1]}")
        with pytest.raises(SpecError, match=r"no S3 credentials.*set EHRMIND_S3_ACCESS_KEY_ID"):
            S3Store(f"s3://{BUCKET}/run", Settings(s3_endpoint_url=s3_server.settings.s3_endpoint_url, s3_region="eu-west-1")).get_bytes("x")
        metadata.setblocking(False)
        with pytest.raises(BlockingIOError):  # nobody came
            metadata.accept()


@pytest.mark.parametrize("prefix", ["EHRMIND_S3", "AWS"])
def test_the_environment_names_the_server(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch, prefix: str, s3_uri: str) -> None:
    endpoint = f"http://127.0.0.1:{s3_server.port}"
    for name, value in {"ENDPOINT_URL": endpoint, "ACCESS_KEY_ID": ACCESS, "SECRET_ACCESS_KEY": SECRET}.items():
        monkeypatch.setenv(f"{prefix}_{name}", value)
    storage.open(s3_uri).put_bytes("x", b"1")
    assert storage.open(f"{s3_uri}/").get_bytes("x") == b"1"


def test_a_plain_server_behind_an_https_address_is_told(s3_server: S3Server, s3_settings: Settings) -> None:
    wrong = s3_settings.model_copy(update={"s3_endpoint_url": f"https://127.0.0.1:{s3_server.port}"})
    with pytest.raises(SpecError, match=r"certificate.*is not accepted.*EHRMIND_S3_CA_BUNDLE"):
        S3Store(f"s3://{BUCKET}/run", wrong).get_bytes("x")


def test_this_server_enforces_conditional_writes_and_the_probe_leaves_nothing(s3_settings: Settings, s3_uri: str) -> None:
    store = S3Store(s3_uri, s3_settings)
    assert store.conditional_writes == "enforced"
    assert store.client.list_objects_v2(Bucket=BUCKET, Prefix=s3_uri.removeprefix(f"s3://{BUCKET}/"))["KeyCount"] == 0


def test_an_object_altered_behind_our_back_is_refused_by_name(s3_settings: Settings, s3_uri: str, tmp_path: Path) -> None:
    store = _published(S3Store(s3_uri, s3_settings), tmp_path)
    store.put_bytes("policy/v1-a1/model.safetensors", b"weightz")
    with pytest.raises(IntegrityError, match=r"policy/v1-a1: model.safetensors differs from the SHA-256"):
        artifacts.fetch(store, "policy/v1-a1", tmp_path / "back")
    assert not (tmp_path / "back").exists()


def test_an_object_that_is_gone_is_refused_by_name(s3_settings: Settings, s3_uri: str, tmp_path: Path) -> None:
    store = _published(S3Store(s3_uri, s3_settings), tmp_path)
    store.delete("policy/v1-a1/model.safetensors")
    with pytest.raises(IntegrityError, match=r"model.safetensors is listed in manifest.json but missing"):
        artifacts.fetch(store, "policy/v1-a1", tmp_path / "back")


def test_a_removed_artifact_leaves_nothing_and_its_neighbour_everything(s3_settings: Settings, s3_uri: str, tmp_path: Path) -> None:
    store = _published(S3Store(s3_uri, s3_settings), tmp_path)
    artifacts.publish(store, "policy/v1-a10", tmp_path / "out", "policy")
    artifacts.remove(store, "policy/v1-a1")
    assert {o.key.split("/")[1] for o in store.list("policy/")} == {"v1-a10"}
    artifacts.fetch(store, "policy/v1-a10", tmp_path / "back")


def _published(store: S3Store, folder: Path) -> S3Store:
    (folder / "out").mkdir()
    (folder / "out" / "config.json").write_text("{}")
    (folder / "out" / "model.safetensors").write_bytes(b"weights")
    artifacts.publish(store, "policy/v1-a1", folder / "out", "policy")
    return store
