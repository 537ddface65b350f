"""What a stage tells of itself: /progress, /metrics and the report at its end."""

import json
import os
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from ehrmind_k8s import logs, progress
from ehrmind_k8s.progress import Board


@pytest.fixture
def board(monkeypatch: pytest.MonkeyPatch) -> Board:
    """A board that hears the events of this process."""
    monkeypatch.setattr(logs, "_listeners", [])
    board = Board("rlvr", 2)
    logs.listen(board.hear)
    return board


@pytest.fixture
def url(board: Board) -> Iterator[str]:
    server = progress.serve(board, 0)
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


def test_a_step_is_shown_with_its_figures(board: Board, url: str) -> None:
    logs.progress(12, 30, "step", reward=0.61, accuracy=0.5)
    logs.figures(kl=0.02, entropy=None)
    assert httpx.get(f"{url}/progress").json() == {
        **{"stage": "rlvr", "attempt": 2, "done": 12, "total": 30, "unit": "step"},
        **{"figures": {"reward": 0.61, "accuracy": 0.5, "kl": 0.02}, "waiting": "", "rollouts": {"ready": 0, "wanted": 0}},
    }


def test_only_known_finite_numbers_are_figures(board: Board) -> None:
    logs.progress(1, 2, "step", reward=float("nan"), loss=float("inf"), accuracy=True, kl="a note", patient=7.0, policy="sft")
    assert board.document()["figures"] == {}
    json.dumps(board.document(), allow_nan=False)


def test_a_wait_for_rollouts_is_shown_until_enough_are_ready(board: Board) -> None:
    def seen() -> tuple[str, int, int]:
        return board.waiting, board.ready, board.wanted

    logs.event("rollout.waiting", ready=0, needed=2, servers=0, reasons="no server is known", wait_s=600)
    assert seen() == ("rollouts", 0, 2)
    logs.event("rollout.joined", server="http://a", ready=0, servers=3)
    logs.event("rollout.admitted", server="http://a", policy="sft", ready=1, servers=3)
    assert seen() == ("rollouts", 1, 3)
    logs.event("rollout.admitted", server="http://b", policy="sft", ready=2, servers=3)
    assert seen() == ("", 2, 3)
    logs.event("rollout.waiting", ready=0, needed=1, servers=3, reasons="", wait_s=600)
    logs.progress(1, 2, "step")
    assert board.waiting == ""


def test_a_model_on_its_way_is_progress_until_the_work_begins(board: Board) -> None:
    logs.event("fetch", what="s3://bucket/prepare", done_bytes=3 << 30, total_bytes=7 << 30)
    assert (board.done, board.total, board.unit) == (3072, 7168, "MiB")
    logs.progress(0, 30, "step")
    logs.event("fetch", what="s3://bucket/policy", done_bytes=1 << 20, total_bytes=2 << 20)
    assert (board.done, board.total, board.unit) == (0, 30, "step")


def test_metrics_are_the_same_numbers(board: Board, url: str) -> None:
    logs.progress(12, 30, "step", reward=0.61)
    logs.event("rollout.waiting", ready=1, needed=2, servers=2, reasons="", wait_s=600)
    reply = httpx.get(f"{url}/metrics")
    assert reply.headers["content-type"].startswith("text/plain; version=0.0.4")
    found = dict(line.rsplit(" ", 1) for line in reply.text.splitlines() if not line.startswith("#"))
    labels = '{stage="rlvr",attempt="2"}'
    assert {name.removesuffix(labels).removeprefix("ehrmind_stage_"): float(value) for name, value in found.items()} == {
        **{"done": 12, "total": 30, "reward": 0.61, "waiting_for_rollouts": 1, "rollouts_ready": 1, "rollouts_wanted": 2}
    }


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "HEAD"])
def test_nothing_but_get_is_answered(url: str, method: str) -> None:
    assert httpx.request(method, f"{url}/progress").status_code == 501
    assert httpx.get(f"{url}/../etc/passwd").status_code == 404


def test_requests_are_not_logged(board: Board, url: str, capfd: pytest.CaptureFixture[str]) -> None:
    httpx.get(f"{url}/progress?note=PLANTED")
    httpx.get(f"{url}/PLANTED")
    assert "PLANTED" not in "".join(capfd.readouterr())


def test_a_client_that_says_nothing_stops_no_other(board: Board, url: str) -> None:
    with socket.create_connection(("127.0.0.1", int(url.rsplit(":", 1)[1]))):
        assert httpx.get(f"{url}/progress").status_code == 200


def test_a_taken_port_is_one_event_and_stops_nobody(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(logs, "_listeners", [])
    monkeypatch.setenv("EHRMIND_LOG_FORMAT", "json")
    with socket.socket() as taken:
        taken.bind(("0.0.0.0", 0))
        taken.listen()
        monkeypatch.setenv("EHRMIND_PROGRESS_PORT", str(taken.getsockname()[1]))
        progress.start("sft", 1)
    events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(e["event"], e["reason"]) for e in events] == [("progress.unavailable", "OSError")]


def test_another_rank_serves_and_reports_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    monkeypatch.setenv("EHRMIND_PROGRESS_PORT", str(port))
    monkeypatch.setenv("EHRMIND_TERMINATION_LOG", str(tmp_path / "log"))
    monkeypatch.setenv("RANK", "1")
    progress.start("sft", 1)
    progress.write_report("sft", 1, "ok", 0, seconds=1)
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"http://127.0.0.1:{port}/progress")
    assert not (tmp_path / "log").exists()


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A termination log as a kubelet leaves it: there already, to be written in place."""
    path = tmp_path / "termination-log"
    path.write_text("x" * 9000)
    monkeypatch.setenv("EHRMIND_TERMINATION_LOG", str(path))
    return path


def test_a_report_holds_codes_and_numbers(log: Path) -> None:
    before = log.stat().st_ino
    progress.write_report("evaluate", 3, "ok", 0, score=0.625, seconds=12.34567, headline={"base": 0.25, "rlvr": 0.625, "sft": float("nan")})
    assert json.loads(log.read_text()) == {
        **{"stage": "evaluate", "attempt": 3, "reason": "ok", "exit_code": 0, "score": 0.625, "seconds": 12.346},
        **{"headline": {"base": 0.25, "rlvr": 0.625}},
    }
    assert (log.stat().st_ino, stat.S_ISREG(log.stat().st_mode)) == (before, True)


def test_a_report_is_never_cut(log: Path) -> None:
    progress.write_report("evaluate", 1, "E" * 5000, 1, seconds=1, score=float("inf"), headline={f"policy-{i}": i / 7 for i in range(500)})
    assert log.stat().st_size <= 4096
    report = json.loads(log.read_text())
    assert report["score"] is None and report["headline"]["policy-0"] == 0


def test_a_report_that_cannot_be_written_stops_nobody(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("EHRMIND_TERMINATION_LOG", f"{os.devnull}/no")
    progress.write_report("sft", 1, "ok", 0, seconds=1)
    assert "report.unavailable" in capsys.readouterr().out
