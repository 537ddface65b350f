"""The programs that tests run, each built once from its pinned Go module and kept in a cache keyed by its version.

    python -m tests.tools.build [NAME...]       build what is missing and print where each is

A NAME is a program or one of GROUPS; without any, `default` are built (about 12 minutes on 2 cores, once). The cache is
EHRMIND_TEST_TOOLS, else ~/.cache/ehrmind/test-tools. A folder here is a wrapper module: go.mod, go.sum and tools.go pin and checksum
what its programs are made of (`go mod tidy` writes the first two). A new version is one line in its go.mod.
"""

import contextlib
import fcntl
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

HERE = Path(__file__).resolve().parent
CACHE = Path(os.environ.get("EHRMIND_TEST_TOOLS") or Path.home() / ".cache" / "ehrmind" / "test-tools")
GET_GO = "install Go 1.26 or newer and run: python -m tests.tools.build"


@dataclass(frozen=True)
class Tool:
    """One program: the wrapper module that pins it (a folder here), its package, and what the linker is told (`{version}` is filled in)."""

    wrapper: str
    package: str
    ldflags: str = ""
    module: str = ""  # whose version counts, when the package is our own
    manifests: str = ""  # a folder of the module to keep beside the program: how it is installed on a cluster

    @property
    def required(self) -> tuple[str, str]:
        """The module that holds the package, and the version that the wrapper's go.mod requires of it."""
        required = re.findall(r"^(?:require )?\s*(\S+) (v\S+)", (HERE / self.wrapper / "go.mod").read_text(), re.MULTILINE)
        return max((r for r in required if f"{self.module or self.package}/".startswith(f"{r[0]}/")), key=lambda r: len(r[0]))

    @property
    def version(self) -> str:
        return self.required[1]

    @property
    def program(self) -> str:
        """What `go build` calls it: the last part of its package, but for a major version."""
        parts = self.package.split("/")
        return parts[-2] if re.fullmatch(r"v\d+", parts[-1]) else parts[-1]

    @property
    def link(self) -> str:
        return f"-s -w {self.ldflags}".strip().format(version=self.version)


def _kubernetes(program: str) -> Tool:
    # Without these the server calls itself v0.0.0-master+$Format:%H$, which Kueue cannot read.
    stamp = "-X k8s.io/component-base/version.gitVersion={version} -X k8s.io/component-base/version.gitMajor=1"
    return Tool("kubernetes", f"k8s.io/kubernetes/cmd/{program}", f"{stamp} -X k8s.io/component-base/version.gitMinor=34")


# As in its own Makefile: otherwise `helm template` takes every cluster for Kubernetes 1.20. The minor version is that of its client-go.
HELM_STAMP = "-X helm.sh/helm/v3/pkg/chartutil.k8sVersionMinor=37 -X helm.sh/helm/v3/internal/version.version={version}"
CONTROL_PLANE = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet", "kube-proxy", "kubectl", "coredns")
GROUPS = {
    "cluster": (*CONTROL_PLANE, "training-operator", "versitygw"),
    "simulated": ("kwok",),
    "trainjob": ("jobset", "trainer"),
    "kueue": ("kueue",),
}
ANYWHERE = ("versitygw", "kubectl", "helm")  # the others serve only who may bring up a cluster: root on Linux
TOOLS = {
    "versitygw": Tool("versitygw", "github.com/versity/versitygw/cmd/versitygw"),
    "etcd": Tool("kubernetes", "go.etcd.io/etcd/server/v3"),
    **{name: _kubernetes(name) for name in CONTROL_PLANE if name.startswith("kube")},
    "coredns": Tool("coredns", "ehrmind.dev/tests/tools/coredns", module="github.com/coredns/coredns"),
    "training-operator": Tool("training-operator", "github.com/kubeflow/training-operator/cmd/training-operator.v1", manifests="manifests"),
    "helm": Tool("helm", "helm.sh/helm/v3/cmd/helm", HELM_STAMP),
    "kwok": Tool("kwok", "sigs.k8s.io/kwok/cmd/kwok", manifests="kustomize"),
    "jobset": Tool("trainjob", "sigs.k8s.io/jobset", manifests="config"),
    "trainer": Tool("trainjob", "github.com/kubeflow/trainer/v2/cmd/trainer-controller-manager", manifests="manifests"),
    "kueue": Tool("kueue", "sigs.k8s.io/kueue/cmd/kueue", manifests="config"),
}


