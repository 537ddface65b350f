"""The command line against a real API server: no operator runs here, so the tests write the status of runs as one would (it is an API's fact)."""

import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from ehrmind_k8s import artifacts, cli, crd, spec, storage
from ehrmind_k8s.artifacts import RunDocument
from ehrmind_k8s.backends.kubernetes.access import CONFIG_MAP, RUN
from ehrmind_k8s.controller import kinds
from ehrmind_k8s.controller.runtime.client import Client
from ehrmind_k8s.kubeapi import NotFound, Resource
from ehrmind_k8s.settings import Settings
from tests.cluster.api_server import DEFINITIONS, NAMESPACES, ApiServer, api_server
from tests.conftest import ROOT
from tests.integration import s3_server

STORE = "s3://bucket/runs"
TINY = ("--task", "medcalc", "--preset", "tiny", "--name", "demo", "--store", STORE)
URI = f"{STORE}/demo"
Status = Mapping[str, Any]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    with api_server(tmp_path_factory.mktemp("api-server")) as found:
        yield found


class Shell:
    """Somebody who types commands, in a namespace of their own."""

    def __init__(self, api: Client, namespace: str, kubeconfig: Path, patch: pytest.MonkeyPatch, read: pytest.CaptureFixture[str]) -> None:
        self.api, self.namespace, self._patch, self._read = api, namespace, patch, read
        self.uses(kubeconfig)

    def uses(self, kubeconfig: Path) -> None:
        """Be the user of this kubeconfig."""
        self._patch.setenv("KUBECONFIG", str(kubeconfig))

    def __call__(self, *argv: str, namespace: str | None = None) -> tuple[int, str, str]:
        """Exit code, output and error output of a command about this namespace."""
        self._patch.setattr(sys, "argv", ["ehrmind", *argv, "--namespace", namespace or self.namespace])
        self._read.readouterr()
        with pytest.raises(SystemExit) as ended:
            cli.main()
        return (int(ended.value.code or 0), *self._read.readouterr())

    def doctor(self) -> str:
        """What doctor prints, without the columns."""
        return " ".join(self("doctor")[1].split())

    @contextmanager
    def going_on(self, *argv: str) -> Iterator[subprocess.Popen[str]]:
        """A command that takes its time, as a process."""
        command = [sys.executable, "-m", "ehrmind_k8s", *argv, "--namespace", self.namespace]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True) as process:
            try:
                yield process
            finally:
                process.kill()

    def get(self, name: str = "demo") -> dict[str, Any]:
        return self.api.get(RUN, self.namespace, name)

    def progress(self, **status: Any) -> None:
        """Write the status of the run demo as the operator would."""
        there = self.get()
        self.api.patch_status(RUN, self.namespace, "demo", there["metadata"]["resourceVersion"], {"attempt": 1, "uri": URI, **status})


@pytest.fixture
def shell(server: ApiServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Shell:
    api = server.client()
    made = api.create(NAMESPACES, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"generateName": "test-"}})
    monkeypatch.chdir(tmp_path)
    return Shell(api, made["metadata"]["name"], server.kubeconfig, monkeypatch, capsys)


def until(true: Callable[[], Any], seconds: float = 20) -> Any:
    end = time.monotonic() + seconds
    while not (found := true()):
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.05)
    return found


def stage(name: str, state: str, attempt: int = 1, **more: Any) -> dict[str, Any]:
    return {"name": name, "state": state, "attempt": attempt, **more}


# submit


def test_an_object_holds_what_its_author_wrote(shell: Shell) -> None:
    code, out, err = shell("submit", *TINY, "--set", "rlvr.prompts_per_step=8")
    assert code == 0 and out.startswith("demo: pending") and f"created in namespace {shell.namespace}" in err
    defaults = {"profile": "default", "suspend": False, "cancel": False, "attempt": 1, "rollout": {"replicas": 1}}
    assert shell.get()["spec"] == {"task": "medcalc", "preset": "tiny", "store": STORE, "rlvr": {"promptsPerStep": 8}, **defaults}


def test_what_the_server_refuses_is_said_in_its_words_and_nothing_is_made(shell: Shell) -> None:
    code, out, err = shell("submit", *TINY[:-1], "s3://bucket/../other")
    assert (code, out) == (2, "")
    assert "spec.store: " in err and "a URI has no part `.` or `..`" in err
    assert shell.api.objects(RUN, shell.namespace) == []


