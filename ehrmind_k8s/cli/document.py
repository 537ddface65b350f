"""From a file and options to a run document, for `submit`, `plan` and `data`: as its author wrote it, and resolved."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import click

from ehrmind_k8s import spec
from ehrmind_k8s.cli import options
from ehrmind_k8s.errors import DataError, SpecError, nearest
from ehrmind_k8s.spec import RunSpec
from ehrmind_k8s.tasks import registry


def gather(path: Path | None, fields: Mapping[str, str | None], data: str | None, overrides: Sequence[str]) -> dict[str, Any]:
    """What was written: the document in `path`, the given fields over it, `--set` over both. Raises SpecError."""
    user = read(path) if path else {}
    user |= {k: v for k, v in fields.items() if v is not None}
    if data is not None:
        section = user.get("data")
        user["data"] = {**(section if isinstance(section, Mapping) else {}), "uri": data}
    return spec.written(user, overrides)


def read(path: Path) -> dict[str, Any]:
    """A run document from a file. Raises SpecError."""
    try:
        return spec.parse_yaml(path.read_text(encoding="utf-8"), str(path))
    except FileNotFoundError:
        raise SpecError(f"{path}: no such file; a run document is a YAML file such as `{{task: medcalc, preset: tiny}}`") from None
    except (OSError, UnicodeDecodeError) as error:
        raise SpecError(f"{path}: cannot be read as a run document ({error})") from None


def checked(written: Mapping[str, Any]) -> RunSpec:
    """The document with preset and defaults. Raises SpecError with every problem found."""
    document = spec.load(written)
    known = registry.names()
    if document.task not in known:
        raise SpecError(f"task {document.task!r} is unknown; {nearest(document.task, known)}")
    return document


def placed(written: Mapping[str, Any]) -> RunSpec:
    """`checked`, with its store filled in and its paths absolute, so that a later command may be typed elsewhere. Raises DataError too."""
    document = checked(written)
    source = document.data.uri
    if source is not None and not urlsplit(source).scheme:
        source = options.absolute(source)
        if not Path(source).exists():
            raise DataError(f"data.uri: no file or folder at {source}")
    model = document.model.uri
    if Path(model).expanduser().is_dir():
        model = options.absolute(model)
    return document.model_copy(
        update={
            "store": options.store_uri(document.store),
            "data": document.data.model_copy(update={"uri": source}),
            "model": document.model.model_copy(update={"uri": model}),
        }
    )


def for_cluster(written: Mapping[str, Any], store: str | None) -> dict[str, Any]:
    """The document with EHRMIND_STORE where it names no store; a folder in there is for this machine and says nothing to a cluster."""
    if store is None or written.get("store") is not None:
        return dict(written)
    if urlsplit(store).scheme in ("", "file"):
        click.echo(f"EHRMIND_STORE={store} is a folder of this machine: the run is stored where the cluster's profile says", err=True)
        return dict(written)
    return {**written, "store": store}
