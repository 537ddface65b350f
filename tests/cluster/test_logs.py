"""`ehrmind logs` reads real pods: of one attempt merged by time, followed through reconnects, attempts and stages to the run's end.

The pods are plain ones with the labels of a run's pods. No operator makes them: the run names a profile that does not exist.
"""

import contextlib
import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from ehrmind_k8s import crd
from ehrmind_k8s.backends.kubernetes.access import RUN
from ehrmind_k8s.controller.runtime.client import Client
from ehrmind_k8s.kubeapi import Conflict, connect
from tests.cluster import pods
from tests.cluster.harness.client import Cluster


@pytest.fixture(scope="module")
def api(cluster: Cluster) -> Iterator[Client]:
    """The API server, which knows EHRMindRun. What a chart has installed stays; ours goes, since Helm would not take it over."""
    name = f"{crd.PLURAL}.{crd.GROUP}"
    there = cluster.exists("crd", name)
    if not there:
        cluster.apply(crd.definition())
    cluster.wait("crd", name, "Established")
    yield connect(str(cluster.kubeconfig), make=Client)
    if not there:
        cluster.delete("crd", name)
        cluster.wait_gone("crd", name)


class Run:
    """A run called demo and its pods."""

    def __init__(self, cluster: Cluster, api: Client, namespace: str) -> None:
        self.cluster, self.api, self.namespace = cluster, api, namespace
        body = crd.to_object({"task": "medcalc", "preset": "tiny", "name": "demo", "profile": "nobody"}, namespace)
        self.uid: str = api.create(RUN, body)["metadata"]["uid"]

    def pod(self, role: str, attempt: int, number: int = 0, *, script: str = "", restart: str = "Never") -> str:
        """Start a pod; returns its name. Without a script it says who it is, and that is all."""
        name = f"demo-{role}-{attempt}-{number}"
        made = pods.pod(name, "sh", "-c", script or f"echo this is {name}")
        made["metadata"]["labels"] |= {crd.LABEL_RUN_UID: self.uid, crd.LABEL_ROLE: role, crd.LABEL_ATTEMPT: str(attempt)}
        made["spec"]["restartPolicy"] = restart
        self.cluster.apply(made, namespace=self.namespace)
        return name

    def wait(self, *names: str) -> None:
        for name in names:
            self.cluster.wait("pod", name, lambda p: p["status"]["phase"] == "Succeeded", namespace=self.namespace)

    def ends(self, state: str = "failed") -> None:
        """Write an end, which no operator takes back."""
        while True:
            meta = self.api.get(RUN, self.namespace, "demo")["metadata"]
            with contextlib.suppress(Conflict):
                self.api.patch_status(RUN, self.namespace, "demo", meta["resourceVersion"], {"state": state, "attempt": 1})
                return

    @contextlib.contextmanager
    def logs(self, *argv: str, kubeconfig: Path | None = None) -> Iterator[subprocess.Popen[str]]:
        cluster = ("--namespace", self.namespace, "--kubeconfig", str(kubeconfig or self.cluster.kubeconfig))
        command = [sys.executable, "-m", "ehrmind_k8s", "logs", "demo", *argv, *cluster]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            try:
                yield process
            finally:
                process.kill()

    def printed(self, *argv: str) -> tuple[int, list[str], str]:
        """Exit code, lines and error output of a command that ends by itself."""
        with self.logs(*argv) as process:
            out, err = process.communicate(timeout=60)
        return process.returncode, out.splitlines(), err


@pytest.fixture
def run(cluster: Cluster, api: Client, namespace: str) -> Run:
    return Run(cluster, api, namespace)


def count(to: int, pause_s: float, word: str = "line") -> str:
    return f"i=1; while [ $i -le {to} ]; do echo {word} $i; i=$((i+1)); sleep {pause_s}; done"


def test_pods_of_the_newest_attempt_are_merged_by_time_and_named(run: Run) -> None:
    old = run.pod("sft", 1)
    run.wait(old)
    time.sleep(1)  # creation times are whole seconds
    first = run.pod("sft", 2, 0, script="echo a; sleep 2; echo c")
    second = run.pod("sft", 2, 1, script="sleep 1; echo b; sleep 2; echo d")
    run.wait(first, second)
    code, lines, _ = run.printed()
    assert code == 0 and sorted(lines) == [f"{first}: a", f"{first}: c", f"{second}: b", f"{second}: d"]
    assert [line for line in lines if line.startswith(first)] == [f"{first}: a", f"{first}: c"]
    assert run.printed("--of", "sft-a1")[1] == [f"this is {old}"]
    assert run.printed("--of", second)[1] == ["b", "d"]


def test_what_has_no_pod_is_said_with_what_there_is(run: Run) -> None:
    run.wait(run.pod("prepare", 1))
    code, _, err = run.printed("--of", "rlvr")
    assert code == 2 and "run demo has no pod of rlvr; its pods: prepare-a1" in err


