"""A toy start model, rows and a store, for every test of this folder."""

from pathlib import Path

import pytest

from ehrmind_k8s import storage, toymodel
from ehrmind_k8s.artifacts import Claim
from ehrmind_k8s.records import Example
from ehrmind_k8s.storage import ObjectStore
from ehrmind_k8s.tokenization import Tokenizer


def example(number: int, category: str = "labs", sft_text: str | None = "<think>x</think>") -> Example:
    """A train row `e<number>`."""
    message = {"role": "user", "content": f"creatinine {number / 10:.1f} mg/dL"}
    return Example(f"e{number}", "t", "train", f"g{number}", category, (message,), {"answer": str(number)}, sft_text)


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("toy")
    toymodel.write(folder, [example(i) for i in range(200)], seed=3)
    return folder


@pytest.fixture(scope="session")
def tokenizer(model_folder: Path) -> Tokenizer:
    return Tokenizer(model_folder)


@pytest.fixture
def store(tmp_path: Path) -> ObjectStore:
    return storage.open(str(tmp_path / "store"))


@pytest.fixture
def claim(store: ObjectStore) -> Claim:
    claim = Claim(store, 1)
    claim.take()
    return claim
