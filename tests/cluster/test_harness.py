"""What only the owner of a cluster can do to it: lose nodes, stop parts, kill and starve pods; and that a killed session leaves nothing."""

import http.server
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from ehrmind_k8s.storage import s3_client
from tests.cluster import pods
from tests.cluster.harness import requirements, space
from tests.cluster.harness import simulated as simulated_nodes
from tests.cluster.harness.client import Object
from tests.cluster.harness.own import OwnCluster
from tests.cluster.test_cluster import ALL_REDUCE
from tests.conftest import ROOT
from tests.tools import build

SLEEP = ("python", "-c", "import time; time.sleep(600)")
LEFT_BEHIND = """
import time
from tests.cluster.harness.space import Space
held = Space.claim()
held.open()
held.spawn("sleep", "sleep", "600")
print(held.number, held.pid("sleep"), flush=True)
time.sleep(600)
"""


def terminated(pod: Object) -> Object:
    return next((s["state"]["terminated"] for s in pod["status"].get("containerStatuses", ()) if "terminated" in s["state"]), {})


def running(own_cluster: OwnCluster, namespace: str, **more: Any) -> None:
    own_cluster.apply(pods.pod("victim", *SLEEP, **more), namespace=namespace)
    own_cluster.wait("pod", "victim", "Ready", namespace=namespace)


def test_workers_on_two_nodes_meet(own_cluster: OwnCluster, namespace: str, second_node: str, training_operator: None) -> None:
    own_cluster.apply(pods.pytorch_job("far", 2, *ALL_REDUCE, spread=True), namespace=namespace)
    own_cluster.wait("pytorchjob", "far", "Succeeded", namespace=namespace, timeout_s=300)
    assert {pod["spec"]["nodeName"] for pod in own_cluster.items("pods", namespace=namespace)} == {"n1", second_node}


@pytest.mark.slow
def test_a_lost_node_is_noticed_and_comes_back(own_cluster: OwnCluster, namespace: str, second_node: str) -> None:
    running(own_cluster, namespace, node_selector={"kubernetes.io/hostname": second_node})
    own_cluster.lose_node(second_node)
    own_cluster.wait(
        "node", second_node, lambda n: any(t["key"] == "node.kubernetes.io/unreachable" for t in n["spec"].get("taints", ())), timeout_s=120
    )
    own_cluster.return_node(second_node)
    own_cluster.wait("node", second_node, "Ready")
    own_cluster.wait("pod", "victim", terminated, namespace=namespace)


def test_a_kubelet_that_ends_of_itself_is_started_again(own_cluster: OwnCluster, namespace: str, second_node: str) -> None:
    node = own_cluster.nodes[second_node]
    kubelet = f"kubelet-{second_node}"
    node.lose()
    node.start_kubelet()  # in vain before its runtime
    own_cluster.control_plane.until(lambda: "failed to run Kubelet" in own_cluster.space.log(kubelet), kubelet)
    node.start_containerd()
    running(own_cluster, namespace, node_selector={"kubernetes.io/hostname": second_node})


def test_an_api_server_that_was_killed_comes_back_with_what_it_had(own_cluster: OwnCluster, namespace: str) -> None:
    own_cluster.kubectl("create", "configmap", "kept", namespace=namespace)
    own_cluster.stop("kube-apiserver")
    own_cluster.stop("etcd")
    assert not own_cluster.space.alive("kube-apiserver")
    own_cluster.start_again("etcd")
    own_cluster.start_again("kube-apiserver")
    assert own_cluster.exists("configmap", "kept", namespace=namespace)


def test_a_store_that_was_stopped_comes_back_with_what_it_had(own_cluster: OwnCluster) -> None:
    assert own_cluster.s3
    client = s3_client.connect(own_cluster.s3.settings)
    client.put_object(Bucket=own_cluster.s3.bucket, Key="kept", Body=b"data")
    own_cluster.stop("s3")
    own_cluster.start_again("s3")
    assert client.get_object(Bucket=own_cluster.s3.bucket, Key="kept")["Body"].read() == b"data"


def test_processes_of_a_pod_can_be_killed_from_here(own_cluster: OwnCluster, namespace: str) -> None:
    running(own_cluster, namespace)
    own_cluster.kill_pod_processes("victim", namespace=namespace)
    assert terminated(own_cluster.wait("pod", "victim", terminated, namespace=namespace))["exitCode"] == 137


