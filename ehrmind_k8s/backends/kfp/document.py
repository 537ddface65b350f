"""A run document as parameters of the compiled pipeline, and that pipeline itself.

    a_task a_preset a_name   b_data_uri b_store_uri   c_model_uri   d_sft_mode   e_rlvr_steps e_rollout_replicas   g_namespace g_profile   h_overrides

The letters keep the order of a run in KFP's form, which sorts by name. What has no parameter of its own is in h_overrides, nested as in run.yaml.
Step `prepare` makes the document of them again (stage.py).
"""

import copy
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

import ehrmind_k8s
from ehrmind_k8s.errors import SpecError
from ehrmind_k8s.spec import PRESETS, STAGES, RunSpec

FILE = "pipelines/ehrmind.yaml"
_PACKAGE = Path(ehrmind_k8s.__file__).parent
PLACES = (_PACKAGE / FILE, _PACKAGE.parent / FILE)  # in a wheel it is package data; a checkout has it at its top
NAMESPACE, OVERRIDES = "g_namespace", "h_overrides"
# (parameter, key of the document, what it is where the document does not say it: as the preset has it; None: what the document comes to)
PARAMETERS: tuple[tuple[str, str, Any], ...] = (
    ("a_task", "task", None),
    ("a_preset", "preset", None),
    ("a_name", "name", None),
    ("b_data_uri", "data.uri", ""),
    ("b_store_uri", "store", ""),
    ("c_model_uri", "model.uri", ""),
    ("d_sft_mode", "sft.mode", ""),
    ("e_rlvr_steps", "rlvr.steps", 0),
    ("e_rollout_replicas", "rollout.replicas", 0),
    ("g_profile", "profile", "default"),
)
# What a parameter may say, where it is one of a few. Tasks are not: an image may have more installed.
VALUES: dict[str, tuple[str, ...]] = {"a_preset": PRESETS, "d_sft_mode": ("", "auto", "always", "never")}
IMAGE = re.compile(r"[a-z0-9][-._a-z0-9]*(:[0-9]+)?(/[-._a-z0-9]+)*(:[A-Za-z0-9_][-._A-Za-z0-9]*|@sha256:[0-9a-f]{64})")
# Where things of the hospital are: a difference says that they differ, not what they are.
PRIVATE = ("data.uri", "store", "model.uri", "sft.traces_file", "sft.teacher.url")
# What makes sense for one object of a cluster alone, unless it says no more than the default.
REFUSED: dict[str, tuple[tuple[Any, ...], str]] = {
    "stages": ((None, list(STAGES)), "a pipeline always runs all stages; --backend kubernetes runs some of them"),
    "inputs": ((None, {}), "each stage of a pipeline reads the one before; --backend kubernetes takes the output of another run"),
    "attempt": ((None, 1), "submit the same document again, or press Retry, to continue a pipeline's run"),
    "suspend": ((None, False), "a pipeline's run cannot be suspended; cancel it, and submit it again to continue"),
    "cancel": ((None, False), "`ehrmind cancel` ends a pipeline's run"),
}


@dataclass(frozen=True, slots=True)
class Compiled:
    """The compiled pipeline: its file, and the two documents in it."""

    text: bytes
    pipeline: Mapping[str, Any]
    platform: Mapping[str, Any]

    @property
    def source(self) -> dict[str, Any]:
        """It as the API takes it inline."""
        return {"pipeline_spec": self.pipeline, "platform_spec": self.platform} if self.platform else {"pipeline_spec": self.pipeline}

    @property
    def declared(self) -> Mapping[str, Any]:
        """Its parameters."""
        return ((self.pipeline["root"].get("inputDefinitions") or {}).get("parameters")) or {}

    @property
    def name(self) -> str:
        """What KFP's list calls it, unless it is uploaded under another name."""
        return str(self.pipeline["pipelineInfo"].get("name") or "ehrmind")

    @property
    def images(self) -> list[str]:
        """What its nodes run."""
        executors = (self.pipeline.get("deploymentSpec") or {}).get("executors") or {}
        return sorted({found["container"]["image"] for found in executors.values() if "container" in found})

    @property
    def defaults(self) -> dict[str, Any]:
        """What parameters are that nobody gives."""
        return {name: found["defaultValue"] for name, found in self.declared.items() if "defaultValue" in found}


def parameters(spec: RunSpec, written: Mapping[str, Any], namespace: str = "") -> dict[str, Any]:
    """The parameters of a run of `spec`, of which its author wrote `written`; `namespace` is where its pods run, "" for that of the pipeline's.

    Raises SpecError for keys that no pipeline has.
    """
    refused = [f"{key}: {hint}" for key, (allowed, hint) in REFUSED.items() if _plain(written.get(key)) not in allowed]
    if refused:
        raise SpecError("\n".join(refused))
    whole, rest = spec.model_dump(mode="json"), {key: _plain(value) for key, value in written.items() if key not in REFUSED}
    found = {name: _at(whole, key) if _taken(rest, key) or otherwise is None else otherwise for name, key, otherwise in PARAMETERS}
    found |= {"a_preset": spec.preset, "a_name": spec.name, NAMESPACE: namespace}
    return found | {OVERRIDES: {key: value for key, value in rest.items() if value != {}}}


