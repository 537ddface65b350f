"""From files to splits: what is kept, what is dropped and why, and that no note is in two splits."""

import zipfile
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ehrmind_k8s.errors import DataError, SpecError
from ehrmind_k8s.spec import DataSpec
from ehrmind_k8s.tasks.base import TaskData
from ehrmind_k8s.tasks.medcalc import MedCalc, data
from tests.unit.tasks.medcalc import rows

TASK = MedCalc()


def read(source: Path, seed: int = 1, **spec: Any) -> TaskData:
    return TASK.read(source, DataSpec(**spec), seed)


def folder(tmp_path: Path, train: list[dict[str, str]], test: list[dict[str, str]]) -> Path:
    rows.write(tmp_path / "train_data.csv", train)
    rows.write(tmp_path / "test_data.csv", test)
    return tmp_path


def ids(found: TaskData, split: str) -> set[str]:
    return {e.id for e in found.examples if e.split == split}


OTHER = rows.make(Patient_Note="Another patient altogether.")


def test_an_example_has_all_that_later_stages_need(tmp_path: Path) -> None:
    (example,) = read(rows.write(tmp_path / "test.csv", [rows.make()])).examples
    assert (example.id, example.task, example.split, example.category) == ("medcalc-test-00007", "medcalc", "test", "physical")
    assert rows.ROW["Patient Note"] in example.messages[0]["content"]
    assert example.sft_text == '<think>\n80 kg / (2 m)^2 = 20.0 kg/m^2\n</think>\n<answer>{"answer": "20.0"}</answer>'
    assert TASK.score(example, example.sft_text).correct
    assert TASK.breakdown(example) == {"calculator": "Body Mass Index (BMI)", "category": "physical"}


def test_a_row_number_that_occurs_twice_gets_two_ids(tmp_path: Path) -> None:
    found = read(rows.write(tmp_path / "test.csv", [rows.make(), OTHER]))
    assert ids(found, "test") == {"medcalc-test-00007", "medcalc-test-00007-2"}


def test_train_rows_with_a_test_note_are_dropped_and_counted(tmp_path: Path) -> None:
    same = rows.make(Row_Number="1", Patient_Note=rows.ROW["Patient Note"].upper().replace(",", " "))
    found = read(folder(tmp_path, [same, *rows.numbered(20)], [rows.make()]))
    assert [(d.id, d.split, d.reason) for d in found.drops] == [("medcalc-train-00001", "train", "note_in_test")]


def test_note_overlap_keep_keeps_the_published_split_but_not_in_validation(tmp_path: Path) -> None:
    found = read(folder(tmp_path, [rows.make(), *rows.numbered(9)], [rows.make()]), note_overlap="keep", validation_fraction=0.5)
    assert not found.drops
    assert "medcalc-train-00007" in ids(found, "train")


def test_validation_is_a_share_of_train_notes_in_each_category(tmp_path: Path) -> None:
    lab = [r | {"Row Number": str(100 + i), "Calculator ID": "39", "Patient Note": f"Lab {i}."} for i, r in enumerate(rows.numbered(20))]
    found = read(folder(tmp_path, [*rows.numbered(40), *lab], [OTHER]), validation_fraction=0.1)
    assert Counter(e.category for e in found.examples if e.split == "validation") == {"physical": 4, "lab": 2}


def test_a_category_of_few_notes_still_gives_one_to_validation(tmp_path: Path) -> None:
    found = read(folder(tmp_path, rows.numbered(3), [OTHER]), validation_fraction=0.1)
    assert len(ids(found, "validation")) == 1


def test_validation_can_be_switched_off(tmp_path: Path) -> None:
    assert not ids(read(folder(tmp_path, rows.numbered(30), [OTHER]), validation_fraction=0), "validation")


def test_the_seed_decides_what_validation_is(tmp_path: Path) -> None:
    source = folder(tmp_path, rows.numbered(60), [OTHER])
    assert read(source, seed=1).examples == read(source, seed=1).examples
    assert ids(read(source, seed=1), "validation") != ids(read(source, seed=2), "validation")


def test_a_validation_file_is_used_and_loses_the_test_rows_in_it(tmp_path: Path) -> None:
    source = folder(tmp_path, rows.numbered(5), [rows.make()])
    rows.write(source / "val.csv", [rows.make(Row_Number="50"), rows.make(Row_Number="51", Patient_Note="Patient 3 of this file."), OTHER])
    found = read(source)
    reasons = {(d.id, d.reason) for d in found.drops}
    assert reasons == {("medcalc-validation-00050", "note_in_test"), ("medcalc-train-00003", "note_in_validation")}
    assert len(ids(found, "validation")) == 2


@given(st.lists(st.tuples(st.sampled_from(["train", "test", "validation"]), st.integers(0, 6)), min_size=3, max_size=40), st.integers(0, 9))
def test_no_note_is_ever_in_two_splits(tmp_path_factory: Any, placed: list[tuple[str, int]], seed: int) -> None:
    source = tmp_path_factory.mktemp("data")
    for split in ("train", "test", "validation"):
        rows.write(
            source / f"{split}.csv", [rows.make(Row_Number=str(i), Patient_Note=f"n{note}") for i, (s, note) in enumerate(placed) if s == split]
        )
    try:
        found = read(source, seed)
    except DataError as error:
        assert "is left after filtering" in str(error)
        return
    splits: dict[str, set[str]] = {}
    for e in found.examples:
        splits.setdefault(e.group, set()).add(e.split)
    assert all(len(s) == 1 for s in splits.values())
    assert len(found.examples) + len(found.drops) == len(placed)


