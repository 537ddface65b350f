"""A rollout server up to the moment it becomes vLLM, and the token it asks for. tests/integration has the rest."""

import asyncio
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from ehrmind_k8s import artifacts, settings, spec, storage
from ehrmind_k8s.artifacts import RunDocument
from ehrmind_k8s.errors import IntegrityError, RolloutUnavailable, SpecError
from ehrmind_k8s.rollout import token
from ehrmind_k8s.rollout.server import __main__ as server
from ehrmind_k8s.rollout.server.auth import Auth
from ehrmind_k8s.rollout.server.serving import Serving

SERVING = Serving("abc123", ("file:///runs/a", "s3://bucket/prepared"), "/cache", "/cache/prepare/model")


def make_spec(*overrides: str) -> spec.RunSpec:
    return spec.load({"task": "medcalc", "preset": "tiny"}, overrides)


@pytest.fixture
def cpu(monkeypatch: pytest.MonkeyPatch) -> Callable[[bool], None]:
    """Say which build of vLLM is installed, so that both command lines are tested on any machine."""

    def choose(cpu: bool) -> None:
        monkeypatch.setattr(server, "cpu_build", lambda: cpu)

    choose(True)
    return choose


def flag(command: list[str], name: str) -> str:
    return command[command.index(name) + 1]


def test_a_cpu_server_is_small_and_eager(cpu: Callable[[bool], None]) -> None:
    command = server.command_line(make_spec("rollout.kv_cache_gib=0.25"), SERVING, "127.0.0.1", 8001)
    assert flag(command, "--kv-cache-memory-bytes") == str(2**28)
    assert "--enforce-eager" in command
    assert "--gpu-memory-utilization" not in command
    assert "--enable-lora" not in command


def test_a_gpu_server_takes_its_share_and_compiles(cpu: Callable[[bool], None]) -> None:
    cpu(False)
    command = server.command_line(make_spec("rollout.gpu_memory=0.5"), SERVING, "127.0.0.1", 8001)
    assert flag(command, "--gpu-memory-utilization") == "0.5"
    assert "--enforce-eager" not in command
    assert "TORCHDYNAMO_DISABLE" not in server.environment(make_spec(), SERVING, {}, None)


def test_served_lengths_precision_and_logprobs_are_those_of_the_run(cpu: Callable[[bool], None]) -> None:
    command = server.command_line(make_spec("model.context=8000", "model.dtype=bfloat16"), SERVING, "127.0.0.1", 8001)
    assert (flag(command, "--max-model-len"), flag(command, "--dtype")) == ("8000", "bfloat16")
    assert flag(command, "--logprobs-mode") == "processed_logprobs"
    assert flag(command, "--served-model-name") == "abc123"


def test_the_token_is_asked_for_before_anything_else(cpu: Callable[[bool], None]) -> None:
    command = server.command_line(make_spec(), SERVING, "127.0.0.1", 8001)
    given = [value for name, value in pairwise(command) if name == "--middleware"]
    assert given[-1] == "ehrmind_k8s.rollout.server.auth.Auth"  # vLLM makes the last one the outermost


@pytest.mark.parametrize(("rank", "served"), [(1, "8"), (16, "16"), (17, "32"), (256, "256")])
def test_adapters_are_served_at_a_rank_vllm_knows_and_never_on_the_head(cpu: Callable[[bool], None], rank: int, served: str) -> None:
    command = server.command_line(make_spec("model.tuning=lora", f"model.lora_rank={rank}"), SERVING, "127.0.0.1", 8001)
    assert flag(command, "--max-lora-rank") == served
    assert flag(command, "--max-loras") == "2"
    assert "q_proj" in command
    assert "lm_head" not in command


@pytest.mark.parametrize(("index", "threads"), [(0, None), (None, "1")])
def test_threads_of_the_environment_are_a_pods_and_not_a_machines(cpu: Callable[[bool], None], index: int | None, threads: str | None) -> None:
    cpu(True)
    assert server.environment(make_spec(), SERVING, {"OMP_NUM_THREADS": "1"}, index).get("OMP_NUM_THREADS") == threads


