"""The start model is data: resolved once by prepare, checked, and read from the store by every later pod.

`model.uri` is `toy` (see `toymodel`), a folder, a store URI (as `ehrmind model put` writes it) or a hub id with its revision.
A folder is in HF layout: config.json, tokenizer.json, tokenizer_config.json, weights as .safetensors. Pickles and code are left behind.
"""

import json
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
from safetensors import SafetensorError, safe_open

from ehrmind_k8s import artifacts, storage, toymodel
from ehrmind_k8s.errors import ModelError, SpecError
from ehrmind_k8s.records import Example
from ehrmind_k8s.spec import ModelSpec
from ehrmind_k8s.storage.meter import Meter
from ehrmind_k8s.tokenization import Tokenizer

WANTED = ("*.safetensors", "*.json", "*.jinja", "merges.txt", "vocab.txt", "tokenizer.model", "LICENSE*", "README.md")
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


@dataclass(frozen=True, slots=True)
class StartModel:
    """What the manifest says about a start model. `context` is the longest sequence its positions cover (tokens)."""

    architecture: str
    parameters: int
    vocabulary: int
    context: int


def resolve(model: ModelSpec, folder: Path, train: Iterable[Example], seed: int) -> StartModel:
    """Bring the model's files to `folder` and check them; the toy's tokenizer is made from `train`. Raises ModelError or SpecError."""
    if model.uri == "toy":
        toymodel.write(folder, train, seed)
    elif urlsplit(model.uri).scheme in ("s3", "file"):
        _from_store(model.uri, folder)
    elif Path(model.uri).expanduser().is_dir():
        _link(Path(model.uri).expanduser(), folder)
    elif _HUB_ID.fullmatch(model.uri):
        _from_hub(model, folder)
    else:
        raise ModelError(f"model.uri {model.uri!r}: no such folder; expected toy, a folder in HF layout, s3://..., or a hub id with model.revision")
    try:
        return check(folder, model.context)
    except ModelError as error:  # name the place the user knows, not our scratch folder
        raise ModelError(str(error).replace(str(folder), model.uri)) from None


def files(folder: Path) -> list[Path]:
    """What a model is made of: weights, tokenizer, configuration. Pickles and code are not among them."""
    return [p for p in sorted(folder.iterdir()) if p.is_file() and p.name != artifacts.MANIFEST and any(p.match(w) for w in WANTED)]


def check(folder: Path, context: int = 0) -> StartModel:
    """Raises ModelError unless the folder holds a tokenizer that gives text back, whole safetensors, and positions for `context` tokens."""
    tokenizer = Tokenizer(folder)
    config = _json(folder / "config.json")
    text = config.get("text_config") or config
    positions, vocabulary = int(text.get("max_position_embeddings", 0)), int(text.get("vocab_size", 0))
    if positions < context:
        raise ModelError(f"{folder}/config.json: max_position_embeddings is {positions}, below model.context {context}; lower model.context")
    if len(tokenizer) > vocabulary:
        raise ModelError(f"{folder}: the tokenizer has {len(tokenizer)} tokens, the model {vocabulary} embeddings; they do not belong together")
    architecture = next(iter(config.get("architectures") or ["unknown"]))
    return StartModel(architecture, _parameters(folder), vocabulary, positions)


def _from_store(uri: str, folder: Path) -> None:
    store = storage.open(uri)
    if artifacts.load(store) is not None:
        artifacts.fetch(store, "", folder)
        return
    folder.mkdir(parents=True, exist_ok=True)
    wanted = [item for item in store.list() if "/" not in item.key and any(Path(item.key).match(p) for p in WANTED)]
    meter = Meter(uri, sum(item.size_bytes for item in wanted))
    for item in wanted:
        store.get_file(item.key, folder / item.key, meter)
    if not files(folder):
        raise ModelError(f"model.uri {uri}: nothing there; bring a model folder with `ehrmind model put FOLDER {uri}`")


def _from_hub(model: ModelSpec, folder: Path) -> None:
    """Download a pinned revision. Needs the network; a cluster's pods usually have none, and read a model brought by `model put`."""
    if not model.revision:
        raise SpecError(f"model.uri {model.uri} is a hub id: set model.revision to a commit, since a name alone does not name weights")
    bring = (
        f"download it elsewhere and `ehrmind model put FOLDER s3://...`, then set model.uri to that, or to a folder; {model.uri} at {model.revision}"
    )
    if os.environ.get("HF_HUB_OFFLINE", "0").upper() in ("1", "TRUE", "YES", "ON"):
        raise ModelError(f"the hub is switched off here (HF_HUB_OFFLINE): {bring}")
    import huggingface_hub
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        found = huggingface_hub.snapshot_download(model.uri, revision=model.revision, allow_patterns=list(WANTED))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise ModelError(f"the hub did not give the model ({type(error).__name__}): {bring}") from None
    _link(Path(found), folder)


def _link(source: Path, folder: Path) -> None:
    """Links instead of copies: weights are large, and publishing reads them once."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in files(source):
        (folder / path.name).symlink_to(path.resolve())


def _parameters(folder: Path) -> int:
    """Number of weights, from the headers of every shard."""
    shards = sorted(folder.glob("*.safetensors"))
    index = folder / "model.safetensors.index.json"
    named = set(_json(index).get("weight_map", {}).values()) if index.is_file() else set()
    missing = sorted(named - {s.name for s in shards})
    if missing or not shards:
        raise ModelError(
            f"{folder}: weights missing: {', '.join(missing) or '*.safetensors'}; pickled weights (.bin, .pt) are not read: save as safetensors"
        )
    total = 0
    for shard in shards:
        try:
            with safe_open(shard, "np") as tensors:
                total += sum(int(np.prod(tensors.get_slice(name).get_shape())) for name in tensors.keys())  # noqa: SIM118 (not a dict)
        except (SafetensorError, OSError):
            raise ModelError(f"{shard}: not a whole safetensors file ({shard.stat().st_size} bytes); copy it again") from None
    return total


def _json(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        raise ModelError(f"{path}: not valid JSON") from None
    return document if isinstance(document, dict) else {}
