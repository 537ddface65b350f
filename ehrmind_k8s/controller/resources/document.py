"""The run document as its pods read it: frozen in the ConfigMap `<run>-spec` when the run is taken on."""

from ehrmind_k8s import crd, storage
from ehrmind_k8s.controller.difference import stamped
from ehrmind_k8s.controller.resources.metadata import SHARED, Object, metadata
from ehrmind_k8s.crd import Run
from ehrmind_k8s.errors import SpecError
from ehrmind_k8s.profile import Profile

KEY = "spec.json"


def render(run: Run) -> Object:
    """The ConfigMap. Immutable: what a run computes is settled, and no kubelet has to watch it."""
    return stamped(
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": metadata(run, config_map_name(run), SHARED),
            "immutable": True,
            "data": {KEY: crd.run_document(run).to_json().decode()},
        }
    )


def config_map_name(run: Run) -> str:
    """Name of the ConfigMap."""
    return f"{run.name}-spec"


def run_uri(run: Run, profile: Profile) -> str:
    """Where everything durable of a run is. Raises SpecError where neither run nor profile names an object store."""
    store = run.spec.store or profile.run_store(run.namespace)
    if not store:
        raise SpecError(f"run {run.name} has no store: set `store` to s3://bucket/prefix, in its profile {run.spec.profile!r} or in its document")
    if not store.startswith("s3://"):
        raise SpecError(f"store {store}: pods see no folder of a machine; name an object store, s3://bucket/prefix")
    return storage.join(store, run.name)
