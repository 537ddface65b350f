"""SFT warm-up over TRL: next-token loss on traces (`traces`), with a learned stop token.

Rows arrive tokenised (`tokenization`): TRL applies no template, cuts nothing and packs nothing. AdamW without weight decay and a linear
decay to zero without warm-up, as in the paper (appendix on training; its library defaults).
"""

import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from datasets import Dataset
from transformers import PreTrainedTokenizerFast, TrainerCallback

from ehrmind_k8s import logs
from ehrmind_k8s.errors import DataError, SpecError
from ehrmind_k8s.evaluation.generate import stratify
from ehrmind_k8s.records import Example
from ehrmind_k8s.spec import RunSpec, SftSpec
from ehrmind_k8s.tokenization import Tokenizer
from ehrmind_k8s.training import loading, order, ranks, traces
from ehrmind_k8s.training.loop import Curve
from ehrmind_k8s.training.trainers import SFTConfig, SFTTrainer

IGNORED = -100  # label of a token that is not learned (PyTorch's ignore_index)


def choose(spec: SftSpec, train: Sequence[Example], seed: int, categories: Sequence[str] = ()) -> list[Example]:
    """The rows to learn from: `percent` of the train rows of `categories` (none: of all), stratified, of those that have a text.

    Raises DataError where none is left, or for a category that no row has, naming those there are.
    """
    rows = traces.wanted(train, categories)
    taught = [e for e in rows if e.sft_text is not None]
    if not taught:
        found = ", ".join(categories) or "all"
        raise DataError(
            f"sft: none of {len(rows)} train rows has a text to learn from (categories: {found}; sft.traces: {spec.traces});"
            " name another author in sft.traces (file, teacher), or set sft.mode=never for RLVR alone"
        )
    return stratify(taught, traces.share(spec, len(rows)), seed)


def steps(spec: SftSpec, rows: int) -> int:
    """Optimizer steps: the last batch is filled up with rows of the next epoch."""
    return math.ceil(rows * spec.epochs / spec.batch_size)


def tokenised(spec: SftSpec, rows: Sequence[Example], tokenizer: Tokenizer) -> Dataset:
    """One record per row: `input_ids` (prompt, completion, stop token) and `labels`, which leave the prompt out unless loss_on is text."""
    ids, labels = [], []
    for example in rows:
        assert example.sft_text is not None
        prompt, completion = list(tokenizer.prompt(example).token_ids), tokenizer.completion(example.sft_text)
        ids.append(prompt + completion)
        labels.append(ids[-1] if spec.loss_on == "text" else [IGNORED] * len(prompt) + completion)
    return Dataset.from_dict({"input_ids": ids, "labels": labels})


def build(spec: RunSpec, model: Any, tokenizer: PreTrainedTokenizerFast, data: Dataset, curve: Curve, folder: Path) -> SFTTrainer:
    """The trainer. `data` holds each row once; the order of the whole run is laid out here, so to Trainer it is one sequential epoch."""
    total = steps(spec.sft, len(data))
    size, micro = spec.sft.batch_size, spec.sft.micro_batch_size
    if size % (micro * ranks.size()):
        raise SpecError(f"sft.batch_size {size} must be a multiple of sft.micro_batch_size {micro} x {ranks.size()} ranks")
    config = SFTConfig(
        **loading.arguments(spec, folder),
        per_device_train_batch_size=micro,
        gradient_accumulation_steps=size // (micro * ranks.size()),
        max_steps=total,
        learning_rate=spec.sft.learning_rate,
        lr_scheduler_type="linear",
        train_sampling_strategy="sequential",
        max_length=None,
        packing=False,
        dataset_kwargs={"skip_prepare_dataset": True},
    )
    whole = data.select(batches([len(ids) for ids in data["input_ids"]], spec.seed, size, total))
    return SFTTrainer(model=model, args=config, train_dataset=whole, processing_class=tokenizer, callbacks=[_Steps(curve, len(data) / size)])


def batches(lengths: Sequence[int], seed: int, size: int, count: int) -> list[int]:
    """Row indices of `count` batches of `size`, one after the other. Inside a batch the longest rows (`lengths` in tokens) come first.

    The order inside a batch does not change its gradient, but passes of similar length pad little, and what does not fit fails at once.
    """
    indices = [index for _, index in order.positions(seed, len(lengths), count * size)]
    cut = [indices[start : start + size] for start in range(0, len(indices), size)]
    return [index for batch in cut for index in sorted(batch, key=lambda i: -lengths[i])]


class _Steps(TrainerCallback):
    """Writes the learning curve. `steps_per_epoch` turns a step into passes over the rows."""

    def __init__(self, curve: Curve, steps_per_epoch: float) -> None:
        self.curve, self.steps_per_epoch = curve, steps_per_epoch
        self._tokens, self._since = 0.0, 0.0

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._since = time.monotonic()

    def on_log(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        found = kwargs["logs"]
        if "loss" not in found or ranks.rank() != 0:  # the summary at the end has no loss
            return
        now, tokens = time.monotonic(), found["num_tokens"]
        line = {
            "step": state.global_step,
            "epoch": round(state.global_step / self.steps_per_epoch, 4),
            "loss": found["loss"],
            "learning_rate": found["learning_rate"],
            "tokens": int(tokens - self._tokens),
            "seconds": round(now - self._since, 4),
        }
        self._tokens, self._since = tokens, now
        self.curve.add(line)
        seconds = line["seconds"]
        logs.figures(**line, tokens_per_s=line["tokens"] / seconds if seconds else None, step_s=seconds)
        logs.progress(state.global_step, state.max_steps, "step", loss=found["loss"])