def path(name: str) -> Path:
    """Where the program is, or will be once it is built."""
    return CACHE / f"{name}-{TOOLS[name].version}"


def manifests(name: str) -> Path:
    """The folder with the manifests that came with the program."""
    return CACHE / f"{name}-{TOOLS[name].version}-manifests"


def available(name: str) -> bool:
    """Whether the program is built, or can be."""
    return path(name).exists() or shutil.which("go") is not None


def missing(names: Iterable[str]) -> list[str]:
    """Those that are not built yet."""
    return [name for name in names if not path(name).exists()]


def build(name: str) -> Path:
    """The program, built if this version of it is not in the cache yet. Processes that ask at once build it once."""
    build_all([name])
    return path(name)


def build_all(names: Sequence[str]) -> None:
    """Build those that are missing; programs of one wrapper module together, since they share most of their code.

    Raises:
        RuntimeError: if one cannot be built. Those before it are in the cache.
    """
    CACHE.mkdir(parents=True, exist_ok=True)
    wrapper = {name: TOOLS[name].wrapper for name in names}
    for folder, group in groupby(sorted(names, key=lambda name: wrapper[name]), key=lambda name: wrapper[name]):
        with (CACHE / f"{folder}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            # One command per set of linker flags.
            for _, alike in groupby(sorted(missing(group), key=lambda name: TOOLS[name].link), key=lambda name: TOOLS[name].link):
                _build(list(alike))


def _build(names: list[str]) -> None:
    tools = [TOOLS[name] for name in names]
    with tempfile.TemporaryDirectory(dir=CACHE, prefix="building-") as aside:
        _go(tools[0], "build", "-trimpath", "-ldflags", tools[0].link, "-o", f"{aside}/", *(tool.package for tool in tools))
        for name, tool in zip(names, tools, strict=True):
            if tool.manifests:
                _keep_manifests(name, tool)
            (Path(aside) / tool.program).replace(path(name))


def _keep_manifests(name: str, tool: Tool) -> None:
    source = _go(tool, "list", "-m", "-f", "{{.Dir}}", tool.required[0]).strip()
    shutil.rmtree(manifests(name), ignore_errors=True)
    shutil.copytree(Path(source) / tool.manifests, manifests(name), copy_function=shutil.copyfile)
    for folder in (manifests(name), *manifests(name).rglob("*/")):  # a module's folders are read-only
        folder.chmod(0o755)


def _go(tool: Tool, *arguments: str) -> str:
    done = subprocess.run(["go", *arguments], cwd=HERE / tool.wrapper, env={**os.environ, "CGO_ENABLED": "0"}, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"go {' '.join(arguments)} in {HERE / tool.wrapper} failed:\n{done.stderr[-2000:]}")
    return done.stdout


def _named(words: Sequence[str]) -> Iterator[str]:
    for word in words:
        if word not in GROUPS and word not in TOOLS:
            raise SystemExit(f"{word} is unknown; programs: {', '.join(TOOLS)}; groups: {', '.join(GROUPS)}")
        yield from GROUPS.get(word, (word,))


def default() -> tuple[str, ...]:
    """What `make test` wants on this machine."""
    mine = sys.platform == "linux" and os.geteuid() == 0
    return (*ANYWHERE, *GROUPS["cluster"], *GROUPS["simulated"]) if mine else ANYWHERE


def main(words: Sequence[str]) -> int:
    """Build one wrapper module after the other: what can be built is, whatever else fails."""
    names, failed = dict.fromkeys(_named(words or default())), 0
    for _, group in groupby(sorted(names, key=lambda name: TOOLS[name].wrapper), key=lambda name: TOOLS[name].wrapper):
        alike, began = list(group), time.monotonic()
        new = missing(alike)
        try:
            build_all(alike)
        except RuntimeError as e:
            failed = 1
            print(f"error: {', '.join(new)} cannot be built: {e}", file=sys.stderr)
            continue
        for name in alike:
            print(path(name), f"(built in {time.monotonic() - began:.0f} s)" if name in new else "", flush=True)
    return failed


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        sys.exit(main(sys.argv[1:]))
