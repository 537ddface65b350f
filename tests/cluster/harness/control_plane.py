"""etcd, the API server, its controllers, the scheduler, kube-proxy and CoreDNS as processes of one space. Tokens, no client certificates."""

import json
import secrets
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import httpx

from tests.cluster.harness.space import Space
from tests.tools import build

SERVICES, PODS, DOMAIN = "10.96.0.0/16", "10.244.0.0/16", "cluster.local"
# Whom a token stands for -> the groups that its rights come from.
IDENTITIES = {
    "admin": "system:masters",
    "system:node:n1": "system:nodes",
    "system:node:n2": "system:nodes",
    "system:kube-controller-manager": "",
    "system:kube-scheduler": "",
    "system:kube-proxy": "",
}
START_S = 300


@dataclass
class ControlPlane:
    """Start it with `start`; `ready` waits until the API server serves and its kubeconfigs can be used."""

    space: Space

    @property
    def folder(self) -> Path:
        return self.space.folder / "control-plane"

    @property
    def url(self) -> str:
        return f"https://{self.space.address}:6443"

    @property
    def authority(self) -> Path:
        """The certificate that the API server made for itself, with the authority that signed it."""
        return self.folder / "certificates" / "apiserver.crt"

    def kubeconfig(self, identity: str = "admin") -> Path:
        return self.folder / f"{identity.rpartition(':')[2]}.kubeconfig"

    def start(self) -> None:
        self.folder.mkdir()
        self.tokens = {identity: secrets.token_hex(16) for identity in IDENTITIES}
        lines = [f'{token},{identity},{identity},"{IDENTITIES[identity]}"' for identity, token in self.tokens.items()]
        (self.folder / "tokens.csv").write_text("\n".join(lines) + "\n")
        subprocess.run(["openssl", "genrsa", "-out", self.folder / "service-accounts.key", "2048"], check=True, capture_output=True)
        self.start_etcd()
        self.start_api_server()

    def start_etcd(self) -> None:
        data = self.folder / "etcd"
        # Nothing here outlives the machine, so nothing need be on its disk.
        flags = ["--unsafe-no-fsync", "--listen-client-urls=http://127.0.0.1:2379", "--advertise-client-urls=http://127.0.0.1:2379"]
        peers = ["--listen-peer-urls=http://127.0.0.1:0", "--log-level=warn"]
        self.space.spawn("etcd", build.path("etcd"), f"--data-dir={data}", *flags, *peers)

    def start_api_server(self) -> None:
        key = self.folder / "service-accounts.key"
        self.space.spawn(
            "kube-apiserver",
            build.path("kube-apiserver"),
            "--etcd-servers=http://127.0.0.1:2379",
            f"--cert-dir={self.authority.parent}",
            "--secure-port=6443",
            f"--bind-address={self.space.address}",
            f"--advertise-address={self.space.address}",  # what pods are told: not loopback
            "--authorization-mode=Node,RBAC",
            f"--token-auth-file={self.folder / 'tokens.csv'}",
            f"--service-account-issuer=https://kubernetes.default.svc.{DOMAIN}",
            f"--service-account-key-file={key}",
            f"--service-account-signing-key-file={key}",
            f"--service-cluster-ip-range={SERVICES}",
            "--allow-privileged=true",
            "--kubelet-preferred-address-types=InternalIP",
        )

    def ready(self) -> None:
        """Wait for the API server; start what needs it."""
        self.wait_for_api_server()
        for identity in IDENTITIES:
            self._write_kubeconfig(identity)
        for start in (self.start_controller_manager, self.start_scheduler, self.start_proxy, self.start_dns):
            start()

    def wait_for_api_server(self) -> None:
        token = self.tokens["admin"]

        def answers() -> bool:
            try:
                return httpx.get(f"{self.url}/readyz", headers={"Authorization": f"Bearer {token}"}, verify=False, timeout=2).status_code == 200
            except httpx.TransportError:
                return False

        self.until(answers, "kube-apiserver")

    def until(self, there: Callable[[], bool], daemon: str) -> None:
        """Wait for `there`. Raises RuntimeError with the daemon's log when it ends before or takes too long."""
        deadline = time.monotonic() + START_S
        while not there():
            if not self.space.alive(daemon) or time.monotonic() > deadline:
                raise RuntimeError(f"{daemon} did not start:\n{self.space.log(daemon)}")
            time.sleep(0.05)

    def start_controller_manager(self) -> None:
        self.space.spawn(
            "kube-controller-manager",
            build.path("kube-controller-manager"),
            f"--kubeconfig={self.kubeconfig('system:kube-controller-manager')}",
            f"--service-account-private-key-file={self.folder / 'service-accounts.key'}",
            f"--root-ca-file={self.authority}",
            "--use-service-account-credentials",
            "--leader-elect=false",
            "--controllers=*,-nodeipam",
            "--allocate-node-cidrs=false",
        )

    def start_scheduler(self) -> None:
        config = self.kubeconfig("system:kube-scheduler")
        self.space.spawn("kube-scheduler", build.path("kube-scheduler"), f"--kubeconfig={config}", "--leader-elect=false")

    def start_proxy(self) -> None:
        """One for all nodes: they share the space's network."""
        config = {
            "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
            "kind": "KubeProxyConfiguration",
            "mode": "iptables",
            "clientConnection": {"kubeconfig": str(self.kubeconfig("system:kube-proxy"))},
            "clusterCIDR": PODS,
            "hostnameOverride": "n1",
            "conntrack": {"maxPerCore": 0, "min": 0},  # not ours to set in a network namespace
        }
        path = self.folder / "kube-proxy.json"
        path.write_text(json.dumps(config))
        self.space.spawn("kube-proxy", build.path("kube-proxy"), f"--config={path}")

    def start_dns(self) -> None:
        """Names of Services and pods, each to the moment. Nothing outside of the cluster has a name."""
        path = self.folder / "Corefile"
        path.write_text(
            f"{DOMAIN}:53 in-addr.arpa:53 {{\n  bind {self.space.address}\n  errors\n"
            f"  kubernetes {DOMAIN} in-addr.arpa {{\n    kubeconfig {self.kubeconfig()}\n    pods insecure\n    ttl 1\n  }}\n}}\n"
        )
        self.space.spawn("coredns", build.path("coredns"), "-conf", path)

    def _write_kubeconfig(self, identity: str) -> None:
        self.kubeconfig(identity).write_text(json.dumps(self.kubeconfig_of({"token": self.tokens[identity]}), indent=1))

    def kubeconfig_of(self, user: Mapping[str, str]) -> dict[str, object]:
        return {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "test", "cluster": {"server": self.url, "certificate-authority": str(self.authority)}}],
            "users": [{"name": "test", "user": dict(user)}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test", "namespace": "default"}}],
            "current-context": "test",
        }
