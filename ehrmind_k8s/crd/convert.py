"""From a run document to an EHRMindRun and back.

    {task: medcalc, rlvr: {prompts_per_step: 8}}   <->   spec: {task: medcalc, rlvr: {promptsPerStep: 8}}

The object holds what its author wrote, never what a preset says; `run` resolves it. `name` is the object's metadata.name.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel

from ehrmind_k8s import spec
from ehrmind_k8s.artifacts import RunDocument
from ehrmind_k8s.crd import names
from ehrmind_k8s.errors import SpecError, nearest
from ehrmind_k8s.spec import RunSpec

# What may change in a run that exists; rules.py refuses any other change. No preset sets one of them.
MUTABLE_KEYS: tuple[str, ...] = ("suspend", "cancel", "attempt", "rollout.replicas", "policy.ttl_s", "policy.deadline_s")


@dataclass(frozen=True, slots=True)
class Run:
    """An EHRMindRun as the controller works with it. `spec` is resolved: presets and defaults are in."""

    name: str
    namespace: str
    uid: str
    generation: int
    spec: RunSpec
    status: Mapping[str, Any] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    deleting: bool = False


def run(obj: Mapping[str, Any], frozen: RunSpec | None = None) -> Run:
    """An object of the API server as a Run. Raises SpecError with every problem, in the object's own spelling.

    `frozen` is the document that the run was accepted with: then only `MUTABLE_KEYS` come from the object, so that a newer operator
    with other presets does not change a run that is under way.
    """
    meta = obj["metadata"]
    if len(meta["name"]) > names.NAME_LIMIT or not re.fullmatch(names.NAME_PATTERN, meta["name"]):
        raise SpecError(f"metadata.name: found {meta['name']!r}: {names.NAME_RULE}")
    written = document(obj)
    try:
        resolved = spec.load(written) if frozen is None else _thawed(frozen, written)
    except SpecError as error:
        raise SpecError(camel_text(str(error))) from None
    return Run(
        meta["name"],
        meta.get("namespace") or "default",
        meta.get("uid") or "",
        meta.get("generation") or 1,
        resolved,
        obj.get("status") or {},
        meta.get("labels") or {},
        meta.get("deletionTimestamp") is not None,
    )


def document(obj: Mapping[str, Any]) -> dict[str, Any]:
    """What the author of an object wrote, as a run document (snake_case, sparse). Raises SpecError naming keys that do not exist."""
    return {"name": obj["metadata"]["name"], **_renamed(obj.get("spec") or {}, to_object=False)}


def to_object(document: Mapping[str, Any], namespace: str) -> dict[str, Any]:
    """The object of a run document as its author wrote it; the API server checks it. Raises SpecError naming keys that do not exist."""
    if "task" not in document:
        raise SpecError("task: missing; add it to the document or pass --set task=...")
    body = _renamed(document, to_object=True)
    name = body.pop("name", None) or spec.default_name(document)
    return {"apiVersion": names.API_VERSION, "kind": names.KIND, "metadata": {"name": name, "namespace": namespace}, "spec": body}


def run_document(run: Run) -> RunDocument:
    """What is stored as the run's spec.json. Its uid is that of the object, shortened: a run made again under one name is another run."""
    return RunDocument(run.uid.replace("-", "")[:12], run.spec, run.spec.recipe_hash())


def camel(key: str) -> str:
    """`kv_cache_gib` -> `kvCacheGib`."""
    first, *rest = key.split("_")
    return first + "".join(part.capitalize() for part in rest)


def camel_text(text: str) -> str:
    """A sentence about the run document as one about the object: keys of the document in the object's spelling."""
    return re.sub(r"\b[a-z]+(?:_[a-z]+)+\b", lambda match: camel(match[0]) if match[0] in _KEYS else match[0], text)


def _keys(model: type[BaseModel]) -> set[str]:
    sections = [inner for f in model.model_fields.values() if (inner := section(f.annotation))]
    return set(model.model_fields).union(*map(_keys, sections))


def section(annotation: Any) -> type[BaseModel] | None:
    """The model of a field that is a part of the document, else None."""
    return annotation if isinstance(annotation, type) and issubclass(annotation, BaseModel) else None


_KEYS = _keys(RunSpec)


def _renamed(document: Mapping[str, Any], to_object: bool) -> dict[str, Any]:
    """The document with every key in the other spelling. Raises SpecError naming all keys that are in neither."""
    unknown: list[str] = []
    renamed = _section(document, RunSpec, to_object, "", unknown)
    if unknown:
        raise SpecError("the run document is not valid:\n" + "\n".join(f"  {line}" for line in unknown))
    return renamed


def _section(part: Mapping[str, Any], model: type[BaseModel], to_object: bool, where: str, unknown: list[str]) -> dict[str, Any]:
    known = {key: camel(key) for key in model.model_fields}
    fields = known if to_object else {written: key for key, written in known.items() if key != "name"}
    renamed = {}
    for key, value in part.items():
        if key not in fields:
            unknown.append(f"{where}{key}: unknown key; {nearest(str(key), fields)}")
            continue
        inner = section(model.model_fields[key if to_object else fields[key]].annotation)
        renamed[fields[key]] = _section(value, inner, to_object, f"{where}{key}.", unknown) if inner and isinstance(value, Mapping) else value
    return renamed


def _thawed(frozen: RunSpec, document: Mapping[str, Any]) -> RunSpec:
    """`frozen` with the values that may change taken from `document`, or their defaults where it has none."""
    whole = frozen.model_dump(mode="json")
    defaults = RunSpec(name=frozen.name, task=frozen.task).model_dump(mode="json")
    for key in MUTABLE_KEYS:
        *parents, leaf = key.split(".")
        place, written, default = whole, document, defaults
        for parent in parents:
            place, written, default = place[parent], written.get(parent) or {}, default[parent]
        place[leaf] = written.get(leaf, default[leaf])
    return spec.from_json(whole)
