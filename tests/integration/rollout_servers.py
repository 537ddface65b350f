"""Real vLLM servers over a toy run. A server takes about 25 s to start, so the session shares one wherever a test does not end it.

Fixtures: `full_run` (whole weights are tuned, the head is tied), `full_server` (a server of it for the whole session).
"""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from safetensors.numpy import load_file, save_file

from ehrmind_k8s import artifacts, spec, storage, toymodel
from ehrmind_k8s.artifacts import RunDocument
from ehrmind_k8s.records import Example
from ehrmind_k8s.rollout import weights
from ehrmind_k8s.rollout.base import Policy
from ehrmind_k8s.rollout.pool import Pool
from ehrmind_k8s.tokenization import Tokenizer
from tests.conftest import needs_module

TOKEN = "a-token-of-this-test"
START_S = 300


@dataclass
class Run:
    """A run whose `prepare` is complete, with a toy model; policies are published into its rlvr stage."""

    root: Path
    document: RunDocument
    model_folder: Path
    tokenizer: Tokenizer

    @classmethod
    def create(cls, root: Path, tuning: str, *, tied: bool = False) -> "Run":
        document = RunDocument.new(
            spec.load(
                {"task": "medcalc", "preset": "tiny"},
                [
                    f"model.tuning={tuning}",
                    "model.lora_rank=8",
                    "model.context=1024",
                    "data.max_prompt_tokens=512",
                    "rollout.replicas=2",
                    "rollout.kv_cache_gib=0.25",
                ],
            )
        )
        document.write(storage.open(str(root / "run")))
        model = root / "prepared" / "model"
        toymodel.write(model, [_row(i) for i in range(200)], seed=3)
        if tied:
            _tie(model)
        artifacts.publish(storage.open(str(root / "run" / "prepare")), "", root / "prepared", "prepare")
        return cls(root, document, model, Tokenizer(model))

    @property
    def uri(self) -> str:
        return str(self.root / "run")

    def publish(self, name: str, model: Any, kind: weights.Kind = "full", canary: weights.Canary | None = None) -> Policy:
        """Publish the weights a transformers or peft model has now."""
        from ehrmind_k8s.rollout import inprocess

        folder = self.root / "saved" / name
        model.save_pretrained(folder)
        canary = canary or inprocess.canary(model, self.tokenizer)
        out = storage.open(str(self.root / "run" / "rlvr"))
        return weights.publish(out, name, folder, kind=kind, tokenizer=self.tokenizer.fingerprint, canary=canary)

    def pool(self, *servers: "Server", uid: str | None = None, wait_s: float = 60) -> Pool:
        dtype = self.document.spec.model.dtype
        return Pool([s.url for s in servers], TOKEN, uid or self.document.uid, self.tokenizer, dtype, wait_s, min_ready=len(servers))


@dataclass
class Server:
    """One server process of a run, in a process group of its own."""

    run: Run
    index: int
    port: int = field(default_factory=lambda: free_port())
    process: subprocess.Popen[bytes] | None = None
    host: str = "127.0.0.1"

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}"

    @property
    def log(self) -> Path:
        return self.run.root / f"server-{self.host}-{self.port}.log"

    def start(self) -> "Server":
        environment = os.environ | {
            "EHRMIND_RUN_TOKEN": TOKEN,
            "EHRMIND_STATE_DIR": str(self.run.root / "state" / self.host),
            "EHRMIND_LOG_FORMAT": "json",
        }
        command = [sys.executable, "-m", "ehrmind_k8s.rollout.server", "--run", self.run.uri]
        command += ["--host", self.host, "--port", str(self.port), "--index", str(self.index)]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, env=environment, start_new_session=True)
        return self

    def wait(self) -> "Server":
        """Until /health answers. Raises with the end of the log where the process ends first."""
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline:
            if self.process is None or self.process.poll() is not None:
                raise RuntimeError(f"the server ended:\n{self.log.read_text()[-3000:]}")
            try:
                if httpx.get(f"{self.url}/health", timeout=2).status_code == 200:
                    return self
            except httpx.TransportError:
                pass
            time.sleep(0.2)
        raise RuntimeError(f"not ready after {START_S} s:\n{self.log.read_text()[-3000:]}")

    def signal(self, number: int) -> None:
        """Signal the whole group, as losing a pod or a terminal would."""
        assert self.process is not None
        os.killpg(self.process.pid, number)

    def terminate(self) -> None:
        """What a kubelet does first: SIGTERM to the main process alone."""
        assert self.process is not None
        self.process.terminate()

    def wait_end(self) -> int:
        assert self.process is not None
        return self.process.wait()

    def stop(self) -> None:
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError):
                self.signal(signal.SIGKILL)
            self.process.wait()
            self.process = None

    def running(self) -> float:
        """Requests that the engine works on now."""
        lines = self.get("/metrics").text.splitlines()
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith("vllm:num_requests_running"))

    def get(self, path: str) -> httpx.Response:
        return httpx.get(self.url + path, headers={"Authorization": f"Bearer {TOKEN}"}, timeout=30)

    def post(self, path: str, body: dict[str, Any]) -> httpx.Response:
        return httpx.post(self.url + path, json=body, headers={"Authorization": f"Bearer {TOKEN}"}, timeout=60)


def _tie(model: Path) -> None:
    """Let the head be the embedding: vLLM on CPU then keeps a packed copy that a reload does not rebuild by itself."""
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps(config | {"tie_word_embeddings": True}))
    tensors = load_file(model / "model.safetensors")
    del tensors["lm_head.weight"]
    save_file(tensors, model / "model.safetensors", metadata={"format": "pt"})


def _row(i: int) -> Example:
    return Example(str(i), "medcalc", "train", str(i), "lab", ({"role": "user", "content": f"creatinine {i / 10:.1f} mg/dL at day {i}"},), {})


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@pytest.fixture(scope="session")
def full_run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    for module in ("vllm", "torch"):
        needs_module(module, "make setup (installs the extras train and rollout-cpu)")
    return Run.create(tmp_path_factory.mktemp("full-run"), "full", tied=True)


@pytest.fixture(scope="session")
def full_server(full_run: Run) -> Iterator[Server]:
    server = Server(full_run, 0).start()
    try:
        yield server.wait()
    finally:
        server.stop()
