"""The start model `toy`: a Qwen3-shaped model of about a million random parameters and a byte-level BPE trained on the train split.

It exists so that the whole recipe runs on a laptop with nothing to download; what it scores says nothing about real models.
The architecture is Qwen3 because transformers honours the saved pre-tokenizer for it (for `qwen2` it builds its own and ignores ours),
and the output head is untied because vLLM on CPU keeps a stale packed copy of a tied one. The same texts and seed give the same bytes.
"""

import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers
from safetensors.numpy import save_file
from tokenizers import AddedToken, Regex, decoders, models, pre_tokenizers, trainers

from ehrmind_k8s.records import Example

CONTEXT = 8192
VOCABULARY = 4096
LAYERS, HIDDEN, HEADS, KEY_VALUE_HEADS, HEAD_DIM, MLP = 4, 128, 4, 2, 32, 256
END, START, STOP = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
TAGS = ("<think>", "</think>", "<answer>", "</answer>")
TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
# A digit is a token, so that arithmetic is over digits. Elsewhere merges may cross words up to the next clause or line: the sentences
# that every prompt repeats cost a few tokens each, which is most of the speed on a CPU.
SPLIT = Regex(r"\p{Nd}|[.;,:]?[^\p{Nd}\n.;,:]+|[.;,:]|\n+")


def write(folder: Path, rows: Iterable[Example], seed: int) -> None:
    """Write the model folder (HF layout). The tokenizer is trained on the prompts and targets of `rows`, the train split."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = _train(piece for row in rows for piece in _pieces(row))
    tokenizer.save(str(folder / "tokenizer.json"))
    size = tokenizer.get_vocab_size(with_added_tokens=True)
    pad, eos = (tokenizer.token_to_id(token) for token in (END, STOP))
    assert pad is not None and eos is not None
    _write(folder / "config.json", _config(size, eos, pad))
    _write(folder / "generation_config.json", {"do_sample": True, "eos_token_id": [eos, pad], "pad_token_id": pad})
    _write(folder / "tokenizer_config.json", _tokenizer_config())
    (folder / "chat_template.jinja").write_text(TEMPLATE, encoding="utf-8")
    save_file(_tensors(size, seed), folder / "model.safetensors", metadata={"format": "pt"})


def _pieces(row: Example) -> Iterator[str]:
    """What BPE sees of an example: the text of each turn as the template writes it, without the tags, which are tokens of their own."""
    turns = [(m["role"], m["content"]) for m in row.messages] + [("assistant", row.sft_text or "")]
    for role, content in turns:
        yield from re.split("|".join(TAGS), f"{role}\n{content}")


def _train(texts: Iterable[str]) -> tokenizers.Tokenizer:
    tokenizer = tokenizers.Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(SPLIT, behavior="isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    special = [AddedToken(t, special=True, normalized=False) for t in (END, START, STOP)]
    tags = [AddedToken(t, special=False, normalized=False) for t in TAGS]
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY - len(tags),
        min_frequency=4,
        special_tokens=special,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.add_tokens(tags)
    return tokenizer


def _config(vocabulary: int, eos: int, pad: int) -> dict[str, Any]:
    return {
        "architectures": ["Qwen3ForCausalLM"],
        "model_type": "qwen3",
        "vocab_size": vocabulary,
        "hidden_size": HIDDEN,
        "intermediate_size": MLP,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "num_key_value_heads": KEY_VALUE_HEADS,
        "head_dim": HEAD_DIM,
        "hidden_act": "silu",
        "max_position_embeddings": CONTEXT,
        "rms_norm_eps": 1e-6,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
        "attention_bias": False,
        "attention_dropout": 0.0,
        "tie_word_embeddings": False,
        "initializer_range": 0.02,
        "use_cache": True,
        "bos_token_id": None,
        "eos_token_id": eos,
        "pad_token_id": pad,
        "dtype": "float32",
    }


def _tokenizer_config() -> dict[str, Any]:
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": None,
        "eos_token": STOP,
        "pad_token": END,
        "additional_special_tokens": [START],
        "clean_up_tokenization_spaces": False,
        "model_max_length": CONTEXT,
    }


def _tensors(vocabulary: int, seed: int) -> dict[str, np.ndarray]:
    """Random weights by name, fp32: N(0, 1 / inputs), divided by sqrt(2 LAYERS) where a block adds to the residual stream (GPT-2, section 2.3).

    Embeddings and head are N(0, 0.02²), so that every token starts about equally likely.
    """
    random = np.random.default_rng(seed)

    def normal(outputs: int, inputs: int, scale: float) -> np.ndarray:
        return random.standard_normal((outputs, inputs), dtype=np.float32) * np.float32(scale)

    def linear(outputs: int, inputs: int, depth: float = 1.0) -> np.ndarray:
        return normal(outputs, inputs, (inputs * depth) ** -0.5)

    def ones(size: int) -> np.ndarray:
        return np.ones(size, dtype=np.float32)

    tensors = {
        "model.embed_tokens.weight": normal(vocabulary, HIDDEN, 0.02),
        "lm_head.weight": normal(vocabulary, HIDDEN, 0.02),
        "model.norm.weight": ones(HIDDEN),
    }
    for layer in range(LAYERS):
        at = f"model.layers.{layer}."
        tensors |= {
            f"{at}input_layernorm.weight": ones(HIDDEN),
            f"{at}post_attention_layernorm.weight": ones(HIDDEN),
            f"{at}self_attn.q_norm.weight": ones(HEAD_DIM),
            f"{at}self_attn.k_norm.weight": ones(HEAD_DIM),
            f"{at}self_attn.q_proj.weight": linear(HEADS * HEAD_DIM, HIDDEN),
            f"{at}self_attn.k_proj.weight": linear(KEY_VALUE_HEADS * HEAD_DIM, HIDDEN),
            f"{at}self_attn.v_proj.weight": linear(KEY_VALUE_HEADS * HEAD_DIM, HIDDEN),
            f"{at}self_attn.o_proj.weight": linear(HIDDEN, HEADS * HEAD_DIM, depth=2 * LAYERS),
            f"{at}mlp.gate_proj.weight": linear(MLP, HIDDEN),
            f"{at}mlp.up_proj.weight": linear(MLP, HIDDEN),
            f"{at}mlp.down_proj.weight": linear(HIDDEN, MLP, depth=2 * LAYERS),
        }
    return tensors


def _write(path: Path, document: dict[str, Any]) -> None:
    path.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
