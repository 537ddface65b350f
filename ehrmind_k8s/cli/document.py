"""From a file and options to a whole run document, for `submit` and `plan`."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ehrmind_k8s import spec
from ehrmind_k8s.cli import options
from ehrmind_k8s.errors import DataError, SpecError, nearest
from ehrmind_k8s.spec import RunSpec
from ehrmind_k8s.tasks import registry


def resolve(path: Path | None, fields: Mapping[str, str | None], data: str | None, overrides: Sequence[str]) -> RunSpec:
    """The document in `path`, the given fields over it, `--set` over both; paths in it are made absolute. Raises SpecError or DataError."""
    user = read(path) if path else {}
    user |= {k: v for k, v in fields.items() if v is not None}
    if data is not None:
        section = user.get("data")
        user["data"] = {**(section if isinstance(section, Mapping) else {}), "uri": data}
    return _placed(spec.load(user, overrides))


def read(path: Path) -> dict[str, Any]:
    """A run document from a file. Raises SpecError."""
    try:
        return spec.parse_yaml(path.read_text(encoding="utf-8"), str(path))
    except FileNotFoundError:
        raise SpecError(f"{path}: no such file; a run document is a YAML file such as `{{task: medcalc, preset: tiny}}`") from None
    except (OSError, UnicodeDecodeError) as error:
        raise SpecError(f"{path}: cannot be read as a run document ({error})") from None


def _placed(document: RunSpec) -> RunSpec:
    """The document with its store filled in and its paths absolute, so that a later command may be typed elsewhere."""
    known = registry.names()
    if document.task not in known:
        raise SpecError(f"task {document.task!r} is unknown; {nearest(document.task, known)}")
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
