"""The images are really built, by buildah, on a stand-in for their base: an empty root with this machine's /usr and Python mounted.

What is tested is our part of the Containerfiles. The base itself cannot be pulled where there is no registry. `ehrmind` is built in CI; trainer
and rollout servers take gigabytes and many minutes: EHRMIND_FAULTS=1 builds them.
"""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

import ehrmind_k8s
from tests.cluster.harness.image import Entry, archive
from tests.conftest import ROOT, needs, needs_program

INDEX = os.environ.get("PIP_INDEX_URL") or "https://pypi.org/simple"
AUTHORITIES = Path("/etc/ssl/certs/ca-certificates.crt")
HOST = sorted({"/usr", "/etc/alternatives", "/etc/ssl/certs", sys.base_prefix, str(Path(sys.base_prefix).resolve())})


def reachable(url: str) -> bool:
    parts = urlsplit(url)
    try:
        socket.create_connection((parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)), timeout=5).close()
    except OSError:
        return False
    return True


class Buildah:
    """buildah with a store of its own, in which every step sees the host's folders."""

    def __init__(self, folder: Path) -> None:
        kind = subprocess.run(["stat", "-f", "-c", "%T", folder], capture_output=True, text=True).stdout.strip()
        driver = "vfs" if kind == "overlayfs" else "overlay"  # overlays cannot lie on overlays, as in a CI's container
        self._store = ("--storage-driver", driver, "--root", str(folder / "store"), "--runroot", str(folder / "run"))
        self._volumes = [word for place in HOST if Path(place).is_dir() for word in ("--volume", f"{place}:{place}:ro")]

    def __call__(self, *arguments: str, timeout: float = 500) -> str:
        done = subprocess.run(["buildah", *self._store, *arguments], capture_output=True, text=True, timeout=timeout, cwd=ROOT)
        assert done.returncode == 0, f"buildah {arguments[0]}: {done.stdout[-2000:]}{done.stderr[-2000:]}"
        return done.stdout.strip()

    def build(self, *arguments: str, timeout: float = 500) -> None:
        self("build", "--isolation", "chroot", *self._volumes, *arguments, ".", timeout=timeout)

    def run(self, container: str, *command: str) -> str:
        return self("run", "--isolation", "chroot", *self._volumes, container, "--", *command)


def base(target: Path) -> Path:
    """A root without anything: the places of what is mounted, and what a shell looks for."""
    folders = {"/tmp", "/etc", "/var/tmp", "/root", "/proc", "/sys", "/dev", "/run", *HOST}
    folders |= {str(parent) for folder in folders for parent in Path(folder).parents} - {"/"}
    entries = [Entry(folder.lstrip("/"), mode=0o1777 if folder.endswith("tmp") else 0o755) for folder in sorted(folders)]
    entries += [Entry(n, target=str(Path(f"/{n}").readlink())) for n in ("bin", "sbin", "lib", "lib64") if Path(f"/{n}").is_symlink()]
    entries += [Entry(f"etc/{name}", b"root:x:0:0:root:/root:/bin/sh\n" if name == "passwd" else b"root:x:0:\n") for name in ("passwd", "group")]
    # Nothing can be added to a /usr that is this machine's; what the Containerfiles ask for is there.
    entries.append(Entry("stand-in/apt-get", b"#!/bin/sh\nexit 0\n", mode=0o755))
    env = [f"PATH=/stand-in:{sys.base_prefix}/bin:/usr/local/bin:/usr/bin:/bin", f"SSL_CERT_FILE={AUTHORITIES}", f"PIP_CERT={AUTHORITIES}"]
    return archive(target, "ehrmind-base:test", entries, {"Env": env})


@pytest.fixture(scope="module")
def buildah(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Buildah]:
    """One that has the stand-in for the base."""
    needs_program("buildah", "apt-get install --no-install-recommends buildah")
    needs("root", "run as root: buildah mounts layers", there=os.geteuid() == 0)
    needs("a package index", f"connect this machine to {INDEX}", there=reachable(INDEX))
    folder = tmp_path_factory.mktemp("images")
    buildah = Buildah(folder)
    buildah("pull", "--quiet", f"docker-archive:{base(folder / 'base.tar')}")
    yield buildah
    buildah("rm", "--all")
    buildah("rmi", "--all", "--force")


def container(buildah: Buildah, name: str, timeout: float = 500) -> str:
    """A container of an image that is built for it."""
    arguments = ("--build-arg", "BASE=docker.io/library/ehrmind-base:test", "--build-arg", f"INDEX={INDEX}", "--pull-never")
    buildah.build(*arguments, "-f", f"components/images/Containerfile.{name}", "-t", f"{name}:built", timeout=timeout)
    return buildah("from", "--pull-never", f"{name}:built")


@pytest.fixture(scope="module")
def built(buildah: Buildah) -> tuple[Buildah, str]:
    """A container of the image `ehrmind`."""
    return buildah, container(buildah, "ehrmind")


@pytest.mark.slow
def test_the_image_runs_the_command_line_as_the_user_of_the_pods(built: tuple[Buildah, str]) -> None:
    buildah, container = built
    assert buildah.run(container, "ehrmind", "--version").endswith(ehrmind_k8s.__version__)
    assert "medcalc" in buildah.run(container, "ehrmind", "tasks")
    assert "EHRMindRun" in buildah.run(container, "python", "-m", "ehrmind_k8s.controller", "--help")
    user = "import getpass, os; print(os.getuid(), os.getgid(), getpass.getuser(), os.access('/opt/ehrmind', os.W_OK), os.access('.', os.W_OK))"
    assert buildah.run(container, "python", "-c", user) == "65532 65532 ehrmind False True"


@pytest.mark.slow
def test_everything_is_compiled_and_only_what_the_image_is_for_is_installed(built: tuple[Buildah, str]) -> None:
    buildah, container = built
    lacking = (
        "import pathlib; print([str(p) for d in ('/opt/venv/lib', '/opt/ehrmind') for p in pathlib.Path(d).rglob('*.py')"
        " if not list((p.parent / '__pycache__').glob(p.stem + '.*.pyc'))])"
    )
    assert buildah.run(container, "python", "-c", lacking) == "[]"
    names = "import importlib.metadata as m; print(sorted({d.metadata['Name'].lower() for d in m.distributions()}))"
    installed = buildah.run(container, "python", "-c", names)
    assert "'boto3'" in installed
    assert not [name for name in ("torch", "vllm", "pytest", "uv") if f"'{name}'" in installed]


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.skipif(os.environ.get("EHRMIND_FAULTS") != "1", reason="gigabytes and many minutes: EHRMIND_FAULTS=1 runs it")
@pytest.mark.parametrize(
    ("name", "module", "has", "lacks"),
    [
        ("trainer", "ehrmind_k8s.stages", ("torch", "trl"), ("vllm", "pytest")),
        ("rollout", "ehrmind_k8s.rollout.server", ("torch", "vllm"), ("trl", "pytest")),
    ],
)
def test_the_large_images_start_what_they_are_for(buildah: Buildah, name: str, module: str, has: tuple[str, ...], lacks: tuple[str, ...]) -> None:
    made = container(buildah, name, timeout=3000)
    assert "usage" in buildah.run(made, "python", "-m", module, "--help").lower()
    code = "import importlib.util as u, os, sys; print(os.getuid(), [n for n in sys.argv[1:] if u.find_spec(n)])"
    assert buildah.run(made, "python", "-c", code, *has, *lacks) == f"65532 {list(has)}"
