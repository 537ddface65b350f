"""`ehrmind model`: a start model goes to a store, checked before a byte is sent."""

from dataclasses import asdict
from pathlib import Path

import click


@click.group(short_help="Copy a start model to a store.")
def command() -> None:
    """Copy a start model to a store.

    \b
    Example:
      ehrmind model put models/Qwen3-0.6B s3://bucket/models/qwen3-0.6b
    """


@command.command("put")
@click.argument("path", type=click.Path(path_type=Path))
@click.argument("uri")
def put(path: Path, uri: str) -> None:
    """Copy a model folder to a store, to be named as model.uri.

    \b
    Example:
      ehrmind model put models/Qwen3-0.6B s3://bucket/models/qwen3-0.6b

    The folder is in HF layout: config.json, tokenizer.json, tokenizer_config.json, weights as .safetensors. Pickled weights and code are left
    behind. Interrupted, the same command continues; a manifest with a SHA-256 per file is written last.
    """
    from ehrmind_k8s import startmodel
    from ehrmind_k8s.cli import transfer
    from ehrmind_k8s.errors import ModelError
    from ehrmind_k8s.tokenization import Tokenizer

    if not path.is_dir():
        raise ModelError(f"{path}: {'a file; a model folder is expected' if path.exists() else 'no such folder'}")
    model = startmodel.check(path)
    names = [file.name for file in startmodel.files(path)]
    transfer.put(path, names, uri, "model", {**asdict(model), "tokenizer": Tokenizer(path).fingerprint})
