import hashlib
import json
import os
import shutil
import string
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ehrmind_k8s import artifacts, spec, storage
from ehrmind_k8s.artifacts import Claim, RunDocument
from ehrmind_k8s.errors import Fenced, IntegrityError, SpecError
from ehrmind_k8s.storage import ObjectStore, disk

Tree = dict[str, bytes]
NAMES = st.text(string.ascii_letters + string.digits + "._- é", min_size=1, max_size=6).filter(lambda n: n not in (".", ".."))
FILES = st.builds("/".join, st.lists(NAMES.map(lambda n: n + "~"), max_size=2).flatmap(lambda folders: NAMES.map(lambda n: [*folders, n + "!"])))
TREES = st.dictionaries(FILES, st.binary(max_size=64), min_size=1, max_size=8)  # folders end with ~ and files with !, so no name is both
VERSIONS = st.dictionaries(st.sampled_from(["a", "b/c", "b/d", "e"]), st.binary(max_size=4), min_size=1)  # of one artifact: names recur


class Killed(Exception):
    """The process ended here."""


class Dying:
    """A store whose process is killed at its n-th write or delete."""

    def __init__(self, store: ObjectStore, last: int) -> None:
        self.store, self.left, self.uri = store, last, store.uri

    def __getattr__(self, name: str) -> Callable[..., Any]:
        action = getattr(self.store, name)
        return self._counted(action) if name in ("put_bytes", "put_file", "put_if_absent", "delete") else action

    def _counted(self, action: Callable[..., Any]) -> Callable[..., Any]:
        def act(*args: Any) -> Any:
            self.left -= 1
            if self.left < 0:
                raise Killed
            return action(*args)

        return act


