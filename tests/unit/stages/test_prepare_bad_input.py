"""Bad input of every kind: one sentence that names it, the exit code of its class, and nothing that looks whole."""

import csv
import io
import json
import shutil
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ehrmind_k8s import toymodel
from ehrmind_k8s.records import Example
from ehrmind_k8s.stages import __main__ as stages_main
from tests.unit.stages.conftest import Run

Prepare = Callable[..., Run]


def refused(run: Run, code: int, *words: str) -> None:
    """It ended with this code, said these words, and left no manifest and no split."""
    assert run.code == code, run.last
    for word in words:
        assert word in run.last["message"]
    assert run.manifest is None
    assert not list(run.folder.glob("*.parquet"))


def change(path: Path, **columns: str) -> None:
    """Set columns (named with underscores) of the first row."""
    rows = list(csv.DictReader(io.StringIO(path.read_text(encoding="utf-8"))))
    rows[0] |= {name.replace("_", " "): value for name, value in columns.items()}
    out = io.StringIO()
    writer = csv.DictWriter(out, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    path.write_text(out.getvalue(), encoding="utf-8")


def test_a_missing_file(prepare: Prepare, tmp_path: Path) -> None:
    refused(prepare(data=tmp_path / "gone.csv"), 10, "gone.csv", "no such file or folder", "MedCalc-Bench as CSV or parquet")


def test_a_folder_without_data(prepare: Prepare, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    refused(prepare(data=tmp_path / "empty"), 10, "empty")


def test_a_folder_where_a_file_is_named(prepare: Prepare, source: Path) -> None:
    (source / "more").mkdir()
    refused(prepare("data.train=more"), 10, "data.train", "more", "train.csv")


def test_a_wrong_delimiter(prepare: Prepare, source: Path) -> None:
    rows = list(csv.reader(io.StringIO((source / "train.csv").read_text(encoding="utf-8"))))
    with (source / "train.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, delimiter=";").writerows(rows)
    refused(prepare(), 10, "train.csv", "separated by something else than commas")


def test_a_missing_column(prepare: Prepare, source: Path) -> None:
    text = (source / "test.csv").read_text(encoding="utf-8")
    (source / "test.csv").write_text(text.replace("Lower Limit", "Low", 1), encoding="utf-8")
    refused(prepare(), 10, "test.csv", "Lower Limit")


def test_bytes_that_are_not_utf8(prepare: Prepare, source: Path) -> None:
    text = (source / "train.csv").read_text(encoding="utf-8")
    (source / "train.csv").write_bytes(text.encode("utf-16"))
    refused(prepare(), 10, "train.csv", "UTF-8")


def test_a_truncated_parquet_file(prepare: Prepare, source: Path) -> None:
    for split in ("train", "test"):
        rows = list(csv.DictReader(io.StringIO((source / f"{split}.csv").read_text(encoding="utf-8"))))
        pq.write_table(pa.Table.from_pylist(rows), source / f"{split}.parquet")
        (source / f"{split}.csv").unlink()
    whole = (source / "train.parquet").read_bytes()
    (source / "train.parquet").write_bytes(whole[: len(whole) // 2])
    refused(prepare(), 10, "train.parquet")


def test_a_truncated_zip(prepare: Prepare, source: Path, tmp_path: Path) -> None:
    path = tmp_path / "medcalc.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for split in ("train", "test"):
            archive.write(source / f"{split}.csv", f"{split}.csv")
    assert prepare(data=path, name="whole").code == 0
    path.write_bytes(path.read_bytes()[:-100])
    refused(prepare(data=path), 10, "medcalc.zip", "zip")


def test_an_unknown_calculator(prepare: Prepare, source: Path) -> None:
    change(source / "train.csv", Calculator_ID="99", Calculator_Name="Made Up Score")
    refused(prepare(), 10, "train.csv", "row 1", "99")


def test_limits_that_are_swapped(prepare: Prepare, source: Path) -> None:
    change(source / "test.csv", Lower_Limit="99999", Upper_Limit="0")
    refused(prepare(), 10, "test.csv", "row 1", "Limit")


def test_an_empty_split(prepare: Prepare, source: Path) -> None:
    (source / "test.csv").write_text((source / "test.csv").read_text(encoding="utf-8").split("\n")[0] + "\n", encoding="utf-8")
    refused(prepare(), 10, "test")


def test_a_source_without_a_test_file(prepare: Prepare, source: Path) -> None:
    (source / "test.csv").unlink()
    refused(prepare(), 10, "split test is empty", "data.test")


def test_a_split_that_filtering_empties(prepare: Prepare, source: Path) -> None:
    shutil.copy(source / "test.csv", source / "train.csv")
    refused(prepare(), 10, "train", "note_in_test")


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    toymodel.write(folder, [Example("a", "t", "train", "g", "c", ({"role": "user", "content": "x"},), {})], seed=1)
    return folder


def test_a_model_folder_without_tokenizer(prepare: Prepare, model: Path) -> None:
    (model / "tokenizer.json").unlink()
    refused(prepare(f"model.uri={model}"), 11, str(model), "tokenizer.json is missing")


def test_a_tokenizer_that_does_not_give_text_back(prepare: Prepare, model: Path) -> None:
    document = json.loads((model / "tokenizer.json").read_text())
    (model / "tokenizer.json").write_text(json.dumps(document | {"normalizer": {"type": "Lowercase"}}))
    refused(prepare(f"model.uri={model}"), 11, str(model), "does not give back the text")


def test_a_prompt_longer_than_the_context(prepare: Prepare, source: Path) -> None:
    change(source / "test.csv", Patient_Note="7 " * 5000)
    refused(prepare(), 10, "1 test rows are over data.max_prompt_tokens 6144", "model.context at least")


def test_no_message_quotes_a_note(prepare: Prepare, source: Path) -> None:
    change(source / "train.csv", Patient_Note="PLANTED-CANARY", Ground_Truth_Answer="PLANTED-CANARY", Lower_Limit="1", Upper_Limit="2")
    assert "PLANTED" not in json.dumps(prepare().last)


def test_a_folder_that_is_no_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("signal.signal", lambda *_: None)
    monkeypatch.setattr(sys, "argv", ["stages", "prepare", "--run", str(tmp_path), "--attempt", "1"])
    assert stages_main.main() == 2
    assert "spec.json" in capsys.readouterr().out
    assert not list(tmp_path.iterdir())


def test_a_file_uri_with_a_space_is_found(prepare: Prepare, source: Path, tmp_path: Path) -> None:
    folder = source.rename(tmp_path / "my data")
    assert prepare(data=folder.as_uri()).code == 0
