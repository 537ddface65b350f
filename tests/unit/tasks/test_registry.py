"""Finding installed tasks."""

import sys
from pathlib import Path

import pytest

from ehrmind_k8s.errors import SpecError
from ehrmind_k8s.tasks import registry


def test_the_installed_tasks_are_found_by_name() -> None:
    assert "medcalc" in registry.names()
    assert registry.get("medcalc").name == "medcalc"


def test_an_unknown_task_names_the_nearest() -> None:
    with pytest.raises(SpecError, match=r"task 'medcal' is unknown; did you mean 'medcalc'\? known: "):
        registry.get("medcal")


def test_a_task_of_another_package_is_found_and_a_broken_one_explains_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    info = tmp_path / "other-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: other\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[ehrmind_k8s.tasks]\nother = other_task:Other\nlost = no_such_module:Task\n")
    (tmp_path / "other_task.py").write_text("class Other:\n    name = 'other'\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(sys.modules, "other_task", None)
    monkeypatch.delitem(sys.modules, "other_task")
    assert registry.get("other").name == "other"
    with pytest.raises(SpecError, match=r"task 'lost' .*no_such_module.* reinstall the package"):
        registry.get("lost")
