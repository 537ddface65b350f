"""Models into memory and out again: the start model, a published policy on top of it, and the files of the next one.

Precision: what is served is `model.dtype`. A model that is trained whole keeps fp32 weights and computes in `model.dtype` by autocast,
because AdamW's steps of 1e-6 vanish when added to bfloat16 weights (8 bits of mantissa); its published files are cast. An adapter is fp32
over a frozen start model in `model.dtype`.
"""

import json
import logging
import os
from pathlib import Path
from typing import Any

import peft
import torch
import transformers
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

from ehrmind_k8s import artifacts
from ehrmind_k8s.artifacts import Manifest
from ehrmind_k8s.errors import IntegrityError, ModelError
from ehrmind_k8s.rollout import weights
from ehrmind_k8s.rollout.base import Policy
from ehrmind_k8s.spec import ModelSpec, RunSpec
from ehrmind_k8s.storage import ObjectStore
from ehrmind_k8s.tokenization import Tokenizer

ADAPTER = "default"  # peft's name of the adapter that is trained


def prepared(store: ObjectStore, folder: Path, *names: str) -> Path:
    """Fetch the prepare stage's files that are `names` or below one of them (`train.parquet`, `model`) into `folder`."""
    manifest = artifacts.load(store)
    if manifest is None:
        raise IntegrityError(f"{store.uri}: the prepare stage is not complete; run it first")
    artifacts.fetch(store, "", folder, [f.name for f in manifest.files if f.name.split("/")[0] in names])
    return folder


def put_terms(store: ObjectStore, folder: Path) -> None:
    """Put the terms of the data, as the prepare stage at `store` names them, beside weights that learned from it; no file where there are none."""
    manifest = artifacts.load(store)
    if manifest is not None and manifest.meta.get("terms"):
        (folder / artifacts.TERMS).write_text(f"{manifest.meta['terms']}\n", encoding="utf-8")


def processing_class(tokenizer: Tokenizer, folder: Path) -> PreTrainedTokenizerFast:
    """What Trainer wants of a tokenizer: its stop and padding tokens. It never sees a text; AutoTokenizer could rebuild the pre-tokenizer."""
    return PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"), eos_token=tokenizer.eos_token, pad_token=tokenizer.pad_token)


def start_model(spec: ModelSpec, folder: Path, seed: int) -> Any:
    """The start model ready to be trained; for lora with a fresh adapter, whose B is zero, so it computes what the start model does."""
    quiet()
    if spec.tuning == "full":
        return _load(folder, torch.float32)
    torch.manual_seed(seed)
    config = peft.LoraConfig(
        r=spec.lora_rank, lora_alpha=spec.lora_alpha, target_modules="all-linear", lora_dropout=0.0, bias="none", task_type="CAUSAL_LM"
    )
    return peft.get_peft_model(_load(folder, getattr(torch, spec.dtype)), config, adapter_name=ADAPTER)


def policy_model(spec: ModelSpec, folder: Path, policy: Policy, scratch: Path) -> Any:
    """A published policy ready to be trained further, over the start model in `folder` when it is an adapter.

    A whole model is loaded from `scratch`, which must outlive it: TRL reads the KL reference from the same folder.
    """
    quiet()
    meta = weights.fetch(policy, scratch)
    if meta.kind != spec.tuning:
        raise IntegrityError(f"{policy.uri}: policy {policy.name} is {meta.kind}, but model.tuning is {spec.tuning}; both stages need the same")
    if meta.kind == "full":
        return _load(scratch, torch.float32)
    model = peft.PeftModel.from_pretrained(_load(folder, getattr(torch, spec.dtype)), str(scratch), adapter_name=ADAPTER, is_trainable=True)
    # Where the start model is on this machine: when peft saves a checkpoint it looks there, and on a hub for any other name.
    model.peft_config[ADAPTER].base_model_name_or_path = str(folder)
    return model


def save(model: Any, folder: Path, dtype: str) -> None:
    """Write the files of a policy: safetensors of the whole model in `dtype`, or of the trained adapter alone."""
    if isinstance(model, peft.PeftModel):
        model.save_pretrained(folder, selected_adapters=[ADAPTER], save_embedding_layers=False)
        # peft writes the local path of the start model: an artifact must not depend on where it was made.
        _edit(folder / "adapter_config.json", {"base_model_name_or_path": "prepare/model"})
        return
    state = {name: tensor.to(getattr(torch, dtype)) for name, tensor in model.state_dict().items()}
    model.save_pretrained(folder, state_dict=state)
    _edit(folder / "config.json", {"dtype": dtype})


def output_policy(out: ObjectStore, stage: str, label: str) -> Policy:
    """The policy that a complete stage names in its manifest, such as `sft` of the sft stage."""
    manifest: Manifest | None = artifacts.load(out)
    if manifest is None:
        raise IntegrityError(f"{out.uri}: the {stage} stage is not complete; run it first")
    key = manifest.meta["policies"][label]
    return Policy(key.rsplit("/", 1)[1], f"{out.uri}/{key}")


def arguments(spec: RunSpec, folder: Path) -> dict[str, Any]:
    """The arguments that both trainers share: nothing leaves the process, nothing is saved unless a checkpoint is due."""
    cuda = torch.cuda.is_available()
    return {
        "output_dir": str(folder),
        "seed": spec.seed,
        "use_cpu": not cuda,
        "bf16": spec.model.dtype == "bfloat16",
        "gradient_checkpointing": cuda,  # pays on models that need a GPU; on a toy it only costs
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": [],
        "disable_tqdm": True,
        "push_to_hub": False,
    }


def quiet() -> None:
    """Keep libraries from writing text of records: TRL quotes prompt and completion of a row without a reward at WARNING."""
    logging.getLogger("trl").setLevel(logging.ERROR)
    os.environ["TRL_EXPERIMENTAL_SILENCE"] = "1"  # rollout_func may change: the version is pinned and a test holds the hook
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()


def _edit(path: Path, changes: dict[str, Any]) -> None:
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | changes, indent=1), encoding="utf-8")


def _load(folder: Path, dtype: torch.dtype) -> Any:
    try:
        return AutoModelForCausalLM.from_pretrained(str(folder), dtype=dtype, local_files_only=True, use_safetensors=True)
    except (OSError, ValueError) as error:
        raise ModelError(f"{folder.name}: transformers cannot load this model ({type(error).__name__}: {error})") from None
