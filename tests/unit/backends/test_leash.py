"""No process outlives its owner: the leash against real process trees."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

LEASH = "ehrmind_k8s.backends.local.leash"
# A command that starts a child in a session of its own, as vLLM's engines may, and tells both ids.
FAMILY = (
    "import os, subprocess, sys, time\n"
    "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'], start_new_session=True)\n"
    "print(os.getpid(), child.pid, flush=True)\n"
    "time.sleep(600)\n"
)
STUBBORN = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + FAMILY


class Owner:
    """A leash on a command, held by this test."""

    def __init__(self, script: str, grace_s: int = 20) -> None:
        theirs, self.pipe = os.pipe()
        command = [sys.executable, "-m", LEASH, str(theirs), str(grace_s), sys.executable, "-c", script]
        self.leash = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, pass_fds=(theirs,), start_new_session=True)
        os.close(theirs)

    def family(self) -> list[psutil.Process]:
        """The command and its child, once both run."""
        assert self.leash.stdout is not None
        return [psutil.Process(int(pid)) for pid in self.leash.stdout.readline().split()]

    def end(self) -> int:
        """Exit code of the leash, with everything released."""
        code = self.leash.wait(timeout=60)
        assert self.leash.stdout is not None
        self.leash.stdout.close()
        return code


def gone(processes: list[psutil.Process]) -> bool:
    """Whether all have ended, within a bound."""
    return psutil.wait_procs(processes, timeout=30)[1] == []


@pytest.mark.parametrize(("script", "code"), [("pass", 0), ("raise SystemExit(75)", 75), ("import os; os.kill(os.getpid(), 9)", 128 + 9)])
def test_the_leash_ends_as_its_command_did(script: str, code: int) -> None:
    owner = Owner(script)
    assert owner.end() == code
    os.close(owner.pipe)


def test_the_whole_tree_dies_when_the_owner_lets_go() -> None:
    owner = Owner(STUBBORN)
    family = owner.family()
    os.close(owner.pipe)  # what the kernel does when the owner is killed
    owner.end()
    assert gone(family)


def test_sigterm_reaches_the_command_and_then_its_orphans_die() -> None:
    owner = Owner(FAMILY)
    family = owner.family()
    owner.leash.send_signal(signal.SIGTERM)
    assert owner.end() == 128 + signal.SIGTERM
    assert gone(family)
    os.close(owner.pipe)


def test_a_command_that_ignores_sigterm_is_killed_after_the_grace() -> None:
    owner = Owner(STUBBORN, grace_s=1)
    family = owner.family()
    owner.leash.send_signal(signal.SIGTERM)
    assert owner.end() == 128 + signal.SIGKILL
    assert gone(family)
    os.close(owner.pipe)


def test_the_command_dies_with_a_leash_that_is_killed() -> None:
    owner = Owner(STUBBORN)
    command, orphan = owner.family()
    owner.leash.kill()
    owner.end()
    assert gone([command])
    orphan.kill()  # what `process.kill_leftovers` is for
    os.close(owner.pipe)


def test_an_orphan_of_a_killed_leash_is_found_by_its_mark(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ehrmind_k8s.backends.local import process

    monkeypatch.setenv(process.MARK, str(tmp_path))
    owner = Owner(STUBBORN)
    command, orphan = owner.family()
    owner.leash.kill()
    owner.end()
    assert gone([command])
    monkeypatch.delenv(process.MARK)
    assert process.kill_leftovers(tmp_path / "other", {}) == []
    assert process.kill_leftovers(tmp_path, {}) == [orphan.pid]
    os.close(owner.pipe)


def test_an_orphan_without_environment_is_found_by_its_session_and_only_then() -> None:
    from ehrmind_k8s.backends.local import process

    script = "import subprocess, time\nchild = subprocess.Popen(['/bin/sleep', '600'], env={})\nprint(child.pid, flush=True)\ntime.sleep(600)"
    owner = Owner(script)
    (orphan,) = owner.family()
    started = process.started_at(owner.leash.pid)
    assert started is not None
    owner.leash.kill()
    owner.end()
    assert process.kill_leftovers(Path("/nowhere"), {owner.leash.pid: started + 3600}) == []
    assert process.kill_leftovers(Path("/nowhere"), {owner.leash.pid: started}) == [orphan.pid]
    os.close(owner.pipe)
