"""The benchmark's tasks as yes-or-no questions, and a user's own."""

import json
from pathlib import Path

import pytest

from ehrmind_k8s.errors import DataError, SpecError
from ehrmind_k8s.tasks.ehrshot import subtasks
from ehrmind_k8s.tasks.ehrshot.subtasks import BENCHMARK
from tests.conftest import ROOT

FACTS = ROOT.parent / "shared" / "data" / "ehrshot_public" / "ehrshot_tasks.json"


@pytest.mark.skipif(not FACTS.exists(), reason="the benchmark's task definitions are not on this machine (shared/data)")
def test_counts_and_findings_are_those_of_the_benchmark() -> None:
    facts = json.loads(FACTS.read_text(encoding="utf-8"))["tasks"]
    assert set(facts) == subtasks.FOLDERS
    assert list(subtasks.FINDINGS) == facts["chexpert"]["findings"]
    for name in subtasks.FOLDERS - {"chexpert"}:
        assert BENCHMARK[name].published == tuple((c["labels"], c["positive_labels"]) for c in facts[name]["counts"].values())


@pytest.mark.parametrize(
    ("raw", "findings"), [(8192, {"no_finding"}), (0, set()), (1, {"support_devices"}), (8192 >> 5 | 1, {"edema", "support_devices"})]
)
def test_a_chest_x_ray_label_is_one_bit_for_each_finding(raw: int, findings: set[str]) -> None:
    assert {n.removeprefix("chexpert_") for n, s in BENCHMARK.items() if s.bit is not None and s.value(raw)} == findings


def test_a_laboratory_grade_is_positive_from_mild_on() -> None:
    assert [BENCHMARK["lab_anemia"].value(grade) for grade in range(4)] == [0, 1, 1, 1]


def test_nothing_wanted_means_the_papers_five_as_far_as_there_are_labels() -> None:
    assert tuple(s.name for s in subtasks.choose((), None, {})) == subtasks.PAPER
    assert [s.name for s in subtasks.choose((), {"guo_los", "new_pancan"}, {})] == ["new_pancan"]
    assert [s.name for s in subtasks.choose((), {"guo_los", "sepsis"}, {})] == ["guo_los", "sepsis"]


def test_chexpert_stands_for_its_14_findings() -> None:
    assert len(subtasks.choose(("chexpert",), None, {})) == 14
    assert [s.name for s in subtasks.choose(("chexpert_edema", "guo_los"), {"chexpert", "guo_los"}, {})] == ["chexpert_edema", "guo_los"]


def test_an_unknown_subtask_is_refused_with_the_nearest_and_one_without_labels_with_what_there_is() -> None:
    with pytest.raises(SpecError, match="did you mean 'guo_readmission'"):
        subtasks.choose(("guo_readmision",), None, {})
    with pytest.raises(DataError, match=r"no label file for new_lupus.*guo_los"):
        subtasks.choose(("new_lupus",), {"guo_los"}, {})


def test_a_users_own_subtask_asks_what_its_description_says(tmp_path: Path) -> None:
    (tmp_path / "subtasks.json").write_text(
        '{"sepsis": {"question": "Will sepsis be diagnosed within 12 hours?", "positive": "sepsis"}}', encoding="utf-8"
    )
    [sepsis] = subtasks.choose(("sepsis",), {"sepsis"}, subtasks.describe(tmp_path / "subtasks.json"))
    assert (sepsis.question, sepsis.positive, sepsis.negative) == ("Will sepsis be diagnosed within 12 hours?", "sepsis", "no sepsis")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[]", "object"),
        ("{", "not JSON"),
        ('{"a": 1}', "non-empty texts"),
        ('{"a": {"question": " "}}', "non-empty texts"),
        ('{"a": {"qustion": "x"}}', "did you mean 'question'"),
        ('{"a": {"positive": "x", "negative": "X "}}', "same name for both"),
    ],
)
def test_a_description_that_is_wrong_is_refused(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "subtasks.json").write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=message):
        subtasks.describe(tmp_path / "subtasks.json")
