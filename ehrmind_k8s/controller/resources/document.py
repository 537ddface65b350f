"""The document that a run was taken on with, in ConfigMap `<run>-spec`: its pods read it there, and so does every later operator."""

import functools
import hashlib
import json

from ehrmind_k8s import crd, storage
from ehrmind_k8s.controller.difference import stamped
from ehrmind_k8s.controller.resources.metadata import SHARED, Object, metadata
from ehrmind_k8s.crd import Run
from ehrmind_k8s.errors import SpecError
from ehrmind_k8s.profile import Profile

KEY = "spec.json"


def render(run: Run) -> Object:
    """The ConfigMap with the document. Immutable: what a run computes is settled, and no kubelet has to watch it."""
    return config_map(run, config_map_name(run.name), {KEY: text(run)})


def text(run: Run) -> str:
    """The document as it is kept."""
    return crd.run_document(run).to_json().decode()


def digest(text: str) -> str:
    """32 hex digits of a SHA-256 over a kept document, whatever wrote it. What may change in a run is left out, since it counts from the object."""
    try:
        found = json.loads(text)
        for key in crd.MUTABLE_KEYS:
            *parents, leaf = key.split(".")
            functools.reduce(lambda part, parent: part.get(parent, {}), parents, found["spec"]).pop(leaf, None)
        text = json.dumps(found, sort_keys=True)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        pass  # no document: it stands for itself
    return hashlib.sha256(text.encode("utf-8", "backslashreplace")).hexdigest()[:32]


def config_map_name(run: str) -> str:
    """Name of the ConfigMap with the document of a run of this name."""
    return f"{run}-spec"


def config_map(run: Run, name: str, data: dict[str, str]) -> Object:
    """An immutable ConfigMap of a run."""
    return stamped({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata(run, name, SHARED), "immutable": True, "data": data})


def run_uri(run: Run, profile: Profile) -> str:
    """Where everything durable of a run is. Raises SpecError where neither run nor profile names an object store."""
    store = run.spec.store or profile.run_store(run.namespace)
    if not store:
        raise SpecError(f"run {run.name} has no store: set `store` to s3://bucket/prefix, in its profile {run.spec.profile!r} or in its document")
    if not store.startswith("s3://"):
        raise SpecError(f"store {store}: pods see no folder of a machine; name an object store, s3://bucket/prefix")
    return storage.join(store, run.name)
