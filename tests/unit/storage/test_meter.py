"""How far a long download is."""

import json
from pathlib import Path

import pytest

from ehrmind_k8s import artifacts, storage
from ehrmind_k8s.storage import meter


def test_a_long_download_is_told_of_in_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("EHRMIND_LOG_FORMAT", "json")
    (tmp_path / "made").mkdir()
    for name, size in (("a", 10), ("b", 5)):
        (tmp_path / "made" / name).write_bytes(bytes(size))
    store = storage.open(str(tmp_path / "store"))
    artifacts.publish(store, "model", tmp_path / "made", "policy")
    artifacts.fetch(store, "model", tmp_path / "short")
    assert capsys.readouterr().out == ""
    monkeypatch.setattr(meter, "EVERY_S", 0)
    artifacts.fetch(store, "model", tmp_path / "long")
    events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {e["event"] for e in events} == {"fetch"}
    assert (max(e["done_bytes"] for e in events), events[0]["total_bytes"], events[0]["what"]) == (15, 15, f"{store.uri}/model")