def test_a_server_that_was_restarted_shows_its_last_words_first(run: Run) -> None:
    once = "if [ -e /work/here ]; then echo second; sleep 600; else touch /work/here; echo first; exit 1; fi"
    name = run.pod("rollout", 0, script=once, restart="Always")
    status = run.cluster.wait("pod", name, lambda p: _restarted(p), namespace=run.namespace)["status"]
    assert status["containerStatuses"][0]["restartCount"] == 1
    assert _until(lambda: run.printed("--of", "rollout-0")[1], ["first", "second"])


def _restarted(pod: dict[str, Any]) -> bool:
    statuses = pod["status"].get("containerStatuses") or [{}]
    return statuses[0].get("restartCount") == 1 and "running" in (statuses[0].get("state") or {})


def _until(read: Callable[[], list[str]], wanted: list[str]) -> bool:
    end = time.monotonic() + 20
    while (found := read()) != wanted:
        assert time.monotonic() < end, found
        time.sleep(0.5)
    return True


def test_following_goes_on_with_the_next_attempt_and_stage_to_the_end(run: Run) -> None:
    with run.logs("--follow") as process:
        for role, attempt in (("sft", 1), ("sft", 2), ("rlvr", 1)):
            run.wait(run.pod(role, attempt, script=f"{count(3, 0.1, f'{role} {attempt}')}"))
        run.ends()
        out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, "")
    assert out.splitlines() == [f"{stage} {i}" for stage in ("sft 1", "sft 2", "rlvr 1") for i in (1, 2, 3)]


class CutLine:
    """A TCP line to a server that can be cut: whoever talks over it at that moment loses the connection, and may come again."""

    def __init__(self, host: str, port: int) -> None:
        self.target, self.ends, self.cuts = (host, port), list[socket.socket](), 0
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self.listener.getsockname()[1]
        self.threads = [self._begin(self._accept)]

    def cut(self) -> None:
        self.cuts += 1
        ends, self.ends = self.ends, []
        for end in ends:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self.listener.shutdown(socket.SHUT_RDWR)
        self.cut()
        for thread in self.threads:
            thread.join()
        self.listener.close()

    def _begin(self, work: Callable[..., None], *args: socket.socket) -> threading.Thread:
        thread = threading.Thread(target=work, args=args)
        thread.start()
        return thread

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self.listener.accept()
                far = socket.create_connection(self.target)
                self.ends += [near, far]
                self.threads += [self._begin(self._carry, near, far), self._begin(self._carry, far, near)]

    def _carry(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError), source:
            while data := source.recv(1 << 16):
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)


@pytest.fixture
def line(cluster: Cluster, tmp_path: Path) -> Iterator[tuple[CutLine, Path]]:
    """A line to the API server, and a kubeconfig that leads over it."""
    config = json.loads(cluster.kubectl("config", "view", "--raw", "--minify", "--flatten", "--output=json"))
    url = urlsplit(config["clusters"][0]["cluster"]["server"])
    found = CutLine(str(url.hostname), url.port or 443)
    config["clusters"][0]["cluster"] = {"server": f"https://127.0.0.1:{found.port}", "insecure-skip-tls-verify": True}
    (tmp_path / "kubeconfig").write_text(json.dumps(config))
    yield found, tmp_path / "kubeconfig"
    found.close()


def test_no_line_is_lost_or_doubled_by_a_connection_that_breaks(run: Run, line: tuple[CutLine, Path]) -> None:
    cut_line, kubeconfig = line
    run.pod("sft", 1, script=count(60, 0.1))
    seen: list[str] = []
    with run.logs("--follow", "--of", "sft-a1", kubeconfig=kubeconfig) as process:
        assert process.stdout
        for text in process.stdout:
            seen.append(text.strip())
            if len(seen) in (5, 20, 40):
                cut_line.cut()
            if len(seen) == 60:
                run.ends()
        assert process.stderr
        err = process.stderr.read()
    assert (process.returncode, err, cut_line.cuts) == (0, "", 3)
    assert seen == [f"line {i}" for i in range(1, 61)]


def test_inside_a_pod_its_own_account_leads_to_the_cluster(cluster: Cluster, namespace: str) -> None:
    made = pods.job("doctor", "sh", "-c", "ehrmind doctor -o json || true")
    made["spec"]["template"]["spec"]["automountServiceAccountToken"] = True
    cluster.apply(made, namespace=namespace)
    cluster.wait("job", "doctor", "Complete", namespace=namespace)
    found = {c["name"]: c for c in json.loads(cluster.kubectl("logs", "job/doctor", namespace=namespace))}
    assert found["api server"]["state"] == "ok"
    assert f"not allowed in {namespace}" in found["permissions"]["found"]
