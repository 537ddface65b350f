"""Credentials as kubectl finds them: --kubeconfig, $KUBECONFIG, ~/.kube/config, and inside a pod its own account when there is none of these."""

import os
from pathlib import Path
from typing import Any, TypeVar

from ehrmind_k8s.errors import SpecError, nearest
from ehrmind_k8s.kubeapi.client import Client

ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
HINT = "give --kubeconfig or --context, or set KUBECONFIG"

C = TypeVar("C", bound=Client)


def configured() -> bool:
    """Whether there is anything to connect with, when no option says; a server may answer or not."""
    return any(_holds(file) for file in _files()) or _in_pod()


def looked() -> str:
    """Where `configured` looks for a kubeconfig, for a message."""
    return f"KUBECONFIG={named}" if (named := os.environ.get("KUBECONFIG")) else "no ~/.kube/config"


def connect(kubeconfig: str | None = None, context: str | None = None, make: type[C] = Client, **options: Any) -> C:  # type: ignore[assignment]
    """A client (of class `make`, with its `options`). Raises SpecError when there are no credentials or they cannot be read."""
    from kubernetes.client import Configuration

    configuration = Configuration()
    there = kubeconfig or any(_holds(file) for file in _files())
    if not there and not _in_pod():
        raise SpecError(f"no cluster is configured here ({looked()}); {HINT}")
    if not there and not context:
        namespace = _from_pod(configuration)
    else:
        namespace = _from_file(configuration, kubeconfig or os.environ.get("KUBECONFIG") or str(_default()), context)
    return make(configuration, namespace, **options)


def _from_file(configuration: Any, file: str, context: str | None) -> str:
    """Fill `configuration` from a kubeconfig (or several, as in $KUBECONFIG); returns the namespace of its context."""
    import yaml
    from kubernetes import config

    try:
        context = context or _current(file)
        contexts, active = config.list_kube_config_contexts(config_file=file)  # type: ignore[no-untyped-call]
        names = [c["name"] for c in contexts]
        if context is not None and context not in names:
            raise SpecError(f"context {context!r} is not in {file}; {nearest(context, names)}")
        config.load_kube_config(config_file=file, context=context, client_configuration=configuration)  # type: ignore[no-untyped-call]
    except (config.ConfigException, yaml.YAMLError, OSError, ValueError) as error:
        raise SpecError(f"no access to a cluster: {file}: {' '.join(str(error).split())}; {HINT}") from None
    chosen = next((c for c in contexts if c["name"] == context), active)
    return (chosen.get("context") or {}).get("namespace") or "default"


def _current(files: str) -> str | None:
    """The current context of several files: the first one that names one counts, as with kubectl; the client would take the last."""
    import yaml

    paths = [Path(part).expanduser() for part in files.split(os.pathsep) if part]
    bodies = [yaml.safe_load(path.read_text(encoding="utf-8")) for path in paths if _holds(path)] if len(paths) > 1 else []
    return next((body["current-context"] for body in bodies if isinstance(body, dict) and body.get("current-context")), None)


def _from_pod(configuration: Any) -> str:
    """Fill `configuration` with the pod's service account, whose token is read anew as it rotates; returns the pod's namespace."""
    from kubernetes import config

    try:
        config.load_incluster_config(client_configuration=configuration)  # type: ignore[no-untyped-call]
        return (ACCOUNT / "namespace").read_text(encoding="utf-8").strip()
    except (config.ConfigException, OSError) as error:
        raise SpecError(f"no access to the cluster of this pod: {error}") from None


def _files() -> list[Path]:
    """The files of $KUBECONFIG, else the default one."""
    named = os.environ.get("KUBECONFIG")
    return [Path(part).expanduser() for part in named.split(os.pathsep) if part] if named else [_default()]


def _holds(file: Path) -> bool:
    """Whether a kubeconfig is there and says something: KUBECONFIG=/dev/null means none."""
    return file.exists() and (file.stat().st_size > 0 or file.is_fifo())


def _default() -> Path:
    return Path("~/.kube/config").expanduser()


def _in_pod() -> bool:
    return bool(os.environ.get("KUBERNETES_SERVICE_HOST")) and (ACCOUNT / "token").exists()
