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

_PARTS = ("apiVersion", "kind", "metadata", "spec")


def gather(path: Path | None, fields: Mapping[str, str | None], data: str | None, overrides: Sequence[str]) -> dict[str, Any]:
    """What was written: the document in `path`, the given fields over it, `--set` over both. Raises SpecError."""
    user = read(path) if path else {}
    user |= {k: v for k, v in fields.items() if v is not None}
    if data is not None:
        section = user.get("data")
        user["data"] = {**(section if isinstance(section, Mapping) else {}), "uri": data}
    return spec.written(user, overrides)


def read(path: Path) -> dict[str, Any]:
    """A run document from a file, which may hold it as an EHRMindRun, the object that kubectl takes. Raises SpecError."""
    try:
        found = spec.parse_yaml(path.read_text(encoding="utf-8"), str(path))
        return _of_object(found, path) if {"apiVersion", "kind"} & found.keys() else found
    except FileNotFoundError:
        raise SpecError(f"{path}: no such file; a run document is a YAML file such as `{{task: medcalc, preset: tiny}}`") from None
    except (OSError, UnicodeDecodeError) as error:
        raise SpecError(f"{path}: cannot be read as a run document ({error})") from None


def _of_object(obj: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """The document of an object. Raises SpecError for another kind, and for what would be lost."""
    from ehrmind_k8s import crd

    kind = (obj.get("apiVersion"), obj.get("kind"))
    if kind != (crd.API_VERSION, crd.KIND):
        raise SpecError(f"{path}: found an object {kind[0]} {kind[1]}, expected a run document, or an object {crd.API_VERSION} {crd.KIND}")
    metadata, body = obj.get("metadata"), obj.get("spec")
    if not isinstance(metadata, Mapping) or not isinstance(metadata.get("name"), str) or not isinstance(body, Mapping):
        raise SpecError(f"{path}: expected metadata.name and spec; for a name of its own choice `ehrmind submit` takes the document under spec alone")
    if metadata.get("namespace") is not None:
        raise SpecError(f"{path}: metadata.namespace is for kubectl; here leave it out, and pass --namespace {metadata['namespace']}")
    if lost := [f"metadata.{key}" for key in metadata if key not in ("name", "namespace")] + [k for k in obj if k not in _PARTS]:
        raise SpecError(f"{path}: {', '.join(lost)} would be lost: only metadata.name and spec are read here, kubectl apply keeps the rest")
    return crd.document(obj)


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
