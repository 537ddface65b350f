"""What other projects install on a cluster, from the manifests of their own pinned modules.

Changed in each Deployment: its image (one program), its CPU request (none), its node (the first, so that losing another one takes none of
them along), and how soon its readiness is asked for. Calling an installer again changes nothing.
"""

import json
import os
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import yaml

from tests.tools import build

if TYPE_CHECKING:
    from tests.cluster.harness.own import OwnCluster

# Not `pod` and `deployment`, which Kueue would also take: their webhook then stands before every pod of the cluster.
KUEUE_FRAMEWORKS = ("batch/job", "kubeflow.org/pytorchjob", "trainer.kubeflow.org/trainjob")
START_S = 300


def training_operator(cluster: "OwnCluster") -> None:
    """PyTorchJob v1."""
    _install(cluster, "training-operator", ["overlays/standalone"])
    _available(cluster, "training-operator", "kubeflow")


def remove_training_operator(cluster: "OwnCluster") -> None:
    """With its CRDs, so with all PyTorchJobs."""
    given = _render(cluster, "training-operator", ["overlays/standalone"])
    cluster.kubectl("delete", "--ignore-not-found", "--filename=-", given=given, timeout_s=START_S)


def jobset_trainer(cluster: "OwnCluster") -> None:
    """TrainJob v2. Trainer's own overlay fetches JobSet's release from the network; ours names the same parts and takes JobSet from its module."""
    _install(cluster, "jobset", ["default"])
    namespace = "kubeflow-system"
    cluster.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}})
    plain = {"disableNameSuffixHash": True}
    _install(
        cluster,
        "trainer",
        [f"base/{part}" for part in ("crds", "manager", "rbac", "webhook")],
        namespace=namespace,
        secretGenerator=[{"name": "kubeflow-trainer-webhook-cert", "options": plain}],
        configMapGenerator=[
            {"name": "kubeflow-trainer-public", "literals": [f"kubeflow_trainer_version={build.TOOLS['trainer'].version}"], "options": plain}
        ],
    )
    _available(cluster, "jobset-controller-manager", "jobset-system")
    _available(cluster, "kubeflow-trainer-controller-manager", namespace)


def kueue(cluster: "OwnCluster", frameworks: Iterable[str]) -> None:
    """Queues. Its two APIServices stay away: they would make every `kubectl api-resources` wait for it."""
    path = build.manifests("kueue") / "components" / "manager" / "controller_manager_config.yaml"
    config = {**yaml.safe_load(path.read_text()), "integrations": {"frameworks": list(frameworks)}}
    replaced = [{"op": "replace", "path": "/data/controller_manager_config.yaml", "value": yaml.safe_dump(config)}]
    gone = {"apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService", "metadata": {"name": "any"}, "$patch": "delete"}
    _install(
        cluster,
        "kueue",
        ["default"],
        patches=[
            {"target": {"kind": "ConfigMap", "name": ".*manager-config"}, "patch": json.dumps(replaced)},
            {"target": {"kind": "APIService"}, "patch": json.dumps(gone)},
        ],
    )
    _available(cluster, "kueue-controller-manager", "kueue-system")


def _install(cluster: "OwnCluster", program: str, bases: Iterable[str], **more: Any) -> None:
    if _image(program) not in cluster.images:
        cluster.load_image(_image(program), program=build.path(program))
    # An earlier apply may have met a webhook that was not up yet: ours wins over whom it made an owner.
    given = _render(cluster, program, bases, **more)
    cluster.kubectl("apply", "--server-side", "--force-conflicts", "--filename=-", given=given)


def _render(cluster: "OwnCluster", program: str, bases: Iterable[str], patches: Iterable[Mapping[str, Any]] = (), **more: Any) -> str:
    folder = cluster.folder / "kustomize" / program
    folder.mkdir(parents=True, exist_ok=True)
    kustomization = {
        "resources": [os.path.relpath(build.manifests(program) / base, folder) for base in bases],
        "patches": [{"target": {"kind": "Deployment"}, "patch": json.dumps(_deployment(program))}, *patches],
        **more,
    }
    (folder / "kustomization.yaml").write_text(yaml.safe_dump(kustomization))
    return cluster.kubectl("kustomize", folder)


def _deployment(program: str) -> list[dict[str, Any]]:
    container = "/spec/template/spec/containers/0"
    return [
        {"op": "add", "path": f"{container}/image", "value": _image(program)},
        {"op": "add", "path": f"{container}/imagePullPolicy", "value": "Never"},
        {"op": "add", "path": f"{container}/resources", "value": {}},
        {"op": "add", "path": f"{container}/readinessProbe/initialDelaySeconds", "value": 1},
        {"op": "add", "path": f"{container}/readinessProbe/periodSeconds", "value": 1},
        {"op": "add", "path": "/spec/template/spec/nodeSelector", "value": {"kubernetes.io/hostname": "n1"}},
    ]


def _image(program: str) -> str:
    return f"{program}:test"


def _available(cluster: "OwnCluster", deployment: str, namespace: str) -> None:
    cluster.wait("deployment", deployment, "Available", namespace=namespace, timeout_s=START_S)
