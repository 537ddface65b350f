"""Nodes that are not there: kwok makes their pods Running at once and, if told, ends them. For many runs, and for faults of the control plane.

A pod gets onto such a node with NODE_SELECTOR and TOLERATION (in a profile: `node_selector`, `tolerations`). What then happens to it is in its
annotations (in a profile: `pod_annotations`), all texts:

    finish.tests/after      "500ms": it ends so long after it ran; without it, it runs until it is deleted or `end` ends it
    finish.tests/exit-code  "0"
    finish.tests/message    its termination message

Its address leads nowhere: connections are refused at once.
"""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.cluster.harness.client import Cluster, Object
from tests.tools import build

if TYPE_CHECKING:
    from tests.cluster.harness.own import OwnCluster

PODS = "10.200.0.0/16"
NODE_SELECTOR = {"type": "simulated"}
TOLERATION = {"key": "simulated", "operator": "Exists", "effect": "NoSchedule"}
ANNOTATION = "finish.tests"
STAGES = ("node/fast/node-initialize", "node/heartbeat-with-lease/node-heartbeat-with-lease", "pod/fast/pod-ready", "pod/fast/pod-delete")


def start(cluster: "OwnCluster", nodes: int, stages: Iterable[Object] = ()) -> None:
    """`nodes` of them, Ready. `stages` are further rules (kwok's Stage objects)."""
    if "kwok" not in cluster.space.daemons:
        cluster.space.run("ip", "route", "add", "prohibit", PODS)
        config = cluster.folder / "kwok.yaml"
        texts = [(build.manifests("kwok") / "stage" / f"{name}.yaml").read_text() for name in STAGES]
        config.write_text("\n---\n".join([*texts, *map(json.dumps, [_finish(), *stages])]))
        _spawn(cluster, config)
    for number in range(nodes):
        cluster.apply(_node(f"simulated-{number}"))
    for number in range(nodes):
        cluster.wait("node", f"simulated-{number}", "Ready")


def end(cluster: Cluster, pod: str, *, namespace: str, exit_code: int = 0, message: str = "", reason: str = "") -> None:
    """End a simulated pod as its kubelet would report it: `reason` is `OOMKilled` and the like."""
    found = cluster.get("pod", pod, namespace=namespace)
    container = found["spec"]["containers"][0]
    state = {"exitCode": exit_code, "reason": reason or ("Error" if exit_code else "Completed"), "message": message}
    times = {name: found["status"]["startTime"] for name in ("startedAt", "finishedAt")}
    told = {"name": container["name"], "image": container["image"], "imageID": "", "ready": False, "restartCount": 0}
    status = {"phase": "Failed" if exit_code else "Succeeded", "containerStatuses": [{**told, "state": {"terminated": {**state, **times}}}]}
    cluster.kubectl("patch", "pod", pod, "--subresource=status", "--patch", json.dumps({"status": status}), namespace=namespace)


def _spawn(cluster: "OwnCluster", config: Path) -> None:
    cluster.space.spawn(
        "kwok",
        build.path("kwok"),
        f"--kubeconfig={cluster.kubeconfig}",
        f"--config={config}",
        "--manage-all-nodes=false",
        "--manage-nodes-with-label-selector=type=simulated",
        f"--cidr={PODS}",
        "--node-ip=10.200.255.1",
        "--node-lease-duration-seconds=40",
    )


def _node(name: str) -> Object:
    taint = {"key": "simulated", "value": "true", "effect": "NoSchedule"}
    labels = {**NODE_SELECTOR, "kubernetes.io/hostname": name}
    return {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": labels}, "spec": {"taints": [taint]}}


def _annotation(name: str) -> str:
    return f'index .metadata.annotations "{ANNOTATION}/{name}"'


def _finish() -> dict[str, Any]:
    """kwok's rule for pods with the annotations."""
    after = f'.metadata.annotations["{ANNOTATION}/after"]'
    status = f"""
{{{{ $now := Now }}}}{{{{ $root := . }}}}{{{{ $code := or ({_annotation("exit-code")}) "0" }}}}
containerStatuses:
{{{{ range .spec.containers }}}}
- image: {{{{ .image | Quote }}}}
  name: {{{{ .name | Quote }}}}
  ready: false
  started: false
  restartCount: 0
  state:
    terminated:
      exitCode: {{{{ $code }}}}
      reason: {{{{ if eq $code "0" }}}}Completed{{{{ else }}}}Error{{{{ end }}}}
      message: {{{{ or ({_annotation("message").replace(".metadata", "$root.metadata")}) "" | Quote }}}}
      startedAt: {{{{ $now | Quote }}}}
      finishedAt: {{{{ $now | Quote }}}}
{{{{ end }}}}
phase: {{{{ if eq $code "0" }}}}Succeeded{{{{ else }}}}Failed{{{{ end }}}}
"""
    return {
        "apiVersion": "kwok.x-k8s.io/v1alpha1",
        "kind": "Stage",
        "metadata": {"name": "pod-finish"},
        "spec": {
            "resourceRef": {"apiGroup": "v1", "kind": "Pod"},
            "selector": {
                "matchExpressions": [
                    {"key": ".metadata.deletionTimestamp", "operator": "DoesNotExist"},
                    {"key": ".status.phase", "operator": "In", "values": ["Running"]},
                    {"key": after, "operator": "Exists"},
                ]
            },
            "delay": {"durationMilliseconds": 0, "durationFrom": {"expressionFrom": after}},
            "next": {"statusTemplate": status},
        },
    }
