"""What a run in Kubeflow Pipelines needs, for `ehrmind doctor`: one line each, with the fix."""

from collections.abc import Iterator

from ehrmind_k8s.backends.base import Check
from ehrmind_k8s.backends.kfp import document, pipelines
from ehrmind_k8s.backends.kfp.backend import KfpBackend
from ehrmind_k8s.errors import EhrmindError


def run(backend: KfpBackend) -> Iterator[Check]:
    """All checks in order; they end at the first that leaves nothing to ask."""
    api = backend.api
    try:
        users = api.multi_user()
    except EhrmindError as error:
        yield Check("pipelines api", "fail", str(error), "EHRMIND_KFP_HOST is its address; without, the cluster of the kubeconfig is asked")
        return
    yield Check("pipelines api", "ok", f"{api.host} answers, {'a namespace for each user' if users else 'without users'}")
    if users and not api.namespace:
        yield Check("your namespace", "fail", "none is named, and every experiment here belongs to one", "--namespace NAME")
        return
    try:
        name = backend.settings.kfp_experiment
        yield Check("experiment", "ok", f"{name} is there" if api.experiment(name) else f"{name} is not there yet: the first submit makes it")
    except EhrmindError as error:
        yield Check("experiment", "fail", str(error), "ask whoever runs Kubeflow for a role in this namespace")
        return
    compiled = document.compiled(backend.settings.kfp_image)
    images = compiled.images
    named = all("/" in image for image in images)  # a registry, or an account of one
    yield Check("image of nodes", "ok" if named else "warn", ", ".join(images), "" if named else "EHRMIND_KFP_IMAGE names the one in your registry")
    if pipelines.listed(api, compiled):
        yield Check("pipeline", "ok", f"version {pipelines.version_name(compiled)} is in the list of the UI")
    else:
        yield Check("pipeline", "warn", "this version is not in the list of the UI; submit works without", "ehrmind pipeline upload")
