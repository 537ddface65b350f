"""The toy model is a real model folder: our tokenizer, transformers and vLLM must read the same tokens from it."""

from pathlib import Path

import pytest

from ehrmind_k8s import startmodel, toymodel
from ehrmind_k8s.records import Example
from ehrmind_k8s.tokenization import PROBE, Tokenizer
from tests.conftest import needs_module

ROW = Example(
    "a",
    "t",
    "train",
    "g",
    "c",
    ({"role": "user", "content": "A 78-year-old woman, K⁺ 4.5 mEq/L.\nReason step by step."},),
    {},
    '<think>age 2, sex 1: 3</think>\n<answer>{"answer": "3"}</answer>',
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("toy") / "model"
    toymodel.write(path, [ROW] * 50, seed=1)
    return path


def test_the_same_rows_and_seed_give_the_same_bytes_and_another_seed_other_weights(folder: Path, tmp_path: Path) -> None:
    for name, seed in (("same", 1), ("other", 2)):
        toymodel.write(tmp_path / name, [ROW] * 50, seed)
    differ = {p.name for p in folder.iterdir() if p.read_bytes() != (tmp_path / "same" / p.name).read_bytes()}
    assert not differ
    assert (folder / "model.safetensors").read_bytes() != (tmp_path / "other" / "model.safetensors").read_bytes()


def test_every_digit_is_a_token(folder: Path) -> None:
    tokenizer = Tokenizer(folder)
    assert len(tokenizer.encode("1234567890")) == 10
    assert [tokenizer.decode([i]) for i in tokenizer.encode("78")] == ["7", "8"]


def test_tags_are_tokens_of_their_own_and_survive_decoding(folder: Path) -> None:
    tokenizer = Tokenizer(folder)
    for tag in toymodel.TAGS:
        assert len(tokenizer.encode(tag)) == 1
        assert tokenizer.decode(tokenizer.encode(f"{tag}x")) == f"{tag}x"


def test_a_sentence_of_every_prompt_costs_one_token(folder: Path) -> None:
    assert len(Tokenizer(folder).encode("Reason step by step")) == 1


def test_the_stop_token_ends_a_completion_and_is_not_text(folder: Path) -> None:
    tokenizer = Tokenizer(folder)
    ids = tokenizer.completion(ROW.sft_text or "")
    assert ids[-1] in tokenizer.stop_ids
    assert tokenizer.text(ids) == ROW.sft_text


def test_it_passes_the_check_of_every_start_model(folder: Path) -> None:
    found = startmodel.check(folder, context=8192)
    assert (found.architecture, found.context) == ("Qwen3ForCausalLM", 8192)
    assert 500_000 < found.parameters < 1_500_000


@pytest.mark.filterwarnings("ignore")
def test_transformers_reads_the_same_tokens_template_and_weights(folder: Path) -> None:
    needs_module("transformers", "pip install 'ehrmind_k8s[train]'")
    from transformers import AutoModelForCausalLM, AutoTokenizer

    theirs, ours = AutoTokenizer.from_pretrained(folder), Tokenizer(folder)
    assert theirs.encode(PROBE, add_special_tokens=False) == ours.encode(PROBE)
    assert theirs.apply_chat_template(ROW.messages, add_generation_prompt=True, tokenize=False) == ours.render(ROW.messages)
    assert (theirs.eos_token_id, theirs.pad_token_id) == (ours.eos_id, ours.pad_id)
    model, loading = AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True)
    assert not any(loading.values())
    assert sum(p.numel() for p in model.parameters()) == startmodel.check(folder).parameters
