"""The document of one stage of a pipeline, and the name of its run: from a step's parameters alone, so that a step that starts again finds both.

Step `prepare` takes the pipeline's parameters and hands on the document that they make; the steps after it take that document, and where the
outputs of the stages before are.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any

from ehrmind_k8s import crd, plan
from ehrmind_k8s.errors import SpecError, nearest
from ehrmind_k8s.spec import STAGES, parse_yaml

Parameters = Mapping[str, Any]

# What a step sets itself, so that nobody else may.
OURS = ("stages", "inputs", "attempt", "suspend", "cancel")
# Parameter of step `prepare` -> key of the document. Empty and 0 mean: as the preset has it.
KEYS = {
    "task": "task",
    "preset": "preset",
    "name": "name",
    "data_uri": "data.uri",
    "store_uri": "store",
    "model_uri": "model.uri",
    "sft_mode": "sft.mode",
    "rlvr_steps": "rlvr.steps",
    "rollout_replicas": "rollout.replicas",
    "profile": "profile",
}
DIGITS = 8  # of the hash in a name


def document(parameters: Parameters) -> dict[str, Any]:
    """The run document that all steps of a pipeline's run share. Raises SpecError naming the parameter that cannot be."""
    if text := parameters.get("document"):
        found = parse_yaml(str(text), "document")
    else:
        own, over = _of_parameters(parameters), _mapping(parameters.get("overrides"), "overrides")
        _refuse_double(own, over)
        found = _merged(_merged(over, own), _mapping(parameters.get("variant"), "variant"))
    for key in OURS:
        if key in found:
            raise SpecError(f"{key}: a step of a pipeline sets this itself; leave it out")
    return found


def of(stage: str, parameters: Parameters) -> dict[str, Any]:
    """The document of one stage, with its name and where it reads from. Raises SpecError."""
    if stage not in STAGES:
        raise SpecError(f"stage {stage!r} is unknown; {nearest(stage, STAGES)}")
    shared = document(parameters)
    inputs = {s: str(uri) for s in STAGES if (uri := parameters.get(f"{s}_uri"))}
    if lacking := [s for s in plan.READS[stage] if s not in inputs and s != "diagnose"]:
        raise SpecError(f"{lacking[0]}_uri: missing; step {stage} reads the output of {lacking[0]}")
    return {**shared, "name": name(stage, shared, str(parameters.get("run_id") or "")), "stages": [stage], "inputs": inputs}


def name(stage: str, shared: Mapping[str, Any], run_id: str) -> str:
    """Name of the run that is this stage of a pipeline's run: the same whenever the step starts, another in each iteration of a loop."""
    text = json.dumps([run_id, stage, shared], sort_keys=True)
    ending = f"-{stage}-{hashlib.sha256(text.encode()).hexdigest()[:DIGITS]}"
    base = str(shared.get("name") or f"{shared.get('task')}-{shared.get('preset') or 'default'}").lower()
    base = re.sub(r"[^a-z0-9]+", "-", base).strip("-")
    base = base if base[:1].isalpha() else f"run-{base}"
    return base[: crd.NAME_LIMIT - len(ending)].strip("-") + ending


def _of_parameters(parameters: Parameters) -> dict[str, Any]:
    """What parameters of their own say."""
    found: dict[str, Any] = {}
    for parameter, key in KEYS.items():
        value = parameters.get(parameter)
        if value in (None, "", 0):
            continue
        parent, _, leaf = key.rpartition(".")
        (found.setdefault(parent, {}) if parent else found)[leaf] = _whole(value)
    if "task" not in found:
        raise SpecError("task: missing")
    return found


def _mapping(value: Any, parameter: str) -> dict[str, Any]:
    """A parameter that holds a part of a document: an object, or its JSON."""
    try:
        found = json.loads(value) if isinstance(value, str) and value else value or {}
    except ValueError as error:
        raise SpecError(f"{parameter}: not JSON: {error}") from None
    if not isinstance(found, dict):
        raise SpecError(f"{parameter}: expected an object of run fields such as {{'rlvr': {{'learning_rate': 1e-6}}}}, found {type(found).__name__}")
    return {key: _whole(each) for key, each in found.items()}


def _whole(value: Any) -> Any:
    """A value with its whole numbers as such: Kubeflow hands every number on as 30.0, also inside an object."""
    if isinstance(value, Mapping):
        return {key: _whole(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_whole(each) for each in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _refuse_double(own: Mapping[str, Any], over: Mapping[str, Any], at: str = "") -> None:
    """Raises SpecError where overrides say something else than a parameter does: one of the two would be lost in silence."""
    for key in own.keys() & over.keys():
        if isinstance(own[key], Mapping) and isinstance(over[key], Mapping):
            _refuse_double(own[key], over[key], f"{at}{key}.")
        elif own[key] != over[key]:
            raise SpecError(f"overrides: {at}{key} differs from what its own parameter says; leave one of the two as it was")


def _merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    both = {
        key: _merged(base[key], over[key]) for key in base.keys() & over.keys() if isinstance(base[key], Mapping) and isinstance(over[key], Mapping)
    }
    return {**base, **over, **both}
