"""The cluster that the tests bring up themselves, and what only its owner can do: images, nodes, faults, processes of pods."""

import os
import signal
from collections.abc import Callable, Iterable
from pathlib import Path

from tests.cluster.harness import image, operators
from tests.cluster.harness.client import Cluster
from tests.cluster.harness.control_plane import PODS, ControlPlane
from tests.cluster.harness.node import Node
from tests.cluster.harness.s3 import S3Server
from tests.cluster.harness.space import Space
from tests.tools import build


class OwnCluster(Cluster):
    """Make it with `start`; it ends with `close`, or with this process, however that ends."""

    def __init__(self, space: Space) -> None:
        self.space = space
        self.control_plane = ControlPlane(space)
        self.s3_server = S3Server(space)
        self.nodes: dict[str, Node] = {}
        self.images: dict[str, Path] = {}
        super().__init__(self.control_plane.kubeconfig(), space.folder / "client", self.s3_server.access)

    @classmethod
    def start(cls) -> "OwnCluster":
        """A cluster of one node that is Ready, without a training operator (`install_training_operator`)."""
        cluster = cls(Space.claim())
        try:
            cluster._start()
        except BaseException:
            cluster.close()
            raise
        return cluster

    @property
    def host_address(self) -> str:
        """Where pods reach a server that a test runs on this machine (bind it to this address or to all)."""
        return self.space.host_address

    @property
    def address(self) -> str:
        """Where tests reach everything in the cluster that listens on its nodes."""
        return self.space.address

    def programs(self) -> Path:
        """A folder for a PATH, with the kubectl and helm that go with this cluster."""
        folder = self.space.folder / "bin"
        folder.mkdir(exist_ok=True)
        for name in ("kubectl", "helm"):
            (folder / name).unlink(missing_ok=True)
            (folder / name).symlink_to(build.path(name))
        return folder

    def _start(self) -> None:
        self.space.open()
        for name in ("client", "images"):
            (self.space.folder / name).mkdir()
        self.space.run("iptables", "-t", "nat", "-A", "POSTROUTING", "-s", PODS, "!", "-d", PODS, "-j", "MASQUERADE")
        self.control_plane.start()
        self.s3_server.start()
        node = self._node(1)
        node.start()
        self._make_images()
        self._load(node)
        self.control_plane.ready()
        node.start_kubelet()
        self.s3_server.wait()
        self.wait("node", node.name, "Ready")
        self.nodes[node.name] = node

    def close(self) -> None:
        self.space.close()

    # images

    def load_image(self, name: str, *, program: Path | None = None, archive: Path | None = None) -> None:
        """Give all nodes an image: one static program as `/manager`, or a docker-archive whose tag is `name`."""
        target = archive or self.space.folder / "images" / f"{len(self.images)}.tar"
        if program:
            image.of_program(target, name, program)
        self.images[name] = target
        for node in self.nodes.values():
            node.load_image(target)

    def _make_images(self) -> None:
        folder = self.space.folder / "images"
        self.images[image.PAUSE] = image.of_pause(folder / "pause.tar")
        for name in image.PROJECT_IMAGES:
            self.images[name] = image.of_project(folder / f"{name.partition(':')[0]}.tar", name)

    def _load(self, node: Node) -> None:
        self.control_plane.until(node.has_runtime, f"containerd-{node.name}")
        for archive in self.images.values():
            node.load_image(archive)

    # nodes

    def add_node(self) -> str:
        """Another node, Ready. Its name."""
        node = self._node(len(self.nodes) + 1)
        node.start()
        self._load(node)
        node.start_kubelet()
        self.wait("node", node.name, "Ready")
        self.nodes[node.name] = node
        return node.name

    def lose_node(self, name: str) -> None:
        """From one moment to the next: kubelet, containers and runtime. Kubernetes notices after about 45 s."""
        self.nodes[name].lose()

    def return_node(self, name: str) -> None:
        """The machine that was lost is switched on again."""
        node = self.nodes[name]
        node.start_containerd()
        self.control_plane.until(node.has_runtime, f"containerd-{name}")
        node.start_kubelet()

    def story(self, namespace: str) -> str:
        """What happened in a namespace; of what is in none, what the nodes' daemons said last."""
        if namespace:
            return super().story(namespace)
        return "\n".join(f"-- {daemon}\n{self.space.log(daemon)}" for daemon in self.space.daemons if daemon.startswith(("kubelet", "containerd")))

    def _node(self, number: int) -> Node:
        return Node(self.space, self.control_plane, number)

    # processes

    def stop(self, part: str) -> None:
        """SIGKILL a part: etcd, kube-apiserver, kube-controller-manager, kube-scheduler, kube-proxy, coredns, s3, containerd-n1, kubelet-n1."""
        self.space.kill(part)

    def start_again(self, part: str) -> None:
        """Start a part that was stopped, with what it had; returns when it serves, where one can ask it."""
        self._starts()[part]()
        if part == "kube-apiserver":
            self.control_plane.wait_for_api_server()
        if part == "s3":
            self.s3_server.wait()

    def restore(self) -> None:
        """Start whatever a test has stopped and not started again."""
        for part in self._starts():
            if part in self.space.daemons and not self.space.alive(part):
                self.start_again(part)

    def _starts(self) -> dict[str, Callable[[], None]]:
        """How each part is started, in the order of need."""
        plane = self.control_plane
        nodes = list(self.nodes.values())
        return {
            "etcd": plane.start_etcd,
            "kube-apiserver": plane.start_api_server,
            "kube-controller-manager": plane.start_controller_manager,
            "kube-scheduler": plane.start_scheduler,
            "kube-proxy": plane.start_proxy,
            "coredns": plane.start_dns,
            "s3": self.s3_server.start,
            **{f"containerd-{node.name}": node.start_containerd for node in nodes},
            **{f"kubelet-{node.name}": node.start_kubelet for node in nodes},
        }

    def cgroups(self, pod: str, *, namespace: str, container: str = "") -> list[Path]:
        """The cgroups of a container (of the first without a name) in every hierarchy, as this machine sees them."""
        status = self.get("pod", pod, namespace=namespace)
        statuses = [s for s in status["status"]["containerStatuses"] if container in ("", s["name"])]
        identity = statuses[0]["containerID"].rpartition("//")[2]
        return [found for root in self.space.cgroups() for found in root.rglob(identity)]

    def pids(self, pod: str, *, namespace: str, container: str = "") -> list[int]:
        """Processes of a container as this machine numbers them, its first process first."""
        group = self.cgroups(pod, namespace=namespace, container=container)[0]
        return sorted(int(pid) for pid in (group / "cgroup.procs").read_text().split())

    def kill_pod_processes(self, pod: str, *, namespace: str, container: str = "") -> None:
        """SIGKILL everything in a container, as the kernel or a broken machine does."""
        for pid in self.pids(pod, namespace=namespace, container=container):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue

    def starve(self, pod: str, *, namespace: str, container: str = "", spare_bytes: int = 4 << 20) -> None:
        """Let a container have hardly more memory than it holds now, so that its next larger allocation gets it OOM-killed."""
        for group in self.cgroups(pod, namespace=namespace, container=container):
            for limit, held in (("memory.max", "anon"), ("memory.limit_in_bytes", "rss")):  # cgroups v2, v1
                if (group / limit).exists():
                    figures = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
                    (group / limit).write_text(str(int(figures[held]) + spare_bytes))

    # what others install on a cluster

    def install_training_operator(self) -> None:
        """The real training operator (PyTorchJob v1), as its module's manifests install it; returns when it works. Once, however often called."""
        operators.training_operator(self)

    def uninstall_training_operator(self) -> None:
        """With its custom resources: the cluster serves no PyTorchJob afterwards."""
        operators.remove_training_operator(self)

    def install_jobset_trainer(self) -> None:
        """JobSet and Trainer v2 (TrainJob)."""
        operators.jobset_trainer(self)

    def install_kueue(self, frameworks: Iterable[str] = operators.KUEUE_FRAMEWORKS) -> None:
        """Kueue with these integrations. While it is away no job or pod can be made, so a test that stops it has a cluster of its own."""
        operators.kueue(self, frameworks)
