"""A start model is refused before anything is trained: what is missing, where, and what to do."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from ehrmind_k8s import artifacts, startmodel, storage, toymodel
from ehrmind_k8s.errors import EhrmindError, IntegrityError, ModelError, SpecError
from ehrmind_k8s.records import Example
from ehrmind_k8s.spec import ModelSpec

ROW = Example("a", "t", "train", "g", "c", ({"role": "user", "content": "Age 78, BP 120/80."},), {}, "<think>1</think>")


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("toy") / "model"
    toymodel.write(path, [ROW] * 10, seed=1)
    return path


@pytest.fixture
def folder(toy: Path, tmp_path: Path) -> Path:
    return shutil.copytree(toy, tmp_path / "model")


def edit(path: Path, change: Callable[[dict], object]) -> None:
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))


def test_a_folder_without_tokenizer_is_refused(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()
    with pytest.raises(ModelError, match=r"tokenizer\.json is missing"):
        startmodel.check(folder)


def test_a_tokenizer_file_cut_off_is_refused(folder: Path) -> None:
    path = folder / "tokenizer.json"
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(ModelError, match=r"tokenizer\.json: not a whole tokenizer"):
        startmodel.check(folder)


def test_a_tokenizer_that_loses_text_is_refused(folder: Path) -> None:
    edit(folder / "tokenizer.json", lambda d: d.update(normalizer={"type": "Lowercase"}))
    with pytest.raises(ModelError, match="does not give back the text"):
        startmodel.check(folder)


def test_pickled_weights_are_not_read(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(ModelError, match=r"\*\.safetensors.*save as safetensors"):
        startmodel.check(folder)


def test_torn_weights_are_named(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(ModelError, match=r"model\.safetensors: not a whole safetensors file \(1000 bytes\)"):
        startmodel.check(folder)


def test_a_missing_shard_is_named(folder: Path) -> None:
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": "model-00001-of-00002.safetensors"}}))
    with pytest.raises(ModelError, match=r"weights missing: model-00001-of-00002\.safetensors"):
        startmodel.check(folder)


def test_positions_below_the_context_are_named(folder: Path) -> None:
    with pytest.raises(ModelError, match=r"max_position_embeddings is 8192, below model\.context 9000"):
        startmodel.check(folder, context=9000)


def test_a_tokenizer_of_another_model_is_refused(folder: Path) -> None:
    edit(folder / "config.json", lambda d: d.update(vocab_size=100))
    with pytest.raises(ModelError, match="do not belong together"):
        startmodel.check(folder)


@pytest.mark.parametrize(
    ("model", "error", "message"),
    [
        ({"uri": "no/such/folder"}, ModelError, "no such folder; expected toy, a folder in HF layout"),
        ({"uri": "org/name"}, SpecError, r"set model\.revision to a commit"),
        ({"uri": "org/name", "revision": "abc"}, ModelError, "the hub is switched off here.*ehrmind model put"),
    ],
)
def test_a_model_that_cannot_be_had_says_how_to_bring_it(
    model: dict, error: type[EhrmindError], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(error, match=message):
        startmodel.resolve(ModelSpec(**model), tmp_path / "out", [], seed=0)


def test_code_and_pickles_of_a_local_folder_stay_behind(folder: Path, tmp_path: Path) -> None:
    for name in ("modeling_evil.py", "pytorch_model.bin", "training_args.pt"):
        (folder / name).write_text("x")
    startmodel.resolve(ModelSpec(uri=str(folder)), tmp_path / "out", [], seed=0)
    assert {p.name for p in (tmp_path / "out").iterdir()} == {
        "chat_template.jinja",
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    }


def test_an_error_names_the_place_that_the_user_gave(folder: Path, tmp_path: Path) -> None:
    (folder / "tokenizer.json").unlink()
    with pytest.raises(ModelError, match=str(folder)) as caught:
        startmodel.resolve(ModelSpec(uri=str(folder)), tmp_path / "scratch", [], seed=0)
    assert "scratch" not in str(caught.value)


def test_a_published_model_is_verified_when_it_is_read(folder: Path, tmp_path: Path) -> None:
    store = storage.open(str(tmp_path / "store"))
    artifacts.publish(store, "", folder, "model")
    assert startmodel.resolve(ModelSpec(uri=store.uri), tmp_path / "good", [], seed=0).vocabulary > 0
    (tmp_path / "store" / "model.safetensors").write_bytes(b"altered")
    with pytest.raises(IntegrityError, match=r"model\.safetensors"):
        startmodel.resolve(ModelSpec(uri=store.uri), tmp_path / "bad", [], seed=0)


def test_a_store_without_a_model_says_so(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="nothing there; bring a model folder"):
        startmodel.resolve(ModelSpec(uri=(tmp_path / "empty").as_uri()), tmp_path / "out", [], seed=0)
