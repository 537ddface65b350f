"""What a full disk is called when a library meets it."""

from pathlib import Path

import pytest

from ehrmind_k8s.errors import DataError, StoreUnavailable
from ehrmind_k8s.storage import disk


def test_no_space_is_told_as_a_full_disk(tmp_path: Path) -> None:
    with pytest.raises(StoreUnavailable, match=r"disk full \(OSError\); free some space"), disk.full(tmp_path):
        Path("/dev/full").write_bytes(b"some bytes")


def test_an_error_without_a_reason_is_told_as_a_full_disk_where_nothing_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disk, "NEARLY_FULL_BYTES", 1 << 62)
    with pytest.raises(StoreUnavailable, match=r"disk full \(RuntimeError\)"), disk.full(tmp_path):
        raise RuntimeError("PytorchStreamWriter failed writing file")


@pytest.mark.parametrize("error", [DataError("a row"), RuntimeError("a bug"), PermissionError("no")])
def test_other_errors_pass_as_they_are_where_there_is_room(tmp_path: Path, error: Exception) -> None:
    with pytest.raises(type(error)) as raised, disk.full(tmp_path):
        raise error
    assert raised.value is error
