"""The state folder of a run: its lock, its status, its logs."""

import subprocess
import sys
from pathlib import Path

import pytest

from ehrmind_k8s.backends.base import Attempt, RunStatus
from ehrmind_k8s.backends.local.state import State
from ehrmind_k8s.errors import Busy

HOLD = (
    "import sys\nfrom pathlib import Path\nfrom ehrmind_k8s.backends.local.state import State\n"
    "with State(Path(sys.argv[1]), 'file:///runs/demo').lock():\n    print('held', flush=True)\n    sys.stdin.read()\n"
)


@pytest.fixture
def state(tmp_path: Path) -> State:
    return State(tmp_path, "file:///runs/demo")


def test_a_second_holder_is_refused_with_the_id_of_the_first(state: State, tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", HOLD, tmp_path], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None and other.stdout.readline() == b"held\n"
        with pytest.raises(Busy, match=f"process {other.pid} works on this run"), state.lock():
            pass
        assert state.holder() == other.pid
        other.kill()
    assert state.holder() is None
    with state.lock():  # a killed holder leaves nothing that must be cleaned up
        pass


def test_the_lock_is_free_again_after_an_error(state: State) -> None:
    with pytest.raises(RuntimeError), state.lock():
        raise RuntimeError
    assert state.holder() is None


def test_a_run_that_was_deleted_while_waiting_is_not_held(state: State) -> None:
    with state.lock():
        state.remove()
    with state.lock():
        assert (state.folder / "lock").exists()


def test_status_comes_back_as_it_was_written(state: State) -> None:
    status = RunStatus(
        "demo", "file:///runs/demo", "medcalc", "running", "sft", 3, 9, "steps", {"loss": 0.5}, attempts=(Attempt("sft", 2, "running"),)
    )
    with state.lock():
        state.write(status)
    assert state.read() == status


def test_a_damaged_status_counts_as_none(state: State) -> None:
    with state.lock():
        (state.folder / "status.json").write_text('{"name": "de')
    assert state.read() is None


@pytest.mark.parametrize(
    ("source", "expected"), [(None, "rlvr-a2"), ("rlvr", "rlvr-a2"), ("rlvr-a1", "rlvr-a1"), ("rollout-0", "rollout-0"), ("sft", None)]
)
def test_the_newest_log_of_a_source(state: State, source: str | None, expected: str | None) -> None:
    state.logs.mkdir(parents=True)
    for age, name in enumerate(["rollout-0", "rlvr-a2", "rlvr-a1"]):
        state.log(name).touch()
        import os

        os.utime(state.log(name), (1000 - age, 1000 - age))
    found = state.newest_log(source)
    assert (found.stem if found else None) == expected


def test_two_runs_of_one_name_in_two_stores_have_their_own_state(tmp_path: Path) -> None:
    assert State(tmp_path, "s3://a/runs/demo").folder != State(tmp_path, "s3://b/runs/demo").folder
