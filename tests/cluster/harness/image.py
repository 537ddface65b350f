"""Container images without a registry: docker-archives made by hand, in which the project's images are empty places to mount the host's files.

`base_spec` is what every container of the test cluster starts from: the host's `/usr`, the Python prefix, the virtual environment and the
source tree are mounted read-only by the runtime itself, so the operator's real pod specs run unchanged, without one hostPath. Environment and
source have places of their own (VENV, SOURCE), because a pod may mount emptyDirs over `/work` and `/tmp`, wherever they are on the host.
"""

import hashlib
import io
import json
import os
import re
import resource
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[3]
HOME = "/opt/ehrmind"
VENV, SOURCE = f"{HOME}/venv", f"{HOME}/src"
USER = 65532
PATH = f"{HOME}/bin:{VENV}/bin:/usr/local/bin:/usr/bin:/bin"
PROJECT_IMAGES = ("ehrmind:test", "ehrmind-trainer:test", "ehrmind-rollout:test")
PAUSE = "ehrmind-pause:test"
# The installed script starts with the interpreter's place on the host.
EHRMIND = '#!/bin/sh\nexec python -m ehrmind_k8s "$@"\n'


@dataclass(frozen=True)
class Entry:
    """A folder (no content), a file, or a symbolic link (`target`) of an image."""

    path: str
    content: bytes | None = None
    target: str = ""
    mode: int = 0o755


def archive(target: Path, name: str, entries: Iterable[Entry], config: Mapping[str, Any]) -> Path:
    """Write a docker-archive of one layer to `target`; the same entries give the same bytes. `name` is `repository:tag`."""
    layer = _layer(entries)
    digest = hashlib.sha256(layer).hexdigest()
    image = {
        "architecture": "amd64" if os.uname().machine == "x86_64" else "arm64",
        "os": "linux",
        "config": config,
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}"]},
    }
    text = json.dumps(image, sort_keys=True).encode()
    config_name = f"{hashlib.sha256(text).hexdigest()}.json"
    manifest = [{"Config": config_name, "RepoTags": [qualified(name)], "Layers": [f"{digest}/layer.tar"]}]
    with tarfile.open(target, "w") as tar:
        for path, data in ((config_name, text), (f"{digest}/layer.tar", layer), ("manifest.json", json.dumps(manifest).encode())):
            _add(tar, Entry(path, data, mode=0o644))
    return target


def of_program(target: Path, name: str, program: Path) -> Path:
    """An image that holds one static program as `/manager`, as the operators' own images do."""
    entries = [Entry("manager", program.read_bytes()), Entry("etc"), *_accounts(), Entry("tmp", mode=0o1777)]
    return archive(target, name, entries, {"Entrypoint": ["/manager"], "User": f"{USER}:{USER}", "WorkingDir": "/"})


def of_project(target: Path, name: str) -> Path:
    """One of the project's images: the mount points of `base_spec`, and what a shell and Python look for at the root."""
    environment = {"PATH": PATH, "PYTHONPATH": SOURCE, "PYTHONDONTWRITEBYTECODE": "1", "LANG": "C.UTF-8", "HOME": "/work"}
    config = {
        "Env": [f"{key}={value}" for key, value in environment.items()],
        "User": f"{USER}:{USER}",
        "WorkingDir": "/",
        "Labels": {"org.opencontainers.image.title": name},
    }
    return archive(target, name, _root(), config)


def of_pause(target: Path) -> Path:
    """What holds a pod's network while its containers come and go: `sleep` and its libraries, since a sandbox gets none of the mounts."""
    sleep = shutil.which("sleep")
    assert sleep
    libraries = re.findall(r"(/\S+) \(0x", subprocess.run(["ldd", sleep], capture_output=True, text=True, check=True).stdout)
    entries = [Entry(path.lstrip("/"), Path(path).read_bytes()) for path in [sleep, *libraries]]
    return archive(target, PAUSE, entries, {"Entrypoint": [sleep, "infinity"], "User": f"{USER}:{USER}", "WorkingDir": "/"})


def qualified(name: str) -> str:
    """The name as the container runtime keeps it: a kubelet completes short names the same way."""
    first, _, rest = name.partition("/")
    if not rest:
        return f"docker.io/library/{name}"
    return name if "." in first or ":" in first or first == "localhost" else f"docker.io/{name}"


def base_spec(default: str) -> dict[str, Any]:
    """The runtime's default specification with the mounts. `default` is what `ctr oci spec` prints."""
    spec: dict[str, Any] = json.loads(default)
    # The default of 1024 is too low for training; above the host's own limit the runtime may not go.
    files = min(20_000, resource.getrlimit(resource.RLIMIT_NOFILE)[1])
    spec["process"]["rlimits"] = [{"type": "RLIMIT_NOFILE", "hard": files, "soft": files}]
    for place, source in _mounts().items():
        spec["mounts"].append({"destination": place, "type": "bind", "source": source, "options": ["rbind", "ro"]})
    return spec


def _mounts() -> dict[str, str]:
    """Place in the container -> place on the host."""
    own = {place: place for place in ("/usr", "/etc/alternatives", "/etc/ssl/certs") if Path(place).is_dir()}
    for prefix in {sys.base_prefix, str(Path(sys.base_prefix).resolve())}:
        if not prefix.startswith("/usr"):
            own[prefix] = prefix
    return {**own, VENV: sys.prefix, SOURCE: str(ROOT)}


def _root() -> Iterator[Entry]:
    """Folders first, each before what is in it."""
    folders = {"/tmp", "/work", "/etc", f"{HOME}/bin", "/proc", "/sys", "/dev", "/run", "/var/tmp", *_mounts()}
    parents = {str(parent) for folder in folders for parent in Path(folder).parents} - {"/"}
    for folder in sorted(folders | parents):
        yield Entry(folder.lstrip("/"), mode=0o1777 if folder in ("/tmp", "/work", "/var/tmp") else 0o755)
    for name in ("bin", "sbin", "lib", "lib32", "lib64"):
        if Path(f"/{name}").is_symlink():
            yield Entry(name, target=str(Path(f"/{name}").readlink()))
    yield from _accounts()
    yield Entry(f"{HOME}/bin/ehrmind".lstrip("/"), EHRMIND.encode())
    if Path("/etc/ld.so.cache").exists():
        yield Entry("etc/ld.so.cache", Path("/etc/ld.so.cache").read_bytes(), mode=0o644)


def _accounts() -> Iterator[Entry]:
    passwd = f"root:x:0:0:root:/root:/bin/sh\nehrmind:x:{USER}:{USER}:ehrmind:/work:/bin/sh\n"
    for name, text in (("passwd", passwd), ("group", f"root:x:0:\nehrmind:x:{USER}:\n"), ("nsswitch.conf", "hosts: files dns\n")):
        yield Entry(f"etc/{name}", text.encode(), mode=0o644)


def _layer(entries: Iterable[Entry]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for entry in entries:
            _add(tar, entry)
    return buffer.getvalue()


def _add(tar: tarfile.TarFile, entry: Entry) -> None:
    info = tarfile.TarInfo(entry.path)
    info.mode = entry.mode
    if entry.target:
        info.type, info.linkname = tarfile.SYMTYPE, entry.target
    elif entry.content is None:
        info.type = tarfile.DIRTYPE
    else:
        info.size = len(entry.content)
    tar.addfile(info, io.BytesIO(entry.content) if entry.content is not None else None)
