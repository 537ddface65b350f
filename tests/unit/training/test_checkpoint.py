"""What counts as a checkpoint, which one is resumed, which ones are kept."""

import threading
from pathlib import Path

import pytest

from ehrmind_k8s import artifacts
from ehrmind_k8s.artifacts import Claim
from ehrmind_k8s.errors import Fenced
from ehrmind_k8s.training import checkpoint
from ehrmind_k8s.training.checkpoint import Checkpoint, Uploader, surplus
from ehrmind_k8s.training.ledger import Begin


def publish(claim: Claim, folder: Path, step: int, score: float | None = None) -> Checkpoint:
    folder.mkdir(exist_ok=True)
    (folder / "trainer_state.json").write_text(f'{{"step": {step}}}', encoding="utf-8")
    (folder / "training_args.bin").write_bytes(b"\x80pickle")
    made = Checkpoint(step, claim.attempt, step * 4, f"v{step}-a{claim.attempt}", score)
    checkpoint.publish(claim, made, folder)
    return made


def test_the_newest_whole_checkpoint_is_resumed_and_no_pickle_travels(claim: Claim, tmp_path: Path) -> None:
    publish(claim, tmp_path / "c", 2)
    newest = publish(claim, tmp_path / "c", 4, score=0.5)
    assert checkpoint.restore(claim.store, tmp_path / "r") == newest
    assert [p.name for p in (tmp_path / "r").iterdir()] == ["trainer_state.json"]


@pytest.mark.parametrize("damage", ["no manifest", "unreadable manifest", "file missing", "file altered"])
def test_a_torn_checkpoint_is_named_and_the_one_before_it_taken(
    claim: Claim, tmp_path: Path, damage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    publish(claim, tmp_path / "c", 2)
    torn = publish(claim, tmp_path / "c", 4).key
    if damage == "no manifest":
        claim.store.delete(f"{torn}/{artifacts.MANIFEST}")
    elif damage == "unreadable manifest":
        claim.store.put_bytes(f"{torn}/{artifacts.MANIFEST}", b"{")
    elif damage == "file missing":
        claim.store.delete(f"{torn}/trainer_state.json")
    else:
        claim.store.put_bytes(f"{torn}/trainer_state.json", b'{"step": 5}')
    found = checkpoint.restore(claim.store, tmp_path / "r")
    assert found is not None and found.step == 2
    assert (tmp_path / "r" / "trainer_state.json").read_text() == '{"step": 2}'
    assert torn in capsys.readouterr().out


def test_a_checkpoint_that_a_fenced_attempt_finished_late_is_not_resumed(claim: Claim, tmp_path: Path) -> None:
    publish(claim, tmp_path / "c", 6)
    second = Claim(claim.store, 2)
    second.take()
    publish(second, tmp_path / "c", 5)
    found = checkpoint.restore(claim.store, tmp_path / "r", begins=[Begin(1, 0), Begin(2, 3)])
    assert found is not None and (found.step, found.attempt) == (5, 2)


def test_a_fenced_attempt_commits_no_checkpoint(claim: Claim, tmp_path: Path) -> None:
    Claim(claim.store, 2).take()
    with pytest.raises(Fenced, match="attempt 2"):
        publish(claim, tmp_path / "c", 2)
    assert artifacts.load(claim.store, artifacts.checkpoint_key(2, 1)) is None


def test_the_newest_three_and_the_best_are_kept() -> None:
    scores = {10: 0.5, 20: 0.9, 30: 0.9, 40: 0.2, 50: None, 60: 0.3, 70: 0.1}
    made = [Checkpoint(step, 1, 0, score=score) for step, score in scores.items()]
    assert [c.step for c in surplus(made, keep=3)] == [10, 20, 40]


def test_what_a_dead_attempt_left_ahead_crowds_out_nothing_of_the_living_one() -> None:
    refused, living = Checkpoint(100, 1, 0), Checkpoint(70, 2, 0)  # attempt 2 could not read step 100 and went on from step 50
    assert surplus([Checkpoint(50, 1, 0), living, refused], keep=1) == [Checkpoint(50, 1, 0), refused]


def test_nothing_is_surplus_before_there_are_more_than_are_kept() -> None:
    assert surplus([Checkpoint(1, 1, 0), Checkpoint(2, 1, 0)], keep=3) == []


def test_an_upload_runs_beside_training_and_its_error_surfaces_at_the_next_step() -> None:
    uploader, go = Uploader(), threading.Event()

    def upload() -> None:
        go.wait(10)
        raise Fenced("attempt 2 has taken over")

    uploader.start(upload)
    uploader.check()  # still running: training goes on
    go.set()
    with pytest.raises(Fenced):
        uploader.wait()
    uploader.wait()  # told once
    uploader.close()
