"""What a submit asks of a cluster: a new object, nothing, or a few changes of the one that is there. Pure.

The API server's rules let few keys of a run change (`crd.MUTABLE_KEYS`); what else differs is said here, in the words of the document.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ehrmind_k8s import crd
from ehrmind_k8s.errors import SpecError
from ehrmind_k8s.spec import EXECUTION_KEYS, STAGES, RunSpec, difference


@dataclass(frozen=True, slots=True)
class Change:
    """What becomes of a run that exists: `spec` is merged into the object's, `lines` tell the person. Both may be empty."""

    spec: Mapping[str, Any] = field(default_factory=dict)
    lines: tuple[str, ...] = ()


def refuse_paths(document: Mapping[str, Any]) -> None:
    """Raises SpecError naming every place of this machine's disk in a document, which no pod can read."""
    places = [("store", document.get("store"), "choose s3://bucket/prefix, or leave it to the cluster's profile")]
    for key, command in (("data", "data"), ("model", "model")):
        uri = (document.get(key) or {}).get("uri")
        places.append((f"{key}.uri", uri, f"bring it to a store: ehrmind {command} put {uri} s3://bucket/{key}, and name that"))
    for stage in STAGES:
        places.append((f"inputs.{stage}", (document.get("inputs") or {}).get(stage), "name the output of a run in an object store"))
    lines = [f"{key}: {uri!r} is a place on this machine, which pods cannot reach; {hint}" for key, uri, hint in places if uri and _is_path(key, uri)]
    if lines:
        raise SpecError("\n".join(lines))


def change(obj: Mapping[str, Any], there: RunSpec, spec: RunSpec, written: Mapping[str, Any]) -> Change:
    """What the document `written`, resolved as `spec`, changes in the run `obj` that computes `there`.

    Raises SpecError where it would compute something else, or differs in what is fixed once a run exists.
    """
    name = obj["metadata"]["name"]
    if recipe := difference(there, spec):
        shown = "\n  ".join(recipe)
        raise SpecError(f"run {name} exists with another recipe:\n  {shown}\nchoose another --name, or delete it: ehrmind runs delete {name}")
    was, now = crd.document(obj), dict(written)
    if fixed := [line for key, line in _differing(there, spec, was, now) if key not in crd.MUTABLE_KEYS]:
        shown = "\n  ".join(fixed)
        raise SpecError(
            f"run {name} exists, and in a cluster this is fixed once a run exists:\n  {shown}\n"
            f"leave it as it was, choose another --name, or delete the run: ehrmind runs delete {name}"
        )
    present = crd.run(obj).spec
    wanted = {key: line for key, line in _differing(present, spec, was, now) if key in crd.MUTABLE_KEYS and key != "attempt" and _has(now, key)}
    lines, patch = list(wanted.values()), {key: _at(now, key) for key in wanted}
    state = obj.get("status") or {}
    if state.get("state") in (crd.FAILED, crd.CANCELLED) and (state.get("attempt") or 1) >= present.attempt:
        attempt = max(present.attempt + 1, spec.attempt)
        lines.insert(0, f"continuing run {name} ({state['state']} in stage {state.get('stage') or 'prepare'}) as attempt {attempt}")
        patch |= {"attempt": attempt, "cancel": False, "suspend": bool(now.get("suspend"))}
    elif spec.attempt > present.attempt:
        lines.append(f"attempt: {present.attempt} -> {spec.attempt}")
        patch |= {"attempt": spec.attempt}
    return Change(_camel(patch), tuple(lines))


def _is_path(key: str, uri: str) -> bool:
    """Whether a URI is a folder of this machine. A model may also be `toy` or a hub id, which look like relative paths."""
    scheme = urlsplit(uri).scheme
    if key == "model.uri" and not scheme:
        return uri.startswith(("/", ".", "~")) or Path(uri).is_dir()
    return scheme in ("", "file")


def _differing(old: RunSpec, new: RunSpec, was: Mapping[str, Any], now: Mapping[str, Any]) -> list[tuple[str, str]]:
    """(key, `key: old -> new`) of what says how to execute, where what was written differs and what it comes to does too."""
    before, after = old.model_dump(mode="json"), new.model_dump(mode="json")
    lines = []
    for key in _execution_keys():
        differs = (_has(was, key), _at(was, key)) != (_has(now, key), _at(now, key))
        if differs and _at(before, key) != _at(after, key):
            lines.append((key, f"{key}: {_at(before, key)!r} -> {_at(after, key)!r}"))
    return lines


def _execution_keys() -> list[str]:
    """`EXECUTION_KEYS`, sections spelled out."""
    keys = []
    for key in EXECUTION_KEYS:
        inner = getattr(RunSpec.model_fields[key].annotation, "model_fields", None) if "." not in key else None
        keys += [f"{key}.{name}" for name in inner] if inner else [key]
    return keys


def _at(document: Mapping[str, Any], key: str) -> Any:
    """The value at a dotted key, None where there is none."""
    place: Any = document
    for part in key.split("."):
        place = place.get(part) if isinstance(place, Mapping) else None
    return list(place) if isinstance(place, tuple) else place


def _has(document: Mapping[str, Any], key: str) -> bool:
    parent, _, leaf = key.rpartition(".")
    section = _at(document, parent) if parent else document
    return isinstance(section, Mapping) and leaf in section


def _camel(patch: Mapping[str, Any]) -> dict[str, Any]:
    """Dotted keys of the document as a merge patch of the object's spec."""
    document: dict[str, Any] = {"name": "any", "task": "any"}
    for key, value in patch.items():
        parent, _, leaf = key.rpartition(".")
        (document.setdefault(parent, {}) if parent else document)[leaf] = value
    spec: dict[str, Any] = crd.to_object(document, "any")["spec"]
    del spec["task"]
    return spec