def test_the_environment_is_offline_silent_and_closed(cpu: Callable[[bool], None]) -> None:
    inherited = {
        "VLLM_SERVER_DEV_MODE": "1",
        "VLLM_API_KEY": "k",
        "VLLM_DEBUG_LOG_API_SERVER_RESPONSE": "1",
        "PATH": "/bin",
        "EHRMIND_RUN_TOKEN": "t",
    }
    found = server.environment(make_spec(), SERVING, inherited, None)
    assert (found["VLLM_SERVER_DEV_MODE"], found["HF_HUB_OFFLINE"], found["VLLM_NO_USAGE_STATS"], found["DO_NOT_TRACK"]) == ("0", "1", "1", "1")
    assert not {"VLLM_API_KEY", "VLLM_DEBUG_LOG_API_SERVER_RESPONSE"} & found.keys()
    assert (found["PATH"], found["EHRMIND_RUN_TOKEN"]) == ("/bin", "t")
    assert set(found["VLLM_PLUGINS"].split(",")) == {"ehrmind_pull", "ehrmind_policy"}


def test_plugins_named_are_plugins_installed() -> None:
    from importlib.metadata import entry_points

    installed = {e.name for group in ("vllm.general_plugins", "vllm.endpoint_plugins") for e in entry_points(group=group)}
    assert set(server.PLUGINS.split(",")) <= installed


@pytest.mark.parametrize(
    ("overrides", "index", "cores"),
    [
        pytest.param([], None, "nobind", id="alone in a pod: bound to none"),
        pytest.param([], 0, "nobind", id="one server: bound to none"),
        pytest.param(["rollout.replicas=2", "rollout.cores=0|1-3"], 1, "1-3", id="given"),
        pytest.param(["rollout.replicas=2"], 0, "2,6", id="first of two shares four cores"),
        pytest.param(["rollout.replicas=2"], 1, "4,9", id="second of two shares four cores"),
        pytest.param(["rollout.replicas=8"], 5, "4", id="more servers than cores"),
    ],
)
def test_servers_of_one_machine_take_different_cores(monkeypatch: pytest.MonkeyPatch, overrides: list[str], index: int | None, cores: str) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {2, 4, 6, 9})
    assert server.cores(make_spec(*overrides), index) == cores


@pytest.mark.parametrize("uri", ["file:///runs/a/rlvr/policy/v1-a1", "/runs/a/sft/policy/sft", "s3://bucket/prepared/policy/base"])
def test_policies_of_the_run_and_its_inputs_are_taken(uri: str) -> None:
    SERVING.check_source(uri)


@pytest.mark.parametrize(
    "uri",
    [
        "file:///runs/ab/policy",
        "/runs/a/../b/policy",
        "/runs",
        "s3://bucket/prepared-not/policy",
        "s3://other/prepared/policy",
        "/runs/a/x/../../../etc",
    ],
)
def test_policies_from_elsewhere_are_not(uri: str) -> None:
    with pytest.raises(SpecError, match="not below this run"):
        SERVING.check_source(uri)


def test_serving_survives_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SpecError, match=r"python -m ehrmind_k8s\.rollout\.server"):
        Serving.from_environment()
    for name, value in SERVING.to_environment().items():
        monkeypatch.setenv(name, value)
    assert Serving.from_environment() == SERVING


