"""The cluster itself holds what all other tests here build on: pods that run our code, training jobs, names, the store, rights."""

import json

import pytest

from ehrmind_k8s import storage
from tests.cluster import pods
from tests.cluster.harness.client import Cluster, CommandFailed
from tests.cluster.harness.image import PROJECT_IMAGES
from tests.cluster.harness.s3 import S3Access

ALL_REDUCE = ("python", "-m", "torch.distributed.run", "-m", "tests.cluster.payloads.all_reduce")


@pytest.mark.parametrize("image", PROJECT_IMAGES)
def test_each_image_runs_our_package_as_a_restricted_pod(cluster: Cluster, namespace: str, image: str) -> None:
    code = "import ehrmind_k8s, os; print(os.getuid(), ehrmind_k8s.__version__)"
    cluster.apply(pods.job("import", "python", "-c", code, image=image), namespace=namespace)
    cluster.wait("job", "import", "Complete", namespace=namespace)
    uid, version = cluster.kubectl("logs", "job/import", namespace=namespace).split()
    assert (uid, version) == ("65532", __import__("ehrmind_k8s").__version__)


def test_the_command_line_is_on_the_path_of_the_image(cluster: Cluster, namespace: str) -> None:
    cluster.apply(pods.job("cli", "sh", "-c", "ehrmind --version && touch /work/a /tmp/a && ! touch /a"), namespace=namespace)
    cluster.wait("job", "cli", "Complete", namespace=namespace)


def test_two_workers_of_a_pytorch_job_meet(cluster: Cluster, namespace: str, training_operator: None) -> None:
    cluster.apply(pods.pytorch_job("pair", 2, *ALL_REDUCE), namespace=namespace)
    cluster.wait("pytorchjob", "pair", "Succeeded", namespace=namespace, timeout_s=300)
    assert "rank 1 of 2: 3" in cluster.kubectl("logs", "pair-worker-1", namespace=namespace)


def test_a_pod_reads_from_the_store_what_the_test_wrote(
    cluster: Cluster, namespace: str, cluster_s3: S3Access, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in cluster_s3.environment.items():
        monkeypatch.setenv(name, value)
    uri = f"s3://{cluster_s3.bucket}/{namespace}"
    storage.open(uri).put_bytes("greeting", b"from the test")
    command = ("python", "-m", "tests.cluster.payloads.read_object", f"{uri}/greeting")
    cluster.apply(pods.job("read", *command, env=cluster_s3.environment), namespace=namespace)
    cluster.wait("job", "read", "Complete", namespace=namespace)
    assert cluster.kubectl("logs", "job/read", namespace=namespace).strip() == "from the test"


def test_a_headless_service_names_its_pods_before_they_are_ready(cluster: Cluster, namespace: str) -> None:
    server = pods.pod("server", "python", "-m", "http.server", "8000", "--directory", "/tmp")
    server["spec"]["containers"][0]["readinessProbe"] = {"httpGet": {"port": 8000, "path": "/missing"}}
    spec = {"clusterIP": "None", "selector": {"app": "server"}, "ports": [{"port": 8000}], "publishNotReadyAddresses": True}
    cluster.apply(server, {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "rollout"}, "spec": spec}, namespace=namespace)
    address = cluster.wait("pod", "server", lambda p: p["status"].get("podIP"), namespace=namespace)["status"]["podIP"]
    ask = "import socket, time\nfor _ in range(100):\n try: print(socket.gethostbyname('rollout')); break\n except OSError: time.sleep(0.1)"
    cluster.apply(pods.job("ask", "python", "-c", ask), namespace=namespace)
    cluster.wait("job", "ask", "Complete", namespace=namespace)
    assert cluster.kubectl("logs", "job/ask", namespace=namespace).strip() == address


def test_a_service_leads_to_its_pod(cluster: Cluster, namespace: str) -> None:
    server = pods.pod("server", "python", "-m", "http.server", "8000", "--directory", f"{pods.SOURCE}/tests/cluster/payloads")
    server["spec"]["containers"][0]["readinessProbe"] = {"httpGet": {"port": 8000, "path": "/"}, "periodSeconds": 1}
    spec = {"selector": {"app": "server"}, "ports": [{"port": 80, "targetPort": 8000}]}
    cluster.apply(server, {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "files"}, "spec": spec}, namespace=namespace)
    cluster.wait("pod", "server", "Ready", namespace=namespace)
    # The proxy learns of a ready pod some time after the API server does: asked again until then, as a client would.
    code = (
        "import time, urllib.request as u\nfor _ in range(100):\n"
        " try: print(u.urlopen('http://files/all_reduce.py', timeout=5).status); break\n except OSError: time.sleep(0.1)"
    )
    cluster.apply(pods.job("get", "python", "-c", code), namespace=namespace)
    cluster.wait("job", "get", "Complete", namespace=namespace)
    assert cluster.kubectl("logs", "job/get", namespace=namespace).strip() == "200"


def test_a_namespace_of_a_test_refuses_a_pod_that_is_not_restricted(cluster: Cluster, namespace: str) -> None:
    bold = pods.pod("bold", "true")
    bold["spec"]["hostNetwork"] = True
    with pytest.raises(CommandFailed, match="violates PodSecurity"):
        cluster.apply(bold, namespace=namespace)


def test_rights_are_checked(cluster: Cluster, namespace: str) -> None:
    kubeconfig = cluster.kubeconfig_of("default", namespace=namespace)
    with pytest.raises(CommandFailed, match="forbidden"):
        cluster.kubectl("get", "pods", namespace=namespace, kubeconfig=kubeconfig)


def test_a_wait_that_fails_tells_what_happened(cluster: Cluster, namespace: str) -> None:
    cluster.apply(pods.pod("stuck", "true", image="nowhere.invalid/none:1"), namespace=namespace)
    with pytest.raises(AssertionError, match=r"(?s)pod/stuck is not Ready.*Pending.*stuck"):
        cluster.wait("pod", "stuck", "Ready", namespace=namespace, timeout_s=3)


def test_kubectl_says_what_the_version_is(cluster: Cluster) -> None:
    version = json.loads(cluster.kubectl("version", "--output=json"))
    assert version["serverVersion"]["gitVersion"].startswith("v1.")