@pytest.fixture
def store(tmp_path: Path) -> ObjectStore:
    return storage.open(str(tmp_path / "store"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return lay(tmp_path / "made", {"config.json": b"{}", "sub/weights": b"0123456789", "empty": b""})


def lay(folder: Path, tree: Tree) -> Path:
    for name, content in tree.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def read(folder: Path) -> Tree:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@given(TREES, st.sampled_from(["", "policy/v1-a1"]))
@settings(max_examples=40, deadline=None)
def test_any_tree_comes_back_as_it_was(tree: Tree, prefix: str) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        at = Path(scratch)
        store = storage.open(str(at / "store"))
        artifacts.publish(store, prefix, lay(at / "made", tree), "data")
        manifest = artifacts.fetch(store, prefix, at / "got")
        assert read(at / "got") == tree
        assert {f.name: (f.size_bytes, f.sha256) for f in manifest.files} == {n: (len(c), hashlib.sha256(c).hexdigest()) for n, c in tree.items()}


@given(VERSIONS, VERSIONS, st.integers(0, 6))
@settings(max_examples=60, deadline=None)
def test_a_writer_killed_at_any_write_leaves_the_old_artifact_none_or_the_new_one(old: Tree, new: Tree, last: int) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        at = Path(scratch)
        store = storage.open(str(at / "store"))
        artifacts.publish(store, "x", lay(at / "old", old), "data")
        try:
            artifacts.publish(Dying(store, last), "x", lay(at / "new", new), "data")
        except Killed:
            assert last < len(new) + 2  # the withdrawn manifest, the files, the new manifest
        if artifacts.load(store, "x") is None:
            with pytest.raises(IntegrityError, match="never finished"):
                artifacts.fetch(store, "x", at / "got")
        else:
            artifacts.fetch(store, "x", at / "got")
            assert read(at / "got") in (old, new)


@given(TREES, st.integers(0, 10))
@settings(max_examples=30, deadline=None)
def test_a_remover_killed_at_any_delete_leaves_all_or_no_artifact(tree: Tree, last: int) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        at = Path(scratch)
        store = storage.open(str(at / "store"))
        artifacts.publish(store, "x", lay(at / "made", tree), "data")
        try:
            artifacts.remove(Dying(store, last), "x")
        except Killed:
            assert last < len(tree) + 1
        if artifacts.load(store, "x"):
            artifacts.fetch(store, "x", at / "got")
            assert read(at / "got") == tree


def test_publishing_into_a_store_of_others_leaves_their_unfinished_uploads(store: ObjectStore, folder: Path, tmp_path: Path) -> None:
    theirs = tmp_path / "store" / "data" / f"{disk.ASIDE}1"
    theirs.parent.mkdir(parents=True)
    theirs.touch()
    os.utime(theirs, (0, 0))
    artifacts.publish(store, "", folder, "data")
    assert theirs.exists()
    artifacts.publish(store, "", folder, "data", claim=Claim(store, 1))  # who holds a claim has the place to itself
    assert not theirs.exists()


def test_only_the_named_files_are_published_and_fetched(store: ObjectStore, folder: Path, tmp_path: Path) -> None:
    artifacts.publish(store, "", folder, "data", names=["config.json", "sub/weights"])
    assert [o.key for o in store.list()] == ["config.json", "manifest.json", "sub/weights"]
    artifacts.fetch(store, "", tmp_path / "got", ["sub/weights"])
    assert read(tmp_path / "got") == {"sub/weights": b"0123456789"}


def test_a_name_that_the_artifact_lacks_is_told_with_those_it_has(store: ObjectStore, folder: Path, tmp_path: Path) -> None:
    artifacts.publish(store, "p", folder, "data")
    with pytest.raises(IntegrityError, match=r"p: the artifact has no file 'model.bin'; it holds config.json, empty, sub/weights"):
        artifacts.fetch(store, "p", tmp_path / "got", ["model.bin"])


def test_what_was_in_the_folder_before_a_fetch_is_gone_after_it(store: ObjectStore, folder: Path, tmp_path: Path) -> None:
    artifacts.publish(store, "p", folder, "data")
    lay(tmp_path / "got", {"stale": b"1", "config.json": b"old"})
    artifacts.fetch(store, "p", tmp_path / "got")
    assert read(tmp_path / "got") == read(folder)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["got", "made", "store"]


@pytest.mark.parametrize("content", [b"012345678X", b"01234", b"0123456789+"])
def test_an_altered_file_is_refused_by_name_and_the_folder_stays_as_it_was(store: ObjectStore, folder: Path, tmp_path: Path, content: bytes) -> None:
    artifacts.publish(store, "p", folder, "data")
    store.put_bytes("p/sub/weights", content)
    lay(tmp_path / "got", {"before": b"1"})
    with pytest.raises(IntegrityError, match=r"store/p: sub/weights .* it was altered after publishing"):
        artifacts.fetch(store, "p", tmp_path / "got")
    assert read(tmp_path / "got") == {"before": b"1"}


def test_a_copy_of_an_artifact_with_its_manifest_can_be_published_again(store: ObjectStore, folder: Path, tmp_path: Path) -> None:
    artifacts.publish(store, "p", folder, "data")
    copy = shutil.copytree(tmp_path / "store" / "p", tmp_path / "copy")
    assert artifacts.publish(store, "q", copy, "data").files == artifacts.load(store, "p").files  # type: ignore[union-attr]


def test_a_file_that_changes_while_it_is_published_is_noticed(store: ObjectStore, folder: Path) -> None:
    class Racing(Dying):
        def put_file(self, key: str, path: Path) -> None:
            store.put_file(key, path)
            path.write_bytes(b"longer than it was before")

    with pytest.raises(IntegrityError, match="changed while it was published"):
        artifacts.publish(Racing(store, 100), "p", folder, "data")
    assert artifacts.load(store, "p") is None


def test_a_folder_made_of_links_is_published_as_files(store: ObjectStore, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "links").mkdir()
    (tmp_path / "links" / "weights").symlink_to(folder / "sub" / "weights")
    artifacts.publish(store, "p", tmp_path / "links", "data")
    assert store.get_bytes("p/weights") == b"0123456789"


@pytest.mark.parametrize("name", ["../outside", "/etc/passwd", "a/../../outside", "a//b", "", "a\\..\\b"])
def test_a_manifest_that_leads_out_of_its_artifact_is_refused(store: ObjectStore, tmp_path: Path, name: str) -> None:
    write_manifest(store, files=[{"name": name, "size_bytes": 1, "sha256": "0" * 64}])
    with pytest.raises(IntegrityError, match=r"store/p: manifest.json lists a file outside of its artifact"):
        artifacts.fetch(store, "p", tmp_path / "got")


@pytest.mark.parametrize(
    "damage",
    [
        {"files": [{"name": "a", "size_bytes": -1, "sha256": "0" * 64}]},
        {"files": [{"name": "a", "size_bytes": "1", "sha256": "0" * 64}]},
        {"files": [{"name": "a", "size_bytes": 1, "sha256": "short"}]},
        {"files": [{"name": "a"}]},
        {"files": None},
        {"format": "one"},
        {"kind": None, "files": [3]},
    ],
)
def test_a_damaged_manifest_is_refused_by_name(store: ObjectStore, damage: dict[str, Any]) -> None:
    write_manifest(store, **damage)
    with pytest.raises(IntegrityError, match=r"store/p: manifest.json is damaged"):
        artifacts.load(store, "p")


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b"\xff\xfe"])
def test_a_manifest_that_is_no_document_is_refused(store: ObjectStore, content: bytes) -> None:
    store.put_bytes("p/manifest.json", content)
    with pytest.raises(IntegrityError, match=r"manifest.json is damaged"):
        artifacts.load(store, "p")


