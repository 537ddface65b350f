import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from ehrmind_k8s import storage
from ehrmind_k8s.errors import SpecError, StoreUnavailable
from ehrmind_k8s.storage import disk
from ehrmind_k8s.storage.local import ABANDONED_S, LocalStore


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(str(tmp_path / "store"))


@pytest.fixture
def ordinary_user() -> Iterator[None]:
    """Root may write anywhere, so for this test it is somebody else."""
    before = os.geteuid()
    if before == 0:
        os.seteuid(65534)
    yield
    os.seteuid(before)


def test_one_of_many_racing_writers_wins(store: LocalStore) -> None:
    gate, won = threading.Barrier(8), []

    def race(number: int) -> None:
        gate.wait()
        if store.put_if_absent("claim", str(number).encode()):
            won.append(number)

    threads = [threading.Thread(target=race, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert store.get_bytes("claim") == str(won[0]).encode()
    assert len(won) == 1


def test_a_writer_that_fails_leaves_the_old_object_and_no_rest(store: LocalStore, tmp_path: Path) -> None:
    store.put_bytes("a/b", b"old")
    with pytest.raises(SpecError):
        store.put_file("a/b", tmp_path / "no-such-source")
    assert store.get_bytes("a/b") == b"old"
    assert [p.name for p in (store.root / "a").iterdir()] == ["b"]


def test_no_permission_is_the_users_to_mend(store: LocalStore, ordinary_user: None) -> None:
    with pytest.raises(SpecError, match=r"no permission .* choose another folder or change its rights"):
        store.put_bytes("a/b", b"")


def test_a_full_disk_is_told_in_words_and_may_pass(store: LocalStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    full = tmp_path / "full"
    full.symlink_to("/dev/full")
    monkeypatch.setattr(disk, "aside_of", lambda path: full)
    with pytest.raises(StoreUnavailable, match=r"disk full .* free some space"):
        store.put_bytes("a", b"some bytes")
    assert store.head("a") is None


@pytest.mark.parametrize("key", ["a/b", "a/b/c"])
def test_a_file_where_a_folder_should_be_is_told(store: LocalStore, key: str) -> None:
    store.put_bytes("a", b"")
    with pytest.raises(SpecError, match="a file is where a folder should be"):
        store.put_bytes(key, b"")


def test_a_store_address_that_is_a_file_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SpecError, match="a file is where a folder should be"):
        storage.open(str(tmp_path / "file")).put_bytes("a", b"")


def test_a_half_written_file_is_no_object(store: LocalStore) -> None:
    store.put_bytes("a/b", b"")
    disk.aside_of(store.root / "a" / "c").write_bytes(b"half")
    assert [o.key for o in store.list()] == ["a/b"]


def test_what_dead_writers_left_is_given_back_and_what_live_ones_hold_is_not(store: LocalStore) -> None:
    store.put_bytes("a/b", b"")
    dead, live, elsewhere = disk.aside_of(store.root / "a" / "x"), disk.aside_of(store.root / "a" / "x"), disk.aside_of(store.root / "x")
    for path in (dead, live, elsewhere):
        path.touch()
    for path in (dead, elsewhere):
        os.utime(path, (1.0, path.stat().st_mtime - ABANDONED_S - 1))
    assert store.discard_unfinished("a") == 1
    assert (dead.exists(), live.exists(), elsewhere.exists()) == (False, True, True)


@pytest.mark.parametrize("form", ["{}", "file://{}", "file://localhost{}"])
def test_a_folder_may_be_written_in_three_ways(tmp_path: Path, form: str) -> None:
    storage.open(form.format(tmp_path / "with space")).put_bytes("a", b"")
    assert (tmp_path / "with space" / "a").exists()
    assert storage.open(LocalStore(str(tmp_path / "with space")).uri).head("a")


def test_a_file_uri_with_two_slashes_is_told() -> None:
    with pytest.raises(SpecError, match="three slashes: file:///runs/demo"):
        storage.open("file://runs/demo")
