"""prepare publishes whole, checked, reproducible splits, and drops nothing without saying so."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import cast

import numpy as np
import pytest

from ehrmind_k8s import artifacts, storage
from ehrmind_k8s.errors import DataError
from ehrmind_k8s.examples import read_split
from ehrmind_k8s.records import SPLITS, Example
from ehrmind_k8s.spec import load
from ehrmind_k8s.stages import prepare as stage
from ehrmind_k8s.statistics import overlap
from ehrmind_k8s.tasks import registry
from ehrmind_k8s.tasks.ehrshot import synthetic as records
from ehrmind_k8s.tokenization import Tokenizer
from ehrmind_k8s.training import traces
from tests.unit.stages.conftest import Run

Prepare = Callable[..., Run]


def splits(run: Run) -> dict[str, list[Example]]:
    return {s: read_split(run.folder / f"{s}.parquet") for s in SPLITS}


def test_the_same_inputs_give_the_same_bytes(prepare: Prepare) -> None:
    one, two = prepare(name="one"), prepare(name="two")
    assert one.manifest and two.manifest
    assert one.manifest.files == two.manifest.files


def test_token_counts_are_those_of_the_published_tokenizer(prepare: Prepare) -> None:
    run = prepare()
    tokenizer = Tokenizer(run.folder / artifacts.MODEL)
    assert run.meta["tokenizer"] == tokenizer.fingerprint
    for example in splits(run)["test"]:
        assert example.n_tokens == len(tokenizer.prompt(example).token_ids) > 0


def test_counts_are_those_of_the_files(prepare: Prepare) -> None:
    run = prepare()
    for split, rows in splits(run).items():
        counts = run.meta["counts"][split]
        assert counts["rows"] == len(rows) == sum(counts["category"].values()) == sum(counts["calculator"].values())


def test_every_dropped_row_is_listed_with_its_reason(prepare: Prepare, source: Path) -> None:
    train, test = source / "train.csv", source / "test.csv"
    train.write_bytes(train.read_bytes() + test.read_bytes().split(b"\n", 1)[1])
    run = prepare()
    lines = [json.loads(line) for line in (run.folder / "drops.jsonl").read_text().splitlines()]
    assert run.meta["drops"]["train"] == {"note_in_test": 24}
    assert [(d["split"], d["reason"]) for d in lines] == [("train", "note_in_test")] * 24


def test_train_rows_over_the_budget_are_dropped_and_test_rows_stop(prepare: Prepare) -> None:
    longest = prepare(name="free").meta["checks"]["prompt_tokens"]["test"]["max"]
    stopped = prepare(f"data.max_prompt_tokens={longest - 1}", name="stopped")
    assert stopped.code == 10
    assert f"Set data.max_prompt_tokens={longest} (model.context at least {longest + 512})" in stopped.last["message"]
    assert prepare(f"data.max_prompt_tokens={longest}", name="fits").code == 0


def test_long_test_drop_leaves_them_out_and_counts_them(prepare: Prepare) -> None:
    free = prepare(name="free")
    budget = free.meta["checks"]["prompt_tokens"]["test"]["median"]
    run = prepare(f"data.max_prompt_tokens={budget}", "data.long_test=drop", name="dropped")
    over = sum(e.n_tokens > budget for e in splits(free)["test"])
    assert run.meta["drops"]["test"] == {"prompt_too_long": over}
    assert run.meta["counts"]["test"]["rows"] == free.meta["counts"]["test"]["rows"] - over
    assert max(e.n_tokens for rows in splits(run).values() for e in rows) == budget


def test_an_sft_text_over_the_completion_budget_goes_and_its_row_stays(prepare: Prepare) -> None:
    run = prepare("rlvr.max_completion_tokens=40")
    checks, rows = run.meta["checks"]["sft_text"]["train"], splits(run)["train"]
    tokenizer = Tokenizer(run.folder / artifacts.MODEL)
    assert 0 < checks["too_long"] == sum(e.sft_text is None for e in rows) < len(rows)
    assert all(len(tokenizer.completion(e.sft_text)) <= 40 for e in rows if e.sft_text)


def test_no_sft_text_within_the_budget_stops_before_training_does(prepare: Prepare) -> None:
    run = prepare("rlvr.max_completion_tokens=8")
    assert run.code == 10
    assert "no train row has an SFT text of at most 8 tokens" in run.last["message"]
    assert prepare("rlvr.max_completion_tokens=8", "sft.mode=never", name="never").code == 0


def written(prepare: Prepare, path: Path, texts: dict[str, str], *overrides: str) -> Run:
    """Prepare with a file of traces."""
    traces.write(path, texts)
    return prepare("sft.traces=file", f"sft.traces_file={path}", *overrides, name="written")


def test_a_file_of_traces_takes_the_place_of_the_sources_own_where_the_scorer_accepts_it(prepare: Prepare, tmp_path: Path) -> None:
    train = splits(prepare(name="free"))["train"]
    task, right, wrong = registry.get("medcalc"), train[0], train[1]
    texts = {
        right.id: task.gold(right),
        wrong.id: '<think>x</think><answer>{"answer": "-77"}</answer>',
        train[2].id: "no answer block",
        "strange": "x",
    }
    run = written(prepare, tmp_path / "traces.jsonl", texts)
    assert run.code == 0, run.last
    assert {e.id: e.sft_text for e in splits(run)["train"] if e.sft_text} == {right.id: texts[right.id]}
    assert run.meta["checks"]["sft_text"]["train"] == {"correct": 1, "wrong": 1, "malformed": 1, "too_long": 0, "absent": len(train) - 3}
    assert run.meta["traces"]["sha256"] == artifacts.sha256(tmp_path / "traces.jsonl")


@pytest.mark.parametrize(
    ("texts", "said"),
    [({"strange": "x"}, "none of its 1 ids is a train row's"), ({}, "none of its 0 ids is a train row's")],
)
def test_a_file_of_traces_for_other_rows_is_refused(texts: dict[str, str], said: str, prepare: Prepare, tmp_path: Path) -> None:
    run = written(prepare, tmp_path / "traces.jsonl", texts)
    assert (run.code, said in run.last["message"]) == (10, True)


def test_a_file_of_traces_that_is_not_there_is_named(prepare: Prepare) -> None:
    run = prepare("sft.traces=file", "sft.traces_file=/no/such/traces.jsonl")
    assert (run.code, "sft.traces_file /no/such/traces.jsonl: no such file" in run.last["message"]) == (10, True)


def test_traces_that_somebody_has_yet_to_write_do_not_stop_preparation(prepare: Prepare) -> None:
    assert prepare("rlvr.max_completion_tokens=8", "sft.traces=own", name="own").code == 0
    assert prepare("rlvr.max_completion_tokens=8", "sft.mode=auto", name="auto").code == 0, "perhaps no category will need any"


def test_without_data_tiny_makes_the_twin_and_says_that_its_teacher_errs(prepare: Prepare) -> None:
    run = prepare(data=None)
    assert run.meta["source"]["kind"] == "synthetic"
    assert "imperfect teacher" in run.meta["source"]["about"]
    texts = run.meta["checks"]["sft_text"]["train"]
    assert texts["wrong"] > 1000 and texts["correct"] > 1000 and not texts["too_long"] + texts["malformed"]
    assert max(run.meta["checks"]["prompt_tokens"][s]["max"] for s in SPLITS) < 200


def test_without_data_another_preset_names_the_layouts(prepare: Prepare) -> None:
    run = prepare(data=None, preset="small")
    assert (run.code, run.last["reason"]) == (2, "SpecError")
    assert "data.uri is missing" in run.last["message"] and "MedCalc-Bench as CSV or parquet" in run.last["message"]


def census(groups: dict[str, set[str]], **data: str) -> stage.Census:
    spec = load({"task": "medcalc", "preset": "tiny", "data": data})
    found = stage.Census(spec, registry.get("medcalc"), cast(Tokenizer, None))
    for split, names in groups.items():
        found.splits[split].sketches |= dict.fromkeys(names, overlap.sketch(""))
    return found


@pytest.mark.parametrize("pair", [("train", "validation"), ("train", "test"), ("validation", "test")])
def test_a_group_in_two_splits_stops(pair: tuple[str, str]) -> None:
    groups = {s: {"shared" if s in pair else s} for s in SPLITS}
    with pytest.raises(DataError, match=f"groups occur in two splits .*{pair[0]}_{pair[1]}"):
        census(groups)._check_groups()


def test_note_overlap_keep_allows_train_and_test_to_share_and_nothing_else() -> None:
    groups = {s: {"v" if s == "validation" else "shared"} for s in SPLITS}
    assert census(groups, note_overlap="keep")._check_groups()["train_test"] == 1


def test_a_complete_stage_run_again_changes_nothing(prepare: Prepare) -> None:
    first = prepare()
    before = {p: p.stat().st_mtime_ns for p in first.folder.rglob("*")}
    again = prepare()
    assert again.last["message"] == first.last["message"]
    assert {p: p.stat().st_mtime_ns for p in first.folder.rglob("*")} == before


@pytest.mark.parametrize(("layout", "whose"), [("ehrshot", "EHRSHOT Data Set License"), ("omop", "a data owner")])
def test_the_manifest_holds_the_terms_of_the_very_source(layout: str, whose: str, prepare: Prepare, tmp_path: Path) -> None:
    records.write(tmp_path / layout, 1, "unit", layout)
    run = prepare("sft.mode=never", "data.subtasks=[lab_anemia]", data=tmp_path / layout, task="ehrshot")
    assert whose in run.meta["terms"] and run.meta["counts"]["test"]["rows"]
    assert prepare(data=None, name="twin").meta["terms"] == "", "nobody's terms hold for invented data"


def test_records_that_are_nearly_the_same_in_two_splits_are_warned_of() -> None:
    note = " ".join(f"finding{i}" for i in range(200))
    found = census({})
    found.splits["train"].sketches = {"a": overlap.sketch(note), "b": overlap.sketch("another note of a few words only")}
    found.splits["test"].sketches = {"a": overlap.sketch(note), "c": overlap.sketch(note + " end"), "d": overlap.sketch("nothing like them at all")}
    assert list(found.overlaps(None)) == ["1 of 3 records of test are nearly the same as one of train"], (
        "the same group in both is data.note_overlap's"
    )
    learned = ("s3://b/earlier/prepare", overlap.rows({"x": overlap.sketch(note)}))
    assert list(found.overlaps(learned))[-1] == (
        "2 of 3 records of test are nearly the same as ones that the start model learned from (s3://b/earlier/prepare)"
    )


def test_what_a_model_learned_from_is_found_by_way_of_its_manifest(tmp_path: Path) -> None:
    note = " ".join(f"finding{i}" for i in range(200))
    sketches = {"a": overlap.sketch(note), "b": overlap.sketch("short")}
    prepared, model = tmp_path / "run" / "prepare", tmp_path / "folder"
    prepared.mkdir(parents=True)
    model.mkdir()
    (model / "config.json").write_text("{}")
    np.save(prepared / artifacts.RECORDS, overlap.rows(sketches))
    artifacts.publish(storage.open(str(tmp_path / "run" / "model")), "", model, "model", {"prepared": str(prepared)})
    found = stage._learned(str(tmp_path / "run" / "model"))
    assert found and found[0] == str(prepared)
    named = overlap.named(found[1])
    assert [set(h.tolist()) for h in named.values()] == [set(h.tolist()) for h in sketches.values()]
    assert overlap.near(named, {"test": overlap.sketch(f"{note} end")}) == [("0", "test")]
    assert overlap.rows({"c": sketches["a"]}, found[1]).shape == (3, overlap.K)


@pytest.mark.parametrize("uri", ["toy", "Qwen/Qwen3-4B", "/no/such/folder"])
def test_a_model_that_no_run_made_has_learned_from_nothing_we_know(uri: str) -> None:
    assert stage._learned(uri) is None
