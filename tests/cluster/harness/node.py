"""A node: one containerd and one kubelet with folders, sockets, ports, bridge and cgroup of their own, so that several fit in one space."""

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path

from tests.cluster.harness import image
from tests.cluster.harness.control_plane import DOMAIN, ControlPlane
from tests.cluster.harness.space import Space, make_cgroup
from tests.tools import build

CNI_PROGRAMS = (Path("/usr/lib/cni"), Path("/opt/cni/bin"))


@dataclass
class Node:
    """Node number 1 is `n1`. `lose` and `start_kubelet` after it are a machine that dies and comes back."""

    space: Space
    control_plane: ControlPlane
    number: int

    @property
    def name(self) -> str:
        return f"n{self.number}"

    @property
    def folder(self) -> Path:
        return self.space.folder / self.name

    @property
    def socket(self) -> str:
        return f"/run/{self.name}/containerd.sock"

    @property
    def pod_logs(self) -> Path:
        """What its containers write, as `<namespace>_<pod>_<uid>/<container>/<n>.log`, until their pods are gone."""
        return self.folder / "logs"

    def start(self) -> None:
        """Start containerd, then the kubelet, which waits for it and for the API server."""
        for name in ("cni", "kubelet", "logs"):
            (self.folder / name).mkdir(parents=True)
        self._write_network()
        self._write_runtime()
        for path in self.space.cgroups():
            make_cgroup(path / self.name)
        self.start_containerd()

    def start_containerd(self) -> None:
        self.space.spawn(f"containerd-{self.name}", "containerd", "--config", self.folder / "containerd.toml")

    def start_kubelet(self) -> None:
        shift = 10 * (self.number - 1)
        config = {
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            # Only this space can reach it.
            "authentication": {"anonymous": {"enabled": True}, "webhook": {"enabled": False}},
            "authorization": {"mode": "AlwaysAllow"},
            "containerRuntimeEndpoint": f"unix://{self.socket}",
            "cgroupDriver": "cgroupfs",
            "cgroupRoot": f"/{self.space.cgroup}/{self.name}",
            "clusterDNS": [self.space.address],
            "clusterDomain": DOMAIN,
            "resolvConf": str(self.folder / "resolv.conf"),
            "podLogsDir": str(self.pod_logs),
            "port": 10250 + shift,
            "healthzPort": 10248 + shift,
            "failSwapOn": False,
            "oomScoreAdj": 0,  # lowering it needs a capability that a container of CI may lack
            "maxOpenFiles": 20_000,
            "evictionHard": {"memory.available": "100Mi", "nodefs.available": "1%", "nodefs.inodesFree": "1%", "imagefs.available": "1%"},
            "serializeImagePulls": False,
        }
        (self.folder / "resolv.conf").write_text("# no names but the cluster's\n")
        (self.folder / "kubelet.json").write_text(json.dumps(config))
        self.space.spawn(
            f"kubelet-{self.name}",
            build.path("kubelet"),
            f"--config={self.folder / 'kubelet.json'}",
            f"--kubeconfig={self.control_plane.kubeconfig(f'system:node:{self.name}')}",
            f"--root-dir={self.folder / 'kubelet'}",
            f"--cert-dir={self.folder / 'kubelet' / 'pki'}",
            f"--hostname-override={self.name}",
            f"--node-ip={self.space.address}",
            again=True,  # it ends when its runtime does not answer yet
        )

    def has_runtime(self) -> bool:
        """Whether containerd answers."""
        return subprocess.run(self.space.enter("ctr", "--address", self.socket, "version"), capture_output=True).returncode == 0

    def ctr(self, *arguments: str | Path) -> str:
        return self.space.run("ctr", "--address", self.socket, "--namespace", "k8s.io", *arguments)

    def load_image(self, archive: Path) -> None:
        self.ctr("images", "import", "--snapshotter", _snapshotter(self.folder), archive)

    def lose(self) -> None:
        """The machine is gone from one moment to the next: its kubelet, its containers, its runtime."""
        self.space.kill(f"kubelet-{self.name}")
        for line in self.ctr("tasks", "ls", "--quiet").split():
            self.ctr("tasks", "kill", "--signal", "SIGKILL", line)
        self.space.kill(f"containerd-{self.name}")

    def _write_network(self) -> None:
        pods = f"10.244.{self.number}.0/24"
        bridge = {
            "type": "bridge",
            "bridge": f"cni-{self.name}",
            "isGateway": True,
            "ipMasq": False,  # the space does it, for what leaves all nodes
            "hairpinMode": True,
            "ipam": {
                "type": "host-local",
                "ranges": [[{"subnet": pods}]],
                "routes": [{"dst": "0.0.0.0/0"}],
                "dataDir": str(self.folder / "addresses"),
            },
        }
        plugins = [bridge, {"type": "portmap", "capabilities": {"portMappings": True}}]
        text = json.dumps({"cniVersion": "0.4.0", "name": f"pods-{self.name}", "plugins": plugins})
        (self.folder / "cni" / "10-bridge.conflist").write_text(text)

    def _write_runtime(self) -> None:
        base = self.folder / "base-spec.json"
        base.write_text(json.dumps(image.base_spec(self.space.run("ctr", "oci", "spec"))))
        programs = next((folder for folder in CNI_PROGRAMS if (folder / "bridge").exists()), CNI_PROGRAMS[0])
        cri = 'plugins."io.containerd.grpc.v1.cri"'
        (self.folder / "containerd.toml").write_text(
            f"""version = 2
root = "{self.folder}/containerd"
state = "/run/{self.name}/containerd"
[grpc]
address = "{self.socket}"
[ttrpc]
address = "{self.socket}.ttrpc"
[plugins."io.containerd.internal.v1.opt"]
path = "{self.folder}/opt"
[{cri}]
sandbox_image = "{image.qualified(image.PAUSE)}"
# Sandboxes ask for a score below this process's own, which takes a capability that a container of CI may lack.
restrict_oom_score_adj = true
[{cri}.containerd]
snapshotter = "{_snapshotter(self.folder)}"
[{cri}.containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
base_runtime_spec = "{base}"
[{cri}.cni]
bin_dir = "{programs}"
conf_dir = "{self.folder}/cni"
"""
        )


def _snapshotter(folder: Path) -> str:
    """Copies of whole images where the folder is itself on an overlay (a container): slower, but images are small."""
    mounts = sorted((line.split()[1:3] for line in Path("/proc/self/mounts").read_text().splitlines()), key=lambda m: -len(m[0]))
    kind = next(kind for place, kind in mounts if f"{folder}/".startswith(f"{place.rstrip('/')}/"))
    return "native" if kind == "overlay" else "overlayfs"
