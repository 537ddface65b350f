"""A toy start model, and policies made of it, for every test of this folder."""

from pathlib import Path

import pytest

from ehrmind_k8s import toymodel
from ehrmind_k8s.tokenization import Tokenizer


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("toy")
    toymodel.write(folder, [f"creatinine {i / 10:.1f} mg/dL at day {i}" for i in range(200)], seed=3)
    return folder


@pytest.fixture(scope="session")
def tokenizer(model_folder: Path) -> Tokenizer:
    return Tokenizer(model_folder)
