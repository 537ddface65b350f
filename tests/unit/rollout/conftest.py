"""A toy start model, and policies made of it, for every test of this folder."""

from pathlib import Path

import pytest

from ehrmind_k8s import toymodel
from ehrmind_k8s.records import Example
from ehrmind_k8s.tokenization import Tokenizer


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("toy")
    rows = [Example(str(i), "t", "train", str(i), "c", ({"role": "user", "content": f"creatinine {i / 10:.1f} mg/dL"},), {}) for i in range(200)]
    toymodel.write(folder, rows, seed=3)
    return folder


@pytest.fixture(scope="session")
def tokenizer(model_folder: Path) -> Tokenizer:
    return Tokenizer(model_folder)
