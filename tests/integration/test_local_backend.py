"""The local backend through its command line, with the real prepare stage: deaths, signals, and two people at once."""

import json
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.terminal import PATIENCE_S, Terminal, family, gone, member


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[Terminal]:
    there = Terminal(tmp_path, "--set", "stages=[prepare]")
    yield there
    there.close()


def test_a_run_ends_and_the_same_command_again_prints_its_result(terminal: Terminal) -> None:
    first = terminal.submit()
    assert (first.returncode, first.stdout.strip()) == (
        0,
        f"run demo: complete, without evaluate; its output is at {(terminal.folder / 'runs/demo').as_uri()}",
    )
    again = terminal.submit()
    assert (again.returncode, again.stdout) == (0, first.stdout)
    assert "attempt" not in again.stderr
    assert terminal.status()["state"] == "succeeded"


def test_a_second_submit_of_a_run_that_goes_on_is_refused_with_the_process(terminal: Terminal) -> None:
    first = terminal.start()
    second = terminal.submit()
    assert second.returncode == 75
    assert f"process {first.pid} works on this run" in second.stderr
    assert first.wait(PATIENCE_S) == 0


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_stops_everything_and_the_same_command_continues(terminal: Terminal, signum: int, code: int) -> None:
    process = terminal.start()
    children = family(process)
    process.send_signal(signum)
    assert process.wait(PATIENCE_S) == code
    assert gone(children)
    assert terminal.status()["state"] == "interrupted"
    assert terminal.submit().returncode == 0
    assert terminal.reasons() == ["interrupted", "ok"]


def test_nothing_survives_a_killed_supervisor_and_the_same_command_continues(terminal: Terminal) -> None:
    process = terminal.start()
    children = family(process)
    assert len(children) >= 2  # the leash and the stage
    process.kill()
    process.wait(PATIENCE_S)
    assert gone(children)
    assert terminal.status()["state"] == "interrupted"
    continued = terminal.submit()
    assert continued.returncode == 0
    assert "continuing run demo (interrupted in stage prepare)" in continued.stderr
    assert terminal.reasons() == ["interrupted", "ok"]


def test_cancel_from_another_terminal(terminal: Terminal) -> None:
    process = terminal.start()
    children = family(process)
    cancelled = terminal.type("cancel", "demo")
    assert (cancelled.returncode, cancelled.stdout) == (0, "demo: cancelled\n")
    assert process.wait(PATIENCE_S) == 31
    assert gone(children)
    assert terminal.type("cancel", "demo").returncode == 0
    continued = terminal.submit()
    assert continued.returncode == 0
    assert "continuing run demo (cancelled in stage prepare)" in continued.stderr


def test_a_killed_stage_is_tried_again(terminal: Terminal) -> None:
    process = terminal.start()
    member(process, "ehrmind_k8s.stages").kill()
    assert process.wait(PATIENCE_S) == 0
    assert terminal.reasons() == ["SIGKILL", "ok"]


def test_a_run_without_retries_ends_with_try_again(terminal: Terminal) -> None:
    process = terminal.start("--set", "policy.retries=0")
    member(process, "ehrmind_k8s.stages").kill()
    assert process.wait(PATIENCE_S) == 75
    assert terminal.status()["state"] == "failed"


def test_a_wrong_input_ends_the_run_with_its_code_and_no_second_try(terminal: Terminal) -> None:
    (terminal.folder / "train_data.csv").write_text("one;two\n1;2\n")
    done = terminal.submit("--data", "train_data.csv")
    assert done.returncode == 10
    assert done.stderr.splitlines()[-1].startswith("error: prepare: ")
    assert terminal.reasons() == ["DataError"]


def test_a_running_run_is_not_deleted_and_a_finished_one_is(terminal: Terminal) -> None:
    process = terminal.start()
    assert terminal.type("runs", "delete", "demo", "--yes").returncode == 75
    assert process.wait(PATIENCE_S) == 0
    assert terminal.type("runs", "delete", "demo", "--yes").returncode == 0
    assert not [p for p in (terminal.folder / "runs").rglob("*") if p.is_file()]
    assert not list((terminal.folder / "state").glob("*-demo"))


def test_logs_follow_a_run_to_its_end(terminal: Terminal) -> None:
    process = terminal.start()
    followed = terminal.type("logs", "demo", "--follow", "--json")
    assert process.wait(PATIENCE_S) == 0
    events = [json.loads(line)["event"] for line in followed.stdout.splitlines()]
    assert (events[0], events[-1]) == ("stage.start", "result")


def test_the_store_alone_tells_a_complete_run(terminal: Terminal) -> None:
    terminal.submit()
    terminal.environment["EHRMIND_STATE_DIR"] = str(terminal.folder / "another machine")
    assert terminal.status()["state"] == "succeeded"
    assert terminal.submit().returncode == 0
