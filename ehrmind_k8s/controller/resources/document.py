"""What a run was taken on with, frozen in ConfigMaps: `<run>-spec`, which its pods read too, and `<run>-profile-<attempt>`.

An upgrade of the operator or an edited profile then changes no run under way; a raised `spec.attempt` takes up the profile as it is then.
"""

from ehrmind_k8s import crd, storage
from ehrmind_k8s.controller.difference import stamped
from ehrmind_k8s.controller.resources.metadata import SHARED, Object, metadata
from ehrmind_k8s.crd import Run
from ehrmind_k8s.errors import SpecError
from ehrmind_k8s.profile import Profile

KEY = "spec.json"
PROFILE_KEY = "profile.json"


def render(run: Run) -> Object:
    """The ConfigMap with the document. Immutable: what a run computes is settled, and no kubelet has to watch it."""
    return _config_map(run, config_map_name(run), {KEY: crd.run_document(run).to_json().decode()})


def render_profile(run: Run, profile: Profile) -> Object:
    """The ConfigMap with the profile that this `spec.attempt` of the run has."""
    return _config_map(run, profile_name(run), {PROFILE_KEY: profile.model_dump_json(exclude_defaults=True)})


def config_map_name(run: Run) -> str:
    """Name of the ConfigMap with the document."""
    return f"{run.name}-spec"


def profile_name(run: Run) -> str:
    """Name of the ConfigMap with the profile."""
    return f"{run.name}-profile-{run.spec.attempt}"


def _config_map(run: Run, name: str, data: dict[str, str]) -> Object:
    return stamped({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata(run, name, SHARED), "immutable": True, "data": data})


def run_uri(run: Run, profile: Profile) -> str:
    """Where everything durable of a run is. Raises SpecError where neither run nor profile names an object store."""
    store = run.spec.store or profile.run_store(run.namespace)
    if not store:
        raise SpecError(f"run {run.name} has no store: set `store` to s3://bucket/prefix, in its profile {run.spec.profile!r} or in its document")
    if not store.startswith("s3://"):
        raise SpecError(f"store {store}: pods see no folder of a machine; name an object store, s3://bucket/prefix")
    return storage.join(store, run.name)
