"""A disk that fills while a run writes: a real small file system, so it can be filled. Mounting one takes root."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration import small_twin
from tests.integration.terminal import Terminal

# The toy model alone takes 2.8 MB.
SMALL_MIB = 1


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A folder that holds one megabyte."""
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={SMALL_MIB}m", "tmpfs", str(folder)], capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip("a small file system is missing; to get it: run the tests as root where mounting is allowed")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def submit(folder: Path, **environment: Path) -> tuple[Terminal, int, str]:
    """Prepare a few rows without a second try; gives the exit code and the last line of errors."""
    folder.joinpath("desk").mkdir()
    terminal = Terminal(folder / "desk", "--set", "stages=[prepare]", "--set", "policy.retries=0", "--set", "rlvr.max_completion_tokens=64")
    terminal.environment |= {name: str(path) for name, path in environment.items()}
    done = terminal.submit("--data", str(small_twin.write(folder / "source", train=20, test=4)))
    return terminal, done.returncode, done.stderr.splitlines()[-1]


@pytest.mark.parametrize("place", ["EHRMIND_STORE", "EHRMIND_STATE_DIR"])
def test_a_full_disk_of_store_or_state_is_told_and_the_same_command_continues(tmp_path: Path, small: Path, place: str) -> None:
    terminal, code, message = submit(tmp_path, **{place: small})
    assert code == 75
    assert str(small) in message and "disk full" in message and "free some space and run the same command again" in message
    assert not list(tmp_path.rglob("prepare/manifest.json")) + list(tmp_path.rglob("prepare/model/model.safetensors"))
    subprocess.run(["mount", "-o", "remount,size=64m", str(small)], check=True)
    again = terminal.submit("--data", str(tmp_path / "source" / "small"))
    assert again.returncode == 0, again.stderr
    assert terminal.reasons()[-1] == "ok"


def test_a_full_disk_of_state_at_the_start_is_told(tmp_path: Path, small: Path) -> None:
    (small / "filler").write_bytes(bytes(SMALL_MIB << 20))
    _, code, message = submit(tmp_path, EHRMIND_STATE_DIR=small)
    assert code == 75
    assert message.startswith(f"error: {small}") and "disk full" in message
