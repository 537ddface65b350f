import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ehrmind_k8s import storage
from ehrmind_k8s.errors import EhrmindError, SpecError, StoreRefused, StoreUnavailable
from ehrmind_k8s.settings import Settings
from ehrmind_k8s.storage import s3_client
from ehrmind_k8s.storage.s3 import S3Store
from tests.unit.storage.awkward_s3 import AwkwardServer, Faults

Opener = Callable[..., S3Store]


@pytest.fixture(scope="module")
def awkward() -> Iterator[Opener]:
    """Opens a store on a server with the given faults."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(s3_client, "ATTEMPTS", 2)
        server = AwkwardServer()
        yield server.store
        server.close(server.store(Faults()))


@pytest.mark.parametrize(
    ("status", "code", "kind", "words"),
    [
        (403, "SignatureDoesNotMatch", StoreRefused, "wrong S3 credentials"),
        (403, "InvalidAccessKeyId", StoreRefused, "wrong S3 credentials"),
        (403, "AccessDenied", StoreRefused, "may not do that"),
        (403, "RequestTimeTooSkewed", StoreRefused, "clock"),
        (403, "QuotaExceeded", StoreUnavailable, "the store is full"),
        (404, "NoSuchBucket", StoreRefused, "there is no such bucket"),
        (400, "AuthorizationHeaderMalformed", StoreRefused, "EHRMIND_S3_REGION"),
        (400, "SomethingNew", StoreRefused, "SomethingNew"),
        (400, "BadDigest", StoreUnavailable, "try again"),
        (500, "InternalError", StoreUnavailable, "try again"),
        (503, "SlowDown", StoreUnavailable, "SlowDown"),
        (503, "<html>gateway</html>", StoreUnavailable, "503"),
        (507, "InsufficientStorage", StoreUnavailable, "the store is full"),
        (200, "<!doctype html><p>a login page", StoreUnavailable, "check that EHRMIND_S3_ENDPOINT_URL is an S3 server"),
        (405, "<!doctype html><p>nothing here", StoreRefused, "check EHRMIND_S3_ENDPOINT_URL"),
    ],
)
def test_a_refusal_is_of_the_class_of_whoever_mends_it(awkward: Opener, status: int, code: str, kind: type[EhrmindError], words: str) -> None:
    store = awkward(Faults(always=(status, code)))
    with pytest.raises(kind, match=words) as refused:
        list(store.list())
    assert "s3://bucket/run" in str(refused.value)
    assert store.endpoint in str(refused.value)
    assert "a-secret" not in str(refused.value)


@pytest.mark.parametrize("conditions", ["enforced", "ignored", "refused"])
def test_put_if_absent_keeps_its_word_one_writer_at_a_time_whatever_the_server_makes_of_conditions(awkward: Opener, conditions: str) -> None:
    store = awkward(Faults(conditions=conditions))
    assert store.put_if_absent("attempts/1", b"mine")
    assert not store.put_if_absent("attempts/1", b"yours")
    assert store.get_bytes("attempts/1") == b"mine"
    assert store.conditional_writes == conditions


def test_large_files_travel_without_the_right_to_list_uploads(awkward: Opener, tmp_path: Path) -> None:
    (tmp_path / "source").write_bytes(os.urandom(2500))
    store = awkward(Faults(lists_uploads=False), part_bytes=1000)
    store.put_file("x", tmp_path / "source")
    assert store.get_bytes("x") == (tmp_path / "source").read_bytes()
    assert store.discard_unfinished("") == 0


def test_an_upload_whose_last_answer_is_lost_is_found_complete(awkward: Opener, tmp_path: Path) -> None:
    (tmp_path / "source").write_bytes(os.urandom(2500))
    store = awkward(Faults(forgets_to_answer_complete=True), part_bytes=1000)
    store.put_file("x", tmp_path / "source")
    assert store.get_bytes("x") == (tmp_path / "source").read_bytes()


def test_a_server_without_ranged_reads_gives_files_as_one_stream(awkward: Opener, tmp_path: Path) -> None:
    content = os.urandom(2500)
    store = awkward(Faults(ranges=False), part_bytes=1000)
    store.put_bytes("x", content)
    store.get_file("x", tmp_path / "target")
    assert (tmp_path / "target").read_bytes() == content


def test_an_unreadable_endpoint_is_the_users_to_mend() -> None:
    with pytest.raises(SpecError, match="EHRMIND_S3_ENDPOINT_URL='minio'"):
        S3Store("s3://bucket/run", Settings(s3_endpoint_url="minio"))


def test_a_uri_without_bucket_is_refused() -> None:
    with pytest.raises(SpecError, match="names no bucket; write s3://BUCKET/PREFIX"):
        storage.open("s3:///run")


def test_an_unknown_scheme_is_refused_with_the_known_ones() -> None:
    with pytest.raises(SpecError, match=r"unknown scheme 'gs'; .*file, s3"):
        storage.open("gs://bucket/run")


def test_a_bucket_name_that_cannot_be_is_refused(awkward: Opener) -> None:
    store = awkward(Faults())
    wrong = S3Store("s3://Not_A Bucket/run", Settings(s3_endpoint_url=store.endpoint, s3_access_key_id="a", s3_secret_access_key="b"))
    with pytest.raises(SpecError, match="Not_A Bucket/run/x: not an address"):
        wrong.get_bytes("x")
