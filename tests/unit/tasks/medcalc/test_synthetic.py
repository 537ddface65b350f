"""The twin looks like the real files, its answers are right, and its teacher errs exactly as its README says."""

import ast
import csv
import re
from collections import Counter
from pathlib import Path

import pytest

from ehrmind_k8s.spec import DataSpec
from ehrmind_k8s.tasks.medcalc import MedCalc, synthetic
from ehrmind_k8s.tasks.medcalc.calculators import BY_ID

SIZES = ("unit", "quickstart")


@pytest.fixture(scope="module", params=SIZES)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp(request.param) / request.param
    synthetic.write(path, 3, request.param)
    return path


def rows(folder: Path, split: str) -> list[dict[str, str]]:
    with (folder / f"{split}.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_entities_are_python_literals_and_not_json(folder: Path) -> None:
    for row in rows(folder, "train"):
        assert isinstance(ast.literal_eval(row["Relevant Entities"]), dict)
        assert row["Relevant Entities"].startswith("{'")


def test_no_note_is_in_two_splits_or_twice(folder: Path) -> None:
    notes = [r["Patient Note"] for split in ("train", "test") for r in rows(folder, split)]
    assert len(notes) == len(set(notes))


def test_the_reader_keeps_every_row(folder: Path) -> None:
    found = MedCalc().read(folder, DataSpec(), seed=1)
    assert not found.drops
    assert len(found.examples) == len(rows(folder, "train")) + len(rows(folder, "test"))


def test_another_seed_gives_other_patients(tmp_path: Path) -> None:
    for seed in (1, 2):
        synthetic.write(tmp_path / str(seed), seed, "unit")
    assert (tmp_path / "1" / "train.csv").read_bytes() != (tmp_path / "2" / "train.csv").read_bytes()


def test_the_unit_size_has_every_scoring_class_and_category_in_both_splits(tmp_path: Path) -> None:
    synthetic.write(tmp_path, 0, "unit")
    for split in ("train", "test"):
        found = [BY_ID[int(r["Calculator ID"])] for r in rows(tmp_path, split)]
        assert {c.scoring for c in found} == {"decimal", "integer", "date", "weeks_days"}
        assert {c.category for c in found} == {c.category for c in BY_ID.values()}


def test_the_unit_size_has_the_quirks_of_the_real_files(tmp_path: Path) -> None:
    synthetic.write(tmp_path, 0, "unit")
    train, test = rows(tmp_path, "train"), rows(tmp_path, "test")
    text = (tmp_path / "train.csv").read_text(encoding="utf-8")
    assert all(sign in text for sign in "µ²×’")
    assert any("\n" in r["Patient Note"] for r in train)
    assert {"lab test", "dosage conversion"} <= {r["Category"] for r in train}
    assert {"lab", "dosage"} <= {r["Category"] for r in test}
    outputs = {split: {r["Output Type"] for r in rs if r["Calculator ID"] == "69"} for split, rs in (("train", train), ("test", test))}
    assert outputs == {"train": {"date"}, "test": {"integer"}}
    exact = {(r["Calculator ID"], r["Lower Limit"] == r["Ground Truth Answer"]) for r in train + test if r["Calculator ID"] in ("24", "49")}
    assert exact == {("24", True), ("24", False), ("49", True), ("49", False)}


def test_the_unit_size_is_small(tmp_path: Path) -> None:
    synthetic.write(tmp_path, 0, "unit")
    assert sum(p.stat().st_size for p in tmp_path.iterdir()) < 300_000


def test_the_quickstart_answer_is_the_score_of_its_entities(tmp_path: Path) -> None:
    synthetic.write(tmp_path, 5, "quickstart")
    for row in rows(tmp_path, "test"):
        patient = ast.literal_eval(row["Relevant Entities"])
        age = patient["age"][0]
        points = (age >= 65) + (age >= 75) + (patient["sex"] == "Female") + 2 * patient["Stroke"]
        points += sum(patient[k] for k in ("Congestive Heart Faliure", "Hypertension history", "Vascular disease history", "Diabetes history"))
        assert row["Ground Truth Answer"] == str(points)


def test_the_teacher_errs_on_two_point_items_alone_and_as_often_as_stated(tmp_path: Path) -> None:
    """3,000 rows: two standard errors of a share of 0.6 over about 2,700 items are 0.02."""
    synthetic.write(tmp_path, 5, "quickstart")
    seen: Counter[tuple[int, int]] = Counter()
    for row in rows(tmp_path, "train"):
        patient = ast.literal_eval(row["Relevant Entities"])
        taught = {k: int(v) for k, v in re.findall(r"(\w+) (\d)[,:]", row["Ground Truth Explanation"])}
        seen[2 if patient["age"][0] >= 75 else 1 if patient["age"][0] >= 65 else 0, taught["age"]] += 1
        seen[2 * patient["Stroke"], taught["stroke"]] += 1
        assert taught["sex"] == (patient["sex"] == "Female")
    assert set(seen) == {(0, 0), (1, 1), (2, 1), (2, 2)}
    assert seen[2, 1] / (seen[2, 1] + seen[2, 2]) == pytest.approx(synthetic.TEACHER_ERROR, abs=0.04)
    assert "imperfect teacher" in (tmp_path / "README.md").read_text()
    assert f"probability {synthetic.TEACHER_ERROR}" in (tmp_path / "README.md").read_text()