def test_a_newer_manifest_says_upgrade(store: ObjectStore) -> None:
    write_manifest(store, format=artifacts.FORMAT + 1)
    with pytest.raises(IntegrityError, match=r"format 2 is newer than this version reads \(1\); upgrade"):
        artifacts.load(store, "p")


def test_a_newer_run_says_upgrade_and_a_damaged_one_is_no_missing_one(store: ObjectStore) -> None:
    with pytest.raises(KeyError):
        RunDocument.read(store)
    store.put_bytes("spec.json", b'{"format": 2}')
    with pytest.raises(IntegrityError, match="newer than this version reads"):
        RunDocument.read(store)
    store.put_bytes("spec.json", b"{}")
    with pytest.raises(IntegrityError, match="damaged"):
        RunDocument.read(store)


def test_the_second_document_of_a_run_does_not_replace_the_first(store: ObjectStore) -> None:
    first, second = (RunDocument.new(spec.load({"task": "medcalc", "preset": "tiny"})) for _ in range(2))
    assert first.write(store)
    assert not second.write(store)
    assert first.write(store)  # the same document again, as after a lost answer
    assert RunDocument.read(store).uid == first.uid


def test_an_overtaken_attempt_can_claim_nothing_and_finish_nothing(store: ObjectStore, folder: Path) -> None:
    older, newer = Claim(store, 1), Claim(store, 2)
    older.take()
    newer.take({"host": "b"})
    assert artifacts.latest_attempt(store) == 2
    with pytest.raises(Fenced, match="attempt 2 has taken over from attempt 1"):
        artifacts.publish(store, "p", folder, "data", claim=older)
    with pytest.raises(Fenced, match="attempt 2 is claimed already"):
        Claim(store, 2).take()
    assert [o.key for o in store.list("p")] == []
    artifacts.publish(store, "p", folder, "data", claim=newer)


def test_an_attempt_overtaken_during_its_upload_does_not_finish(store: ObjectStore, folder: Path) -> None:
    older = Claim(store, 1)
    older.take()

    class Overtaken(Dying):
        def put_file(self, key: str, path: Path) -> None:
            store.put_file(key, path)
            store.put_if_absent("attempts/2", b"{}")

    with pytest.raises(Fenced):
        artifacts.publish(Overtaken(store, 100), "p", folder, "data", claim=older)
    assert artifacts.load(store, "p") is None


def test_of_two_claims_on_a_server_that_enforces_nothing_one_holds(store: ObjectStore) -> None:
    class Careless(Dying):
        def put_if_absent(self, key: str, data: bytes) -> bool:
            store.put_bytes(key, data)
            store.put_bytes(key, b'{"writer": "another, a moment later"}')
            return True

    with pytest.raises(Fenced, match="claimed already"):
        Claim(Careless(store, 100), 1).take()


def test_attempts_are_numbers_and_ordered_as_numbers(store: ObjectStore) -> None:
    for name in ("9", "10", "note.txt"):
        store.put_bytes(f"attempts/{name}", b"{}")
    assert artifacts.latest_attempt(store) == 10