class TestPrepare:
    @pytest.fixture(autouse=True)
    def _token(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, cpu: Any) -> None:
        monkeypatch.setenv("EHRMIND_RUN_TOKEN", "secret")
        monkeypatch.setenv("EHRMIND_STATE_DIR", str(tmp_path / "state"))
        monkeypatch.setattr(server, "TICK_S", 0.01)

    def run(self, tmp_path: Path, *files: str) -> str:
        """A run; with `files`, its prepare is complete."""
        uri = str(tmp_path / "run")
        RunDocument.new(make_spec("rollout.wait_s=1")).write(storage.open(uri))
        for name in files:
            (tmp_path / "out" / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "out" / name).write_text(name)
        if files:
            artifacts.publish(storage.open(uri + "/prepare"), "", tmp_path / "out", "prepare")
        return uri

    def test_the_model_of_prepare_is_fetched_and_nothing_else(self, tmp_path: Path) -> None:
        uri = self.run(tmp_path, "model/config.json", "model/model.safetensors", "train.parquet")
        command, environment = server.prepare(uri, "127.0.0.1", 8001, None)
        folder = Path(flag(command, "--model"))
        assert sorted(p.name for p in folder.parent.rglob("*") if p.is_file()) == ["config.json", "model.safetensors"]
        assert json.loads(environment["EHRMIND_SERVING"])["sources"] == [storage.open(uri).uri]

    def test_the_token_is_that_of_the_runs_store_and_in_no_argument(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("EHRMIND_RUN_TOKEN")
        monkeypatch.setattr(token, "SETTLE_S", 0)
        uri = self.run(tmp_path, "model/config.json")
        command, environment = server.prepare(uri, "127.0.0.1", 8001, None)
        found = environment["EHRMIND_RUN_TOKEN"]
        assert len(found) > 40 and found == token.of(storage.open(uri), settings.load())
        assert found not in " ".join(command)

    def test_a_server_publishes_the_document_of_its_pod(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        document = RunDocument.new(make_spec("rollout.wait_s=1"))
        (tmp_path / "mounted.json").write_bytes(document.to_json())
        monkeypatch.setenv("EHRMIND_SPEC_FILE", str(tmp_path / "mounted.json"))
        with pytest.raises(RolloutUnavailable, match="prepare is not complete"):
            server.prepare(str(tmp_path / "run"), "127.0.0.1", 8001, None)
        assert RunDocument.at(str(tmp_path / "run")) == document

    def test_a_server_waits_for_a_run_that_is_not_there_yet(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        timer = threading.Timer(0.2, self.run, (tmp_path, "model/config.json"))
        timer.start()
        command, _ = server.prepare(str(tmp_path / "run"), "127.0.0.1", 8001, None)
        timer.join()
        assert flag(command, "--served-model-name") == RunDocument.at(str(tmp_path / "run")).uid
        assert "there is no run yet" in capsys.readouterr().out

    def test_the_wait_for_prepare_is_bounded(self, tmp_path: Path) -> None:
        with pytest.raises(RolloutUnavailable, match=r"prepare is not complete .*after 1 s"):
            server.prepare(self.run(tmp_path), "127.0.0.1", 8001, None)

    def test_an_output_of_prepare_without_a_model_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(IntegrityError, match="holds no model/"):
            server.prepare(self.run(tmp_path, "train.parquet"), "127.0.0.1", 8001, None)

    def test_the_wait_for_a_run_is_bounded_and_names_the_place(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(server, "WAIT_S", 0.05)
        with pytest.raises(RolloutUnavailable, match=rf"{tmp_path}: no spec\.json, .* after 0\.05 s"):
            server.prepare(str(tmp_path), "127.0.0.1", 8001, None)


def test_a_server_that_waits_ends_on_sigterm(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "ehrmind_k8s.rollout.server", "--run", str(tmp_path), "--port", "8001"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ | {"EHRMIND_LOG_FORMAT": "json"})
    with process:
        assert process.stdout is not None and "rollout.waiting" in process.stdout.readline()
        process.terminate()
    assert process.returncode == 143


def test_the_argument_line_reports_as_a_stage_does() -> None:
    command = [sys.executable, "-m", "ehrmind_k8s.rollout.server", "--run", "gopher://x/run", "--port", "8001"]
    environment = os.environ | {"EHRMIND_RUN_TOKEN": "t", "EHRMIND_LOG_FORMAT": "json"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == SpecError.exit_code
    assert json.loads(done.stdout.splitlines()[-1])["reason"] == "SpecError"


@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [
        ("/health", [], 200),
        ("/v1/policy", [], 401),
        ("/v1/policy", [(b"authorization", b"Bearer wrong")], 401),
        ("/v1/policy", [(b"authorization", b"Bearer secret")], 200),
        ("/health/../v1/policy", [], 401),
        ("//health", [], 401),
    ],
)
def test_every_path_but_health_asks_for_the_token(
    monkeypatch: pytest.MonkeyPatch, path: str, headers: list[tuple[bytes, bytes]], status: int
) -> None:
    monkeypatch.setenv("EHRMIND_RUN_TOKEN", "secret")
    sent: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})

    async def send(message: Any) -> None:
        sent.append(message)

    asyncio.run(Auth(app)({"type": "http", "path": path, "headers": headers}, None, send))
    assert sent[0]["status"] == status
