"""What a submit finds of earlier ones, in the store and on this machine."""

import os
from pathlib import Path

import pytest

from ehrmind_k8s import spec, storage
from ehrmind_k8s.artifacts import RunDocument
from ehrmind_k8s.backends.base import RunStatus
from ehrmind_k8s.backends.local.backend import LocalBackend
from ehrmind_k8s.backends.local.display import Lines
from ehrmind_k8s.backends.local.state import State
from ehrmind_k8s.errors import SpecError
from ehrmind_k8s.settings import Settings
from ehrmind_k8s.storage import disk
from ehrmind_k8s.storage.local import LocalStore


@pytest.fixture
def backend(tmp_path: Path) -> LocalBackend:
    return LocalBackend(Settings(state_dir=tmp_path / "state"))  # type: ignore[call-arg]


def document(seed: int = 1) -> spec.RunSpec:
    return spec.load({"task": "medcalc", "preset": "tiny", "name": "demo", "seed": seed})


class Overtaken(LocalStore):
    """A store to which another machine submits the same name a moment earlier, with another seed."""

    def put_if_absent(self, key: str, data: bytes) -> bool:
        super().put_if_absent(key, RunDocument.new(document(seed=2)).to_json())
        return super().put_if_absent(key, data)


def test_of_two_submits_at_once_the_second_is_held_to_the_first_ones_document(backend: LocalBackend, tmp_path: Path) -> None:
    store = Overtaken(str(tmp_path / "demo"))
    state = State(backend.settings.state_dir, store.uri)
    with state.lock(), pytest.raises(SpecError, match="seed: 2 -> 1"):
        backend._document(store, document(), state, Lines())


@pytest.mark.parametrize("key", ["suspend", "cancel"])
def test_what_acts_on_a_run_in_a_cluster_is_refused_here(backend: LocalBackend, tmp_path: Path, key: str) -> None:
    with pytest.raises(SpecError, match=r"here Ctrl-C or `ehrmind cancel` stops one"):
        backend.submit(spec.load({"task": "medcalc", "preset": "tiny", "store": str(tmp_path), key: True}))
    assert list(tmp_path.iterdir()) == []


def test_a_run_made_anew_has_no_past(backend: LocalBackend, tmp_path: Path) -> None:
    store = storage.open(str(tmp_path / "demo"))
    state = State(backend.settings.state_dir, store.uri)
    with state.lock():
        state.write(RunStatus("demo", store.uri, "medcalc", "cancelled", score=0.9))
        state.cancelled = True
        state.logs.mkdir()
        state.log("sft-a1").touch()
        backend._document(store, document(), state, Lines())
    assert (state.read(), state.cancelled, state.sources()) == (None, False, [])


def test_a_deleted_run_leaves_no_unfinished_upload(backend: LocalBackend, tmp_path: Path) -> None:
    store = storage.open(str(tmp_path / "demo"))
    RunDocument.new(document()).write(store)
    unfinished = tmp_path / "demo" / f"{disk.ASIDE}1"
    unfinished.touch()
    os.utime(unfinished, (0, 0))
    assert backend.delete(store.uri) == 1
    assert not list((tmp_path / "demo").iterdir())
