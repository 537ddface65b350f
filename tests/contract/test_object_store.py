"""The same stories on every storage scheme."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from ehrmind_k8s import storage
from ehrmind_k8s.errors import SpecError
from ehrmind_k8s.settings import Settings
from ehrmind_k8s.storage import ObjectStore
from ehrmind_k8s.storage.parallel import gather
from ehrmind_k8s.storage.s3 import S3Store

PART = 5 << 20  # the smallest part S3 allows


@pytest.fixture(params=["file", pytest.param("s3", marks=pytest.mark.s3)])
def opened(request: pytest.FixtureRequest) -> Callable[[str], ObjectStore]:
    """Opens a URI of the scheme under test."""
    if request.param == "file":
        return storage.open
    settings: Settings = request.getfixturevalue("s3_settings")
    return lambda uri: S3Store(uri, settings, part_bytes=PART)


@pytest.fixture
def store(request: pytest.FixtureRequest, opened: Callable[[str], ObjectStore], tmp_path: Path) -> ObjectStore:
    return opened(str(tmp_path / "store") if opened is storage.open else request.getfixturevalue("s3_uri"))


def content(size: int) -> bytes:
    return bytes(i * 7 % 251 for i in range(256)) * (size // 256) + b"end"[: size % 256]


def test_what_was_put_is_got(store: ObjectStore) -> None:
    store.put_bytes("a/b", b"first")
    store.put_bytes("a/b", b"second")
    assert store.get_bytes("a/b") == b"second"


@pytest.mark.parametrize("size", [0, 1, PART - 1, PART, PART + 1, 3 * PART + 3])
def test_a_file_of_any_size_comes_back_byte_for_byte(store: ObjectStore, tmp_path: Path, size: int) -> None:
    source, target = tmp_path / "source", tmp_path / "new" / "target"
    source.write_bytes((content(size) + b"xyz")[:size])
    store.put_file("big/file", source)
    arrived: list[int] = []
    store.get_file("big/file", target, arrived.append)
    assert sum(arrived) == source.stat().st_size
    assert target.read_bytes() == source.read_bytes()
    assert [p.name for p in target.parent.iterdir()] == ["target"]


def test_a_fetched_file_can_be_read_by_other_users_whatever_mode_its_source_had(store: ObjectStore, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"weights")
    source.chmod(0o600)
    store.put_file("w", source)
    store.get_file("w", tmp_path / "w")
    (tmp_path / "ordinary").touch()
    assert (tmp_path / "w").stat().st_mode == (tmp_path / "ordinary").stat().st_mode


def test_a_missing_key_is_a_key_error_and_leaves_no_file(store: ObjectStore, tmp_path: Path) -> None:
    store.put_bytes("there", b"")
    for key in ("nothing", "there/below", "a/b/c"):
        with pytest.raises(KeyError):
            store.get_bytes(key)
        with pytest.raises(KeyError):
            store.get_file(key, tmp_path / "out" / "target")
        assert store.head(key) is None
    assert list((tmp_path / "out").iterdir()) == [] if (tmp_path / "out").exists() else True


def test_a_folder_of_objects_is_no_object(store: ObjectStore) -> None:
    store.put_bytes("folder/a", b"1")
    assert store.head("folder") is None
    with pytest.raises(KeyError):
        store.get_bytes("folder")


def test_the_first_to_put_if_absent_wins(store: ObjectStore) -> None:
    assert store.put_if_absent("attempts/1", b"mine")
    assert not store.put_if_absent("attempts/1", b"yours")
    assert store.get_bytes("attempts/1") == b"mine"


def test_objects_are_listed_in_key_order_with_their_sizes(store: ObjectStore) -> None:
    for key in ("b/2", "a", "b/10", "b-c", "c/d/e"):
        store.put_bytes(key, key.encode())
    assert [(o.key, o.size_bytes) for o in store.list()] == [("a", 1), ("b-c", 3), ("b/10", 4), ("b/2", 3), ("c/d/e", 5)]


def test_a_list_is_bounded_by_its_prefix_not_by_folders(store: ObjectStore) -> None:
    for key in ("step-1/x", "step-10/x", "step/x", "other"):
        store.put_bytes(key, b"")
    assert [o.key for o in store.list("step-1")] == ["step-1/x", "step-10/x"]
    assert [o.key for o in store.list("step-1/")] == ["step-1/x"]
    assert list(store.list("nothing/")) == []


def test_more_objects_than_one_page_are_all_listed(store: ObjectStore) -> None:
    keys = [f"many/{number:04d}" for number in range(1001)]  # a page of S3 holds 1,000
    with ThreadPoolExecutor(8) as pool:
        gather(pool, lambda key: store.put_bytes(key, b""), keys)
    assert [o.key for o in store.list("many/")] == keys


def test_deleting_twice_is_like_deleting_once(store: ObjectStore) -> None:
    store.put_bytes("x/y", b"")
    store.put_bytes("x/z", b"")
    store.delete("x/y")
    store.delete("x/y")
    store.delete("x/none/at/all")
    assert [o.key for o in store.list()] == ["x/z"]


@pytest.mark.parametrize("key", ["../outside", "/absolute", "a/../../outside", "a//b", "a/", "", ".", "a\\b"])
def test_a_key_that_leaves_the_store_is_refused(store: ObjectStore, tmp_path: Path, key: str) -> None:
    with pytest.raises(SpecError, match="is no key of a store"):
        store.put_bytes(key, b"")
    with pytest.raises(SpecError, match="is no key of a store"):
        store.get_file(key, tmp_path / "target")


def test_a_store_below_another_sees_the_same_objects(store: ObjectStore, opened: Callable[[str], ObjectStore]) -> None:
    store.put_bytes("stage/policy/a", b"1")
    below = opened(storage.join(store.uri, "stage"))
    assert [o.key for o in below.list()] == ["policy/a"]
    assert below.get_bytes("policy/a") == b"1"


def test_a_store_that_is_not_there_yet_is_empty(store: ObjectStore) -> None:
    assert list(store.list()) == []
    assert store.discard_unfinished("") == 0
    store.delete("x")