def fitting(compiled: Compiled, values: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters, if the compiled pipeline has them all. Raises SpecError where the file is of another version."""
    if unknown := [name for name in values if name not in compiled.declared]:
        raise SpecError(f"{FILE} has no parameter {', '.join(unknown)}: it was compiled by another version; run: make pipelines")
    return dict(values)


def differences(there: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    """Lines `key: old -> new`, in the words of the document, for what two runs' parameters say differently."""
    before, after = _flat(there), _flat(wanted)
    lines = []
    for key in sorted({*before, *after}):
        old, new = before.get(key), after.get(key)
        if old != new:
            lines.append(f"{key}: another one" if key in PRIVATE else f"{key}: {old!r} -> {new!r}")
    return lines


def compiled(image: str | None = None) -> Compiled:
    """The compiled pipeline of this version, with another `image` of its nodes: of the package where it was installed, else of the checkout.

    Raises SpecError where there is none.
    """
    for path in PLACES:
        if path.is_file():
            found = read(path)
            return _parsed(adapted(found, image, lists=False), str(path)) if image else found
    raise SpecError(f"{FILE} is not there; in a checkout run: make pipelines")


def adapted(found: Compiled, image: str | None, lists: bool) -> bytes:
    """A compiled pipeline with another image of its nodes, and with the values that its parameters may have. Raises SpecError for an image as such.

    Backends from 2.16 on check such values, and the form shows them as lists from 2.17 on; older ones refuse the key.
    """
    if image and (image.endswith(":latest") or not IMAGE.fullmatch(image)):
        raise SpecError(
            f"--image {image!r}: expected an image with a version tag or a digest, such as registry.example/ehrmind:{ehrmind_k8s.__version__}"
        )
    pipeline, platform = copy.deepcopy(dict(found.pipeline)), found.platform
    for executor in pipeline["deploymentSpec"]["executors"].values() if image else ():
        executor["container"]["image"] = image
    declared = ((pipeline["root"].get("inputDefinitions") or {}).get("parameters")) or {}
    for name, values in VALUES.items() if lists else ():
        if name in declared:
            declared[name]["literals"] = list(values)
    return yaml.safe_dump_all([d for d in (pipeline, platform) if d], sort_keys=False, allow_unicode=True, width=150).encode()


def read(path: Path) -> Compiled:
    """A compiled pipeline. Raises SpecError for a file that is none."""
    try:
        return _parsed(path.read_bytes(), str(path))
    except OSError as error:
        raise SpecError(f"{path}: {error.strerror}") from None


def _parsed(text: bytes, where: str) -> Compiled:
    try:
        documents = [found for found in yaml.load_all(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)) if found]
    except (yaml.YAMLError, ValueError) as error:
        raise SpecError(f"{where}: not valid YAML: {' '.join(str(error).split())}") from None
    if not documents or not all(isinstance(d, dict) for d in documents) or not {"pipelineInfo", "root"} <= documents[0].keys():
        raise SpecError(f"{where}: no compiled pipeline (a first document with pipelineInfo and root is expected); `make pipelines` compiles ours")
    return Compiled(text, documents[0], documents[1] if len(documents) > 1 else {})


def _taken(document: dict[str, Any], key: str) -> bool:
    """Whether the document says something at `key`; it says it no more after that."""
    *parents, leaf = key.split(".")
    place: Any = document
    for parent in parents:
        place = place.get(parent)
        if not isinstance(place, dict):
            return False
    return place.pop(leaf, None) is not None


def _flat(values: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters by the keys of the document; what says that nothing is said is left out."""
    own = {key: values.get(name) for name, key, _ in (*PARAMETERS, (NAMESPACE, "namespace", ""))}
    said = {key: value for key, value in own.items() if value not in (None, "", 0)}
    return _dotted(values.get(OVERRIDES) or {}) | said


def _dotted(document: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in document.items():
        flat |= _dotted(value, f"{prefix}{key}.") if isinstance(value, Mapping) and value else {prefix + key: value}
    return flat


def _at(document: Mapping[str, Any], key: str) -> Any:
    place: Any = document
    for part in key.split("."):
        place = place[part]
    return place


def _plain(value: Any) -> Any:
    """Data as JSON has it, and a copy that may be changed."""
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    return [_plain(inner) for inner in value] if isinstance(value, list | tuple) else value
