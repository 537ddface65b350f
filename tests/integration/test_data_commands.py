"""`data prepare`, `data put` and `model put` as typed, and what a run then reads from the store."""

import json
from pathlib import Path

import pytest

from ehrmind_k8s import artifacts, storage, toymodel
from ehrmind_k8s.examples import read_split
from ehrmind_k8s.records import SPLITS, Example
from ehrmind_k8s.tasks import registry
from ehrmind_k8s.tasks.medcalc import synthetic
from tests.integration.s3_server import ACCESS, SECRET, S3Server
from tests.integration.terminal import Terminal


@pytest.fixture
def terminal(tmp_path: Path) -> Terminal:
    synthetic.write(tmp_path / "source", 1, "unit")
    return Terminal(tmp_path)


def prepare(terminal: Terminal, source: str, out: str, *more: str) -> tuple[int, str]:
    done = terminal.type("data", "prepare", "--task", "medcalc", "--source", source, "--out", out, *more)
    return done.returncode, done.stdout + done.stderr


def test_both_forms_hold_the_same_rows_and_a_manifest_with_their_hashes(terminal: Terminal) -> None:
    for form in ("parquet", "jsonl"):
        assert prepare(terminal, "source", form, "--format", form)[0] == 0
        manifest = artifacts.load(storage.open(str(terminal.folder / form)))
        assert manifest and {f.name for f in manifest.files} == {"drops.jsonl", *(f"{s}.{form}" for s in SPLITS)}
        assert set(manifest.meta["inputs"]) == {"train.csv", "test.csv"}
    for split in SPLITS:
        rows = read_split(terminal.folder / "parquet" / f"{split}.parquet")
        assert rows and rows == read_split(terminal.folder / "jsonl" / f"{split}.jsonl")
    assert not list((terminal.folder / "state").glob("*/status.json"))


def test_a_source_with_a_test_split_alone_can_be_prepared(terminal: Terminal) -> None:
    (terminal.folder / "source" / "train.csv").unlink()
    code, said = prepare(terminal, "source", "out")
    assert code == 0, said
    assert [len(read_split(terminal.folder / "out" / f"{s}.parquet")) for s in SPLITS] == [0, 0, 24]


def test_bad_data_ends_with_its_exit_code_and_writes_nothing(terminal: Terminal) -> None:
    (terminal.folder / "source" / "test.csv").write_bytes(b"\xff\xfe\x00")
    code, said = prepare(terminal, "source", "out")
    assert code == 10 and "test.csv" in said
    assert not (terminal.folder / "out").exists()


def test_what_the_preparation_warns_of_is_printed(terminal: Terminal) -> None:
    registry.get("ehrshot").synthesize(terminal.folder / "records", 1, "unit")
    done = terminal.type("data", "prepare", "--task", "ehrshot", "--source", "records", "--out", "out")
    warnings = json.loads((terminal.folder / "out" / artifacts.MANIFEST).read_text())["meta"]["audit"]["warnings"]
    assert done.returncode == 0 and warnings
    assert [line.removeprefix("warning: ") for line in done.stderr.splitlines() if line.startswith("warning: ")] == warnings


def test_an_out_folder_in_use_is_refused(terminal: Terminal) -> None:
    code, said = prepare(terminal, "source", "source")
    assert (code, "exists and is not an empty folder" in said) == (2, True)


def test_an_artifact_is_put_once_and_never_replaced(terminal: Terminal) -> None:
    put = ("data", "put", "source", "store/data")
    assert terminal.type(*put).returncode == 0
    assert "there already" in terminal.type(*put).stdout
    (terminal.folder / "source" / "train.csv").write_text("other")
    refused = terminal.type(*put)
    assert (refused.returncode, "holds another data artifact" in refused.stderr) == (2, True)


def test_a_put_of_nothing_says_what_is_missing(terminal: Terminal) -> None:
    (terminal.folder / "empty").mkdir()
    for argv, code in (
        (("data", "put", "gone"), 10),
        (("data", "put", "empty"), 10),
        (("model", "put", "gone"), 11),
        (("model", "put", "source"), 11),
    ):
        done = terminal.type(*argv, "store/x")
        assert done.returncode == code and argv[2] in done.stderr
        assert not (terminal.folder / "store" / "x").exists()


@pytest.mark.s3
def test_data_and_model_brought_to_s3_give_the_splits_that_local_files_give(terminal: Terminal, s3_server: S3Server, s3_uri: str) -> None:
    row = Example("a", "t", "train", "g", "c", ({"role": "user", "content": "Age 78."},), {})
    toymodel.write(terminal.folder / "model", [row] * 9, seed=1)
    (terminal.folder / "model" / "training_args.bin").write_text("a pickle")
    endpoint = f"http://127.0.0.1:{s3_server.port}"
    terminal.environment |= {"EHRMIND_S3_ENDPOINT_URL": endpoint, "EHRMIND_S3_ACCESS_KEY_ID": ACCESS, "EHRMIND_S3_SECRET_ACCESS_KEY": SECRET}
    assert terminal.type("data", "put", "source", f"{s3_uri}/data").returncode == 0
    assert terminal.type("model", "put", "model", f"{s3_uri}/model").returncode == 0
    for out, source, model in (("near", "source", "model"), ("far", f"{s3_uri}/data", f"{s3_uri}/model")):
        code, said = prepare(terminal, source, out, "--set", f"model.uri={model}")
        assert code == 0, said
    near, far = (json.loads((terminal.folder / out / "manifest.json").read_text()) for out in ("near", "far"))
    assert near["files"] == far["files"]
    assert [near["meta"][k] for k in ("inputs", "counts", "tokenizer")] == [far["meta"][k] for k in ("inputs", "counts", "tokenizer")]


@pytest.mark.s3
def test_plain_objects_and_one_file_of_a_bucket_are_read_too(
    terminal: Terminal, s3_server: S3Server, s3_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (("ENDPOINT_URL", f"http://127.0.0.1:{s3_server.port}"), ("ACCESS_KEY_ID", ACCESS), ("SECRET_ACCESS_KEY", SECRET)):
        monkeypatch.setenv(f"EHRMIND_S3_{name}", value)
        terminal.environment[f"EHRMIND_S3_{name}"] = value
    store = storage.open(f"{s3_uri}/plain")
    for name in ("train.csv", "test.csv"):
        store.put_file(name, terminal.folder / "source" / name)
    assert prepare(terminal, f"{s3_uri}/plain", "all")[0] == 0
    code, said = prepare(terminal, f"{s3_uri}/plain/test.csv", "one")
    assert code == 0, said
    assert len(read_split(terminal.folder / "one" / "test.parquet")) == 24
    code, said = prepare(terminal, f"{s3_uri}/gone", "none")
    assert code == 10 and "nothing there" in said