def test_checkpoints_and_versions_are_listed_in_the_order_of_their_steps(store: ObjectStore) -> None:
    for key in ("checkpoint/step-10-a1/x", "checkpoint/step-9-a2/x", "checkpoint/step-9-a1/manifest.json", "checkpoint/step-odd/x", "policy/v3-a1/x"):
        store.put_bytes(key, b"")
    assert artifacts.checkpoints(store) == [(9, 1), (9, 2), (10, 1)]
    assert artifacts.versions(store) == [(3, 1)]


def test_the_first_released_manifest_stays_readable(store: ObjectStore) -> None:
    store.put_bytes("p/manifest.json", (Path(__file__).parents[1] / "golden" / "manifest-1.json").read_bytes())
    manifest = artifacts.load(store, "p")
    assert manifest
    assert (manifest.kind, manifest.meta, manifest.format) == ("policy", {"name": "v1-a1", "version": 1}, 1)
    assert manifest.files == (artifacts.File("model.safetensors", 7, hashlib.sha256(b"weights").hexdigest()),)


def write_manifest(store: ObjectStore, **changes: Any) -> None:
    document = {"kind": "data", "files": [], "meta": {}, "format": 1, **changes}
    store.put_bytes("p/manifest.json", json.dumps(document).encode())


class TestSettle:
    """Pods of a run bring its document along (EHRMIND_SPEC_FILE) and agree on one."""

    @pytest.fixture
    def mount(self, tmp_path: Path) -> Callable[..., tuple[RunDocument, Path]]:
        def mount(*overrides: str, name: str = "spec.json") -> tuple[RunDocument, Path]:
            document = RunDocument.new(spec.load({"task": "medcalc", "preset": "tiny"}, overrides))
            (tmp_path / name).write_bytes(document.to_json())
            return document, tmp_path / name

        return mount

    def test_the_first_who_comes_publishes_it(self, mount: Any, tmp_path: Path) -> None:
        document, file = mount()
        assert RunDocument.settle(str(tmp_path / "run"), file) == document
        assert RunDocument.at(str(tmp_path / "run")) == document

    def test_a_run_made_again_under_its_name_goes_on_in_its_store(self, mount: Any, tmp_path: Path) -> None:
        first, file = mount()
        RunDocument.settle(str(tmp_path / "run"), file)
        again, file = mount()
        assert again.uid != first.uid
        assert RunDocument.settle(str(tmp_path / "run"), file).uid == first.uid

    def test_another_recipe_is_refused_with_the_keys_that_differ(self, mount: Any, tmp_path: Path) -> None:
        RunDocument.settle(str(tmp_path / "run"), mount()[1])
        with pytest.raises(SpecError, match=r"(?s)rlvr\.steps: \d+ -> 7.*another name.*ehrmind runs delete") as caught:
            RunDocument.settle(str(tmp_path / "run"), mount("rlvr.steps=7")[1])
        assert "seed" not in str(caught.value)

    @pytest.mark.parametrize("update", [True, False])
    def test_how_to_execute_is_the_pods_and_the_first_rank_tells_the_store(self, mount: Any, tmp_path: Path, update: bool) -> None:
        first, file = mount("rollout.replicas=1")
        RunDocument.settle(str(tmp_path / "run"), file)
        settled = RunDocument.settle(str(tmp_path / "run"), mount("rollout.replicas=3")[1], update=update)
        assert (settled.uid, settled.spec.rollout.replicas) == (first.uid, 3)
        assert RunDocument.at(str(tmp_path / "run")).spec.rollout.replicas == (3 if update else 1)

    def test_without_a_file_the_store_decides(self, mount: Any, tmp_path: Path) -> None:
        with pytest.raises(SpecError, match="not a run"):
            RunDocument.settle(str(tmp_path / "run"), None)

    def test_a_file_that_cannot_be_read_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(SpecError, match=r"missing\.json"):
            RunDocument.settle(str(tmp_path / "run"), tmp_path / "missing.json")
        (tmp_path / "torn.json").write_text('{"format": 1, "uid"')
        with pytest.raises(IntegrityError, match=r"torn\.json: damaged"):
            RunDocument.settle(str(tmp_path / "run"), tmp_path / "torn.json")