def test_two_files_for_one_split_stop_with_both_names(tmp_path: Path) -> None:
    source = folder(tmp_path, rows.numbered(3), [OTHER])
    rows.write(source / "test_data.first_upload.csv", [OTHER])
    with pytest.raises(DataError, match=r"test_data.csv and test_data.first_upload.csv; set data.test"):
        read(source)
    assert "test_data.csv" in read(source, test="test_data.csv").inputs


def test_a_file_whose_name_says_nothing_can_be_named(tmp_path: Path) -> None:
    rows.write(tmp_path / "one_shot_data.csv", [OTHER])
    with pytest.raises(DataError, match=r"one_shot_data.csv\); name one train"):
        read(tmp_path)
    assert len(ids(read(tmp_path, test="one_shot_data.csv"), "test")) == 1


def test_a_zip_reads_like_its_folder(tmp_path: Path) -> None:
    source = folder(tmp_path / "plain", rows.numbered(12), [OTHER])
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
        for path in source.iterdir():
            archive.write(path, f"medcalc/{path.name}")
    zipped, plain = read(tmp_path / "all.zip"), read(source)
    assert [(e.id, e.split, e.target) for e in zipped.examples] == [(e.id, e.split, e.target) for e in plain.examples]
    assert list(zipped.inputs) == ["all.zip"]


def test_an_answer_outside_its_own_limits_is_dropped_with_its_reason(tmp_path: Path) -> None:
    found = read(rows.write(tmp_path / "test.csv", [OTHER, rows.make(Ground_Truth_Answer="30.0")]))
    assert [(d.id, d.reason) for d in found.drops] == [("medcalc-test-00007-2", "answer_outside_limits")]


def test_a_split_that_filtering_empties_is_refused_with_the_reason(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"train split is left after filtering \(1 note_in_test\)"):
        read(folder(tmp_path, [rows.make()], [rows.make()]))


def test_a_file_with_a_header_alone_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="test split is left"):
        read(rows.write(tmp_path / "test.csv", []))


def test_an_unknown_label_set_names_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="did you mean 'recomputed'"):
        read(tmp_path, labels="recompute")


def test_corrected_labels_need_the_relabelled_file_beside_the_test_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no relabelled file"):
        read(folder(tmp_path, rows.numbered(3), [OTHER]), labels="corrected-887")


def test_corrected_labels_leave_out_what_was_not_relabelled(tmp_path: Path) -> None:
    source = folder(tmp_path, rows.numbered(3), [rows.make(), OTHER | {"Row Number": "8"}])
    new = rows.make(Ground_Truth_Answer="22", Lower_Limit="21", Upper_Limit="23") | {"Unique ID": "7"}
    rows.write(source / "corrected.csv", [new], data.layouts.RELABELLED)
    found = read(source, labels="corrected-887")
    (example,) = [e for e in found.examples if e.split == "test"]
    assert (example.target["answer"], example.meta["labels"], example.sft_text) == ("22", "corrected-887", None)
    assert [(d.id, d.reason) for d in found.drops] == [("medcalc-test-00008", "not_relabelled")]
    assert "N/A" in example.messages[0]["content"] and "corrected.csv" in found.inputs


TRACE = '<think>one, two: {}</think>\n<answer>{{"answer": "{}"}}</answer>'


@pytest.mark.parametrize(("said", "why"), [("20.0", "trace_correct"), ("35.0", "trace_wrong")])
def test_an_explanation_that_is_a_whole_completion_is_learned_as_it_stands(tmp_path: Path, said: str, why: str) -> None:
    trace = TRACE.format(said, said)
    (example,) = read(rows.write(tmp_path / "test.csv", [rows.make(Ground_Truth_Explanation=trace)])).examples
    assert (example.sft_text, example.meta["sft_text"]) == (trace, why)


@pytest.mark.parametrize("tag", ["<think>", "</think>", "<answer>", "</answer>"])
def test_an_explanation_with_a_stray_tag_is_not_learned(tmp_path: Path, tag: str) -> None:
    (example,) = read(rows.write(tmp_path / "test.csv", [rows.make(Ground_Truth_Explanation=f"so {tag} 20")])).examples
    assert (example.sft_text, example.meta["sft_text"]) == (None, "tags_in_explanation")


def test_the_audit_counts_by_split(tmp_path: Path) -> None:
    found = read(folder(tmp_path, rows.numbered(10, Ground_Truth_Explanation=""), [OTHER, rows.make(Ground_Truth_Answer="20.9")]))
    assert found.audit["sft_text"]["train"] == {"no_explanation": 9}
    assert found.audit["recomputed"]["test"] == {"agrees": 2}


@pytest.mark.parametrize("other", ["WEIGHT 80 KG", " weight\n80\tkg ", "“Weight” 80 kg.", "weight, 80: kg"])
def test_a_note_is_the_same_note_whatever_its_case_space_and_punctuation(other: str) -> None:
    assert data.note_hash(other) == data.note_hash("weight 80 kg")
    assert data.note_hash("weight 8.0 kg") != data.note_hash("weight 80 kg")