def test_a_pod_over_its_memory_is_killed_for_that(own_cluster: OwnCluster, namespace: str) -> None:
    greedy = pods.pod("victim", "python", "-c", "x = bytearray(200 << 20)")
    greedy["spec"]["containers"][0]["resources"] = {"limits": {"memory": "64Mi"}}
    own_cluster.apply(greedy, namespace=namespace)
    assert terminated(own_cluster.wait("pod", "victim", terminated, namespace=namespace))["reason"] == "OOMKilled"


def test_a_pod_can_be_starved_of_memory_from_here(own_cluster: OwnCluster, namespace: str) -> None:
    grow = "import time, os\nwhile not os.path.exists('/tmp/go'): time.sleep(0.05)\nx = bytearray(64 << 20); time.sleep(600)"
    own_cluster.apply(pods.pod("victim", "python", "-c", grow), namespace=namespace)
    own_cluster.wait("pod", "victim", "Ready", namespace=namespace)
    own_cluster.starve("victim", namespace=namespace)
    own_cluster.kubectl("exec", "victim", "--", "touch", "/tmp/go", namespace=namespace)
    assert terminated(own_cluster.wait("pod", "victim", terminated, namespace=namespace))["reason"] == "OOMKilled"


def test_pods_reach_a_server_that_the_test_runs(own_cluster: OwnCluster, namespace: str) -> None:
    with http.server.ThreadingHTTPServer((own_cluster.host_address, 0), http.server.SimpleHTTPRequestHandler) as server:
        threading.Thread(target=server.serve_forever).start()
        code = f"import urllib.request as u; u.urlopen('http://{own_cluster.host_address}:{server.server_port}/')"
        own_cluster.apply(pods.job("get", "python", "-c", code), namespace=namespace)
        own_cluster.wait("job", "get", "Complete", namespace=namespace)
        server.shutdown()


def test_a_simulated_pod_ends_as_its_annotations_say(simulated: OwnCluster, namespace: str) -> None:
    pod = pods.pod("told", "true", node_selector=simulated_nodes.NODE_SELECTOR)
    pod["spec"]["tolerations"] = [simulated_nodes.TOLERATION]
    pod["metadata"]["annotations"] = {"finish.tests/after": "100ms", "finish.tests/exit-code": "3", "finish.tests/message": '{"reason": "x"}'}
    simulated.apply(pod, namespace=namespace)
    state = terminated(simulated.wait("pod", "told", terminated, namespace=namespace))
    assert (state["exitCode"], json.loads(state["message"])) == (3, {"reason": "x"})


def test_a_test_ends_a_simulated_pod_itself(simulated: OwnCluster, namespace: str) -> None:
    pod = pods.pod("held", "true", node_selector=simulated_nodes.NODE_SELECTOR)
    pod["spec"]["tolerations"] = [simulated_nodes.TOLERATION]
    simulated.apply(pod, namespace=namespace)
    simulated.wait("pod", "held", "Ready", namespace=namespace)
    simulated_nodes.end(simulated, "held", namespace=namespace, exit_code=137, reason="OOMKilled")
    pod = simulated.wait("pod", "held", terminated, namespace=namespace)
    assert (pod["status"]["phase"], terminated(pod)["reason"]) == ("Failed", "OOMKilled")


def test_a_killed_session_leaves_no_process_and_the_next_start_no_folder() -> None:
    for missing in requirements.missing():
        pytest.skip(missing.part)
    with subprocess.Popen([sys.executable, "-c", LEFT_BEHIND], stdout=subprocess.PIPE, text=True, cwd=ROOT) as session:
        assert session.stdout
        number, pid = map(int, session.stdout.readline().split())
        session.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 30
    while psutil.pid_exists(pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not psutil.pid_exists(pid)
    claimed = space.Space.claim()
    claimed.close()
    assert not (space.BASE / str(number)).exists()


def test_what_is_missing_is_said_with_the_way_to_get_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(build, "CACHE", tmp_path)
    monkeypatch.setenv("PATH", os.fspath(tmp_path))
    said = {missing.part: missing.how for missing in requirements.missing()}
    assert said["containerd"].startswith("apt-get install") and "containerd" in said["containerd"]
    assert said["etcd v3.6.4"] == "install Go 1.26 or newer and run: python -m tests.tools.build"


def test_all_tests_on_the_cluster_go_to_one_worker(request: pytest.FixtureRequest) -> None:
    """xdist reads the group from the node id; when it no longer does, each worker brings up a cluster of its own."""
    grouped = request.config.getoption("loadgroup", default=False)
    assert request.node.nodeid.endswith("@cluster") or not grouped
