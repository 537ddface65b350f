"""What a machine must have to bring up a cluster, each with the way to get it."""

import os
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass

from tests.cluster.harness.node import CNI_PROGRAMS
from tests.tools import build

PACKAGES = "containerd runc containernetworking-plugins iptables iproute2 conntrack util-linux openssl"
INSTALL = f"apt-get install --no-install-recommends {PACKAGES}"
PROGRAMS = ("containerd", "ctr", "runc", "iptables", "ip", "unshare", "nsenter", "openssl")


@dataclass(frozen=True)
class Missing:
    """`how`: what a person can do about it."""

    part: str
    how: str


def missing(group: str = "cluster") -> Iterator[Missing]:
    """What this machine lacks for the cluster, or for one of `build.GROUPS` on it."""
    if sys.platform != "linux":
        yield Missing("Linux", "point KUBECONFIG_TEST at a cluster instead")
    elif os.geteuid() != 0:
        yield Missing("root", "run as root, or point KUBECONFIG_TEST at a cluster instead")
    path = f"{os.environ.get('PATH', '')}:/usr/local/sbin:/usr/sbin:/sbin"
    for program in PROGRAMS:
        if shutil.which(program, path=path) is None:
            yield Missing(program, INSTALL)
    if not any((folder / "bridge").exists() for folder in CNI_PROGRAMS):
        yield Missing("the CNI plugins", INSTALL)
    for name in build.missing(build.GROUPS[group]):
        how = "python -m tests.tools.build" if group == "cluster" else f"python -m tests.tools.build {group}"
        yield Missing(f"{name} {build.TOOLS[name].version}", build.GET_GO if not shutil.which("go") else how)