def test_the_same_submit_again_says_where_the_run_is(shell: Shell) -> None:
    shell("submit", *TINY)
    shell.progress(state="running", stage="sft", message="SFT step 3/9")
    code, out, err = shell("submit", *TINY)
    assert code == 0 and out.startswith("demo: running (SFT step 3/9)\n")
    assert "is there already, with the same recipe" in err
    assert shell.get()["metadata"]["generation"] == 1


def test_another_recipe_is_refused_by_the_document_that_the_run_was_accepted_with(shell: Shell) -> None:
    shell("submit", *TINY)
    accepted = spec.load({"task": "medcalc", "preset": "tiny", "name": "demo", "seed": 7})  # as a version with other presets resolved it
    meta = {"name": "demo-spec", "namespace": shell.namespace}
    data = {artifacts.SPEC: RunDocument("0" * 12, accepted, accepted.recipe_hash()).to_json().decode()}
    shell.api.create(CONFIG_MAP, {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": data})
    code, _, err = shell("submit", *TINY)
    assert code == 2 and "another recipe:\n  seed: 7 -> 42\n" in err


def test_the_server_takes_what_a_second_submit_may_change(shell: Shell) -> None:
    shell("submit", *TINY)
    _, _, err = shell("submit", *TINY, "--set", "rollout.replicas=3")
    assert "rollout.replicas: 1 -> 3" in err and shell.get()["spec"]["rollout"] == {"replicas": 3}
    code, _, err = shell("submit", *TINY, "--set", "policy.retries=0")
    assert code == 2 and "fixed once a run exists:\n  policy.retries: 3 -> 0" in err


def test_a_cancelled_run_is_continued_by_the_same_submit(shell: Shell) -> None:
    shell("submit", *TINY)
    shell.api.patch(RUN, shell.namespace, "demo", {"spec": {"cancel": True}})
    shell.progress(state="cancelled", stage="sft")
    code, _, err = shell("submit", *TINY)
    assert code == 0 and "continuing run demo (cancelled in stage sft) as attempt 2" in err
    assert {k: shell.get()["spec"][k] for k in ("attempt", "cancel", "suspend")} == {"attempt": 2, "cancel": False, "suspend": False}
    assert shell("status", "demo")[1].startswith("demo: pending")


def test_a_finished_run_shows_its_score_where_its_store_cannot_be_read(shell: Shell) -> None:
    shell("submit", *TINY)
    shell.progress(state="succeeded", score=0.9512)
    code, out, _ = shell("submit", *TINY)
    assert code == 0 and out.startswith("run demo: complete, score 0.9512\n") and f"{URI}/evaluate/report.html" in out


def test_a_namespace_that_is_not_there_is_named(shell: Shell) -> None:
    code, _, err = shell("submit", *TINY, namespace="nowhere")
    assert code == 2 and 'namespaces "nowhere" not found; create the namespace' in err


def test_without_the_operator_the_install_line_is_shown(shell: Shell) -> None:
    name = f"{crd.PLURAL}.{crd.GROUP}"
    shell.api.delete(DEFINITIONS, None, name)
    until(lambda: crd.KIND not in shell.api.served(crd.API_VERSION))
    try:
        for argv in (("submit", *TINY), ("status", "demo"), ("runs",)):
            code, _, err = shell(*argv)
            assert code == 2 and "helm install ehrmind helm/ehrmind" in err
        assert "fail EHRMindRun" in shell.doctor()
    finally:
        until(lambda: not _there(shell.api, DEFINITIONS, name))
        shell.api.create(DEFINITIONS, crd.definition())
        until(lambda: crd.KIND in shell.api.served(crd.API_VERSION))


def _there(api: Client, resource: Resource, name: str) -> bool:
    try:
        return bool(api.get(resource, None, name))
    except NotFound:
        return False


# follow


class Followed:
    """A `submit --follow` that goes on; its lines as they come."""

    def __init__(self, shell: Shell, process: subprocess.Popen[str]) -> None:
        self.shell, self.process, self.lines = shell, process, list[str]()
        self.reader = threading.Thread(target=self._read)
        self.reader.start()

    def _read(self) -> None:
        assert self.process.stderr
        for line in self.process.stderr:
            self.lines.append(line.rstrip("\n"))

    def hears(self, text: str, **status: Any) -> None:
        """Write a status, and wait until the follower has said `text`."""
        if status:
            self.shell.progress(**status)
        until(lambda: any(text in line for line in self.lines))

    def ends(self) -> tuple[int, str]:
        assert self.process.stdout
        out = self.process.stdout.read()
        return self.process.wait(timeout=30), out


@pytest.fixture
def followed(shell: Shell) -> Iterator[Followed]:
    with shell.going_on("submit", *TINY, "--follow") as process:
        found = Followed(shell, process)
        found.hears("waiting for the operator")
        yield found
    found.reader.join()


def warn(shell: Shell, reason: str, note: str) -> None:
    """Post an event as the operator does."""
    meta = shell.get()["metadata"]
    regarding = {"kind": crd.KIND, "name": "demo", "namespace": shell.namespace, "uid": meta["uid"], "apiVersion": crd.API_VERSION}
    said = {"regarding": regarding, "type": "Warning", "reason": reason, "note": note, "action": "Reconcile"}
    who = {"reportingController": "ehrmind.dev/operator", "reportingInstance": "x", "eventTime": "2026-11-24T10:00:00.000000Z"}
    made = {"apiVersion": kinds.EVENT.api_version, "kind": "Event", "metadata": {"generateName": "demo-", "namespace": shell.namespace}}
    shell.api.create(kinds.EVENT, made | said | who)


def test_a_followed_run_is_told_line_by_line_to_its_result(shell: Shell, followed: Followed) -> None:
    followed.hears("Preparing data", state="running", stage="prepare", message="Preparing data", stages=[stage("prepare", "running")])
    done = stage("prepare", "succeeded", seconds=4.2)
    followed.hears("SFT step 1/9", state="running", stage="sft", message="SFT step 1/9", stages=[done, stage("sft", "running", 2, retries=1)])
    warn(shell, "RolloutDegraded", "1 of 2 servers")
    followed.hears("warning: RolloutDegraded: 1 of 2 servers")
    followed.hears("Succeeded", state="succeeded", score=0.75, message="Succeeded: accuracy 0.75", stages=[done, stage("sft", "succeeded", 2)])
    code, out = followed.ends()
    assert code == 0 and out.startswith("run demo: complete, score 0.75")
    told = [line for line in followed.lines if line.startswith(("prepare", "sft"))]
    assert told == ["prepare: attempt 1 has begun", "prepare: succeeded after 4 s", "sft: attempt 2 has begun (1 retry)", "sft: succeeded"]


@pytest.mark.parametrize(
    ("status", "code"),
    [
        ({"state": "failed", "message": "Failed: SFT", "stages": [stage("sft", "failed", reason="DataError", exitCode=10)]}, 30),
        ({"state": "failed", "message": "Failed: SFT", "stages": [stage("sft", "failed", 4, reason="OOMKilled", exitCode=137)]}, 75),
        ({"state": "cancelled", "message": "Cancelled"}, 31),
    ],
)
def test_the_exit_code_says_how_a_followed_run_ended(followed: Followed, status: Status, code: int) -> None:
    followed.hears(f"error: run demo{': Failed: SFT' if code != 31 else ' was cancelled'}", **status)
    assert followed.ends() == (code, "")


def test_ctrl_c_leaves_the_run_going_on(shell: Shell, followed: Followed) -> None:
    followed.process.send_signal(signal.SIGINT)
    assert followed.ends()[0] == 130
    followed.hears("run demo goes on in the cluster")
    assert shell.get()["spec"]["cancel"] is False


def test_a_run_that_is_deleted_while_it_is_followed_counts_as_cancelled(shell: Shell, followed: Followed) -> None:
    shell.api.delete(RUN, shell.namespace, "demo")
    assert followed.ends()[0] == 31
    followed.hears("was deleted while it was followed")


def test_an_api_server_that_is_away_is_waited_for(server: ApiServer, followed: Followed) -> None:
    server.stop()
    try:
        followed.hears("trying again, what runs goes on meanwhile")
    finally:
        server.start()
    followed.hears("there is an answer again")
    followed.hears("Succeeded", state="succeeded", message="Succeeded")
    assert followed.ends()[0] == 0


# status, cancel, suspend, resume


def test_status_shows_the_line_of_the_object_and_the_stages(shell: Shell) -> None:
    shell("submit", *TINY)
    stages = [stage("prepare", "succeeded", seconds=42), stage("sft", "running", 2, retries=1), stage("rlvr", "pending", 0)]
    progress = {"done": 3, "total": 9, "unit": "step", "figures": {"loss": 0.5}}
    shell.progress(state="running", stage="sft", step="3/9", message="SFT step 3/9, loss 0.5", progress=progress, stages=stages)
    lines = shell("status", "demo")[1].splitlines()
    assert lines[0] == "demo: running (SFT step 3/9, loss 0.5)"
    assert {f"  run       {URI}", "  stage     sft  3/9 step", "  figures   loss 0.5"} <= set(lines)
    assert lines[-3:] == ["  prepare   attempt 1: succeeded after 42 s", "  sft       attempt 2: running (1 retry)", "  rlvr      pending"]


def test_status_as_json_has_the_fields_of_every_other_place(shell: Shell) -> None:
    shell("submit", *TINY)
    shell.progress(state="running", stage="sft", message="SFT")
    found = json.loads(shell("status", "demo", "-o", "json")[1])
    assert {k: found[k] for k in ("name", "state", "stage", "message", "uri", "task")} == {
        "name": "demo",
        "state": "running",
        "stage": "sft",
        "message": "SFT",
        "uri": URI,
        "task": "medcalc",
    }


@pytest.mark.parametrize(("command", "wish", "state"), [("cancel", "cancel", "cancelled"), ("suspend", "suspend", "suspended")])
def test_a_run_is_asked_to_stop_and_waited_for(shell: Shell, command: str, wish: str, state: str) -> None:
    shell("submit", *TINY)
    shell.progress(state="running", stage="sft")
    with shell.going_on(command, "demo") as asked:
        until(lambda: shell.get()["spec"][wish])
        assert asked.poll() is None
        shell.progress(state=state)
        out, _ = asked.communicate(timeout=30)
    assert asked.returncode == 0 and out.startswith(f"demo: {state}")


def test_a_suspended_run_is_resumed_and_one_that_ended_is_not(shell: Shell) -> None:
    shell("submit", *TINY, "--set", "suspend=true")
    assert shell("resume", "demo")[0] == 0 and shell.get()["spec"]["suspend"] is False
    shell.progress(state="failed")
    for command in ("suspend", "resume"):
        code, _, err = shell(command, "demo")
        assert code == 2 and "run demo has ended (failed)" in err
    assert shell("cancel", "demo")[:2] == (0, "demo: failed\n")


# runs, report, doctor


def test_runs_lists_a_namespace_or_all(shell: Shell) -> None:
    shell("submit", *TINY)
    shell.progress(state="running", stage="rlvr", progress={"done": 3, "total": 9})
    shell("submit", *TINY, "--name", "other")
    assert [line.split()[:4] for line in shell("runs")[1].splitlines()] == [
        ["demo", "medcalc", "running", "rlvr"],
        ["other", "medcalc", "pending", "0"],
    ]
    everywhere = json.loads(shell("runs", "--all-namespaces", "-o", "json")[1])
    assert {"demo", "other"} <= {r["name"] for r in everywhere if r["namespace"] == shell.namespace}


def test_a_run_that_goes_on_is_not_deleted_and_a_finished_one_is(shell: Shell) -> None:
    shell("submit", *TINY)
    shell.progress(state="running")
    code, _, err = shell("runs", "delete", "demo", "--yes")
    assert code == 75 and "run demo goes on (running); end it first: ehrmind cancel demo" in err
    shell.progress(state="succeeded")
    code, out, _ = shell("runs", "delete", "demo", "--yes")
    assert code == 0 and f"what it stored stays: {URI}" in out
    assert shell.api.objects(RUN, shell.namespace) == []


@pytest.mark.s3
def test_report_and_delete_reach_the_store_that_the_status_names(
    shell: Shell, s3_uri: str, s3_settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EHRMIND_S3_ENDPOINT_URL", str(s3_settings.s3_endpoint_url))
    monkeypatch.setenv("EHRMIND_S3_ACCESS_KEY_ID", s3_server.ACCESS)
    monkeypatch.setenv("EHRMIND_S3_SECRET_ACCESS_KEY", s3_server.SECRET)
    uri = storage.join(s3_uri, "demo")
    shell("submit", *TINY[:-1], s3_uri)
    shell.progress(state="succeeded", uri=uri)
    RunDocument.new(spec.load({"task": "medcalc", "preset": "tiny", "name": "demo"})).write(storage.open(uri))
    (tmp_path / "made").mkdir()
    (tmp_path / "made" / "report.json").write_bytes((ROOT / "tests" / "golden" / "report" / "report.json").read_bytes())
    (tmp_path / "made" / "report.html").touch()
    artifacts.publish(storage.open(f"{uri}/evaluate"), "", tmp_path / "made", "report")
    code, out, _ = shell("report", "demo")
    assert code == 0 and "report: " in out and "RLVR" in out.upper()
    code, out, _ = shell("runs", "delete", "demo", "--yes", "--store-too")
    assert code == 0 and f"deleted {uri}" in out
    assert list(storage.open(uri).list()) == []


def test_report_before_there_is_one_is_a_matter_of_time(shell: Shell) -> None:
    shell("submit", *TINY)
    code, _, err = shell("report", "demo")
    assert code == 75 and "has no store yet (waiting for the operator)" in err


def test_doctor_says_what_is_missing_and_what_is_there(shell: Shell) -> None:
    assert shell("doctor")[0] == 2
    out = shell.doctor()
    assert "ok api server v1.34" in out and "with all fields of" in out
    assert "fail operator no Deployment of it" in out and "fail training operator none" in out
    labels = {"app.kubernetes.io/name": "ehrmind-operator"}
    template = {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "operator", "image": "x"}]}}
    deployment = {"replicas": 2, "selector": {"matchLabels": labels}, "template": template}
    apps = Resource("apps", "v1", "Deployment", "deployments")
    shell.api.create(apps, {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": _meta(shell, "op", labels=labels), "spec": deployment})
    assert f"fail operator {shell.namespace}/op unknown, 0 of 2 ready" in shell.doctor()
    nodes = Resource("", "v1", "Node", "nodes")
    shell.api.create(nodes, {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "gpu-1"}})
    there = shell.api.get(nodes, None, "gpu-1")
    shell.api.patch_status(nodes, None, "gpu-1", there["metadata"]["resourceVersion"], {"allocatable": {"nvidia.com/gpu": "8", "cpu": "64"}})
    assert "ok gpu nodes 8 nvidia.com/gpu on 1 nodes" in shell.doctor()


def _meta(shell: Shell, name: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "namespace": shell.namespace, **more}


@pytest.fixture
def viewer(server: ApiServer, shell: Shell, tmp_path: Path) -> Path:
    """The kubeconfig of somebody who may look at runs and pods of the namespace, and no more."""
    rbac, account = "rbac.authorization.k8s.io", Resource("", "v1", "ServiceAccount", "serviceaccounts")
    shell.api.create(account, {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": _meta(shell, "viewer")})
    rules = [{"apiGroups": [crd.GROUP, ""], "resources": [crd.PLURAL, "pods", "pods/log", "events", "configmaps"], "verbs": ["get", "list"]}]
    role = {"apiVersion": f"{rbac}/v1", "kind": "Role", "metadata": _meta(shell, "look"), "rules": rules}
    shell.api.create(Resource(rbac, "v1", "Role", "roles"), role)
    bound = {"roleRef": {"apiGroup": rbac, "kind": "Role", "name": "look"}}
    subject = {"subjects": [{"kind": "ServiceAccount", "name": "viewer", "namespace": shell.namespace}]}
    binding = {"apiVersion": f"{rbac}/v1", "kind": "RoleBinding", "metadata": _meta(shell, "look"), **bound, **subject}
    shell.api.create(Resource(rbac, "v1", "RoleBinding", "rolebindings"), binding)
    request = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}}
    token = shell.api.request("create", "POST", account.path(shell.namespace, "viewer", "token"), body=request)["status"]["token"]
    return _kubeconfig(server, token, tmp_path / "viewer")


def _kubeconfig(server: ApiServer, token: str, path: Path) -> Path:
    body = json.loads(server.kubeconfig.read_text())
    body["users"][0]["user"]["token"] = token
    path.write_text(json.dumps(body))
    return path


def test_who_may_only_look_is_told_who_grants_more(shell: Shell, viewer: Path) -> None:
    shell("submit", *TINY)
    shell.uses(viewer)
    code, _, err = shell("submit", *TINY, "--name", "mine")
    assert code == 2 and 'cannot create resource "ehrmindruns"' in err and "ClusterRole `edit`" in err
    assert shell("status", "demo")[0] == 0
    out = shell.doctor()
    assert f"warn permissions not allowed in {shell.namespace}: submit: create ehrmindruns, patch ehrmindruns; runs delete" in out
    assert "warn operator cannot be seen with your rights" in out


def test_credentials_that_are_not_accepted_are_said_to_be_that(server: ApiServer, shell: Shell, tmp_path: Path) -> None:
    shell.uses(_kubeconfig(server, "expired", tmp_path / "expired"))
    code, _, err = shell("status", "demo")
    assert code == 2 and "does not accept these credentials: log in again" in err
