"""Credentials as kubectl finds them: --kubeconfig, $KUBECONFIG, ~/.kube/config, and inside a pod its own account when there is none of these."""

import os
from pathlib import Path
from typing import Any, TypeVar

from ehrmind_k8s.errors import SpecError, nearest
from ehrmind_k8s.kubeapi.client import Client

ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
HINT = "give --kubeconfig or --context, or set KUBECONFIG"

C = TypeVar("C", bound=Client)


def configured(kubeconfig: str | None = None) -> bool:
    """Whether there is anything to connect with; says nothing about whether a server answers."""
    return bool(kubeconfig or _files()) or _in_pod()


def connect(kubeconfig: str | None = None, context: str | None = None, make: type[C] = Client, **options: Any) -> C:  # type: ignore[assignment]
    """A client (of class `make`, with its `options`). Raises SpecError when there are no credentials or they cannot be read."""
    from kubernetes.client import Configuration

    configuration = Configuration()
    if not kubeconfig and not context and not _files() and _in_pod():
        namespace = _from_pod(configuration)
    else:
        namespace = _from_file(configuration, kubeconfig or os.environ.get("KUBECONFIG") or str(_default()), context)
    return make(configuration, namespace, **options)


def _from_file(configuration: Any, file: str, context: str | None) -> str:
    """Fill `configuration` from a kubeconfig (or several, as in $KUBECONFIG); returns the namespace of its context."""
    from kubernetes import config

    try:
        contexts, active = config.list_kube_config_contexts(config_file=file)  # type: ignore[no-untyped-call]
        names = [c["name"] for c in contexts]
        if context is not None and context not in names:
            raise SpecError(f"context {context!r} is not in {file}; {nearest(context, names)}")
        config.load_kube_config(config_file=file, context=context, client_configuration=configuration)  # type: ignore[no-untyped-call]
    except (config.ConfigException, OSError, ValueError) as error:
        raise SpecError(f"no access to a cluster: {file}: {' '.join(str(error).split())}; {HINT}") from None
    chosen = next((c for c in contexts if c["name"] == context), active)
    return (chosen.get("context") or {}).get("namespace") or "default"


def _from_pod(configuration: Any) -> str:
    """Fill `configuration` with the pod's service account, whose token is read anew as it rotates; returns the pod's namespace."""
    from kubernetes import config

    try:
        config.load_incluster_config(client_configuration=configuration)  # type: ignore[no-untyped-call]
        return (ACCOUNT / "namespace").read_text(encoding="utf-8").strip()
    except (config.ConfigException, OSError) as error:
        raise SpecError(f"no access to the cluster of this pod: {error}") from None


def _files() -> str | None:
    """$KUBECONFIG, or the default file where it exists."""
    return os.environ.get("KUBECONFIG") or (str(_default()) if _default().exists() else None)


def _default() -> Path:
    return Path("~/.kube/config").expanduser()


def _in_pod() -> bool:
    return bool(os.environ.get("KUBERNETES_SERVICE_HOST")) and (ACCOUNT / "token").exists()
