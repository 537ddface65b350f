"""The pool against servers that misbehave on request. They speak the protocol over real sockets; tests/integration has the real vLLM."""

import json
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from ehrmind_k8s import logs, progress, storage
from ehrmind_k8s.errors import DataError, IntegrityError, RolloutUnavailable, SpecError
from ehrmind_k8s.records import Prompt
from ehrmind_k8s.rollout import pool as pool_module
from ehrmind_k8s.rollout import weights
from ehrmind_k8s.rollout.base import Policy, Sampling
from ehrmind_k8s.rollout.pool import Pool, resolve
from ehrmind_k8s.rollout.weights import Canary
from ehrmind_k8s.settings import Settings
from ehrmind_k8s.tokenization import Tokenizer

UID, TOKEN, NAME = "abc123", "secret", "run-rollout.test"
CANARY = Canary((7, 8, 9), (-1.0, -2.0))
PROMPTS = [Prompt(f"p{i}", (1, 2, i)) for i in range(12)]
SAMPLING = Sampling(n=2, max_tokens=4)


class StandIn:
    """One server. `faults` are taken one per generation request: `abort`, `hang up`, `500`, `400`, `restart` (it then holds no policy).

    It generates nothing while `gate` is closed (cleared); `asked` counts requests that have come to it.
    """

    def __init__(self, uid: str = UID, port: int = 0, host: str = "127.0.0.1") -> None:
        self.gate = threading.Event()
        self.gate.set()
        self.asked = 0
        self.uid, self.policy, self.canary = uid, None, list(CANARY.logprobs)
        self.refuses = ""
        self.faults: list[str] = []
        self.syncs: list[str] = []
        self.generated: list[str] = []
        self.lock = threading.Lock()
        stand_in = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            wbufsize = -1  # head and body in one packet, or each reply waits 40 ms for an acknowledgement

            def do_GET(self) -> None:
                stand_in.answer(self, None)

            def do_POST(self) -> None:
                stand_in.answer(self, json.loads(self.rfile.read(int(self.headers["content-length"]))))

            def log_message(self, format: str, *args: Any) -> None:
                """Nothing: the output of a test is its own."""

        self.host = host
        self.http = ThreadingHTTPServer((host, port), Handler)
        self.port = self.http.server_port
        self.url = f"http://{host}:{self.port}"
        self.http.handle_error = lambda *_: None  # type: ignore[method-assign] (a client that hangs up is part of these tests)
        threading.Thread(target=self.http.serve_forever, args=(0.01,), daemon=True).start()

    def stop(self) -> None:
        self.http.shutdown()
        self.http.server_close()

    def answer(self, handler: BaseHTTPRequestHandler, body: Any) -> None:
        if body and "cache_salt" in body and "prompt_logprobs" not in body["sampling_params"]:
            self.asked += 1
            self.gate.wait()
        with self.lock:
            status, document = self.reply(handler.path, handler.headers["authorization"], body)
        if status == 0:
            handler.close_connection = True
            return
        raw = json.dumps(document).encode()
        handler.send_response(status)
        handler.send_header("content-length", str(len(raw)))
        handler.end_headers()
        handler.wfile.write(raw)

    def reply(self, path: str, authorization: str, body: Any) -> tuple[int, Any]:
        if authorization != f"Bearer {TOKEN}":
            return 401, {}
        if path == "/v1/policy":
            return 200, {"uid": self.uid, "policy": self.policy, "loaded": []}
        if path == "/v1/policy/sync":
            self.syncs.append(body["name"])
            if self.refuses:
                return 422, {"error": "IntegrityError", "message": self.refuses}
            self.policy = f"{self.uid}.{body['name']}"
            return 200, {"policy": self.policy, "pause_s": 0.5}
        if "prompt_logprobs" in body["sampling_params"]:
            rows = [None, *({str(t): {"logprob": v}} for t, v in zip(CANARY.token_ids[1:], self.canary, strict=True))]
            return 200, {"model": body["model"], "prompt_logprobs": rows, "choices": []}
        return self.generate(body)

    def generate(self, body: Any) -> tuple[int, Any]:
        fault = self.faults.pop(0) if self.faults else ""
        if fault == "restart":
            self.policy = None
        if fault in ("hang up", "restart"):
            return 0, None
        if fault.isdigit():
            return int(fault), {"error": {"message": "quotes the request"}}
        self.generated.append(body["cache_salt"])
        choice = {
            "finish_reason": "abort" if fault == "abort" else "stop",
            "token_ids": [] if fault == "abort" else [40, 41],
            "weight_versions": [{"version": self.policy or "default", "start": 0, "end": 2}],
            "logprobs": {"content": [{"token_id": t, "logprob": -0.5} for t in ([] if fault == "abort" else [40, 41])]},
        }
        return 200, {"model": body["model"], "choices": [choice | {"index": i} for i in range(body["sampling_params"]["n"])]}


@pytest.fixture(autouse=True)
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool_module, "TICK_S", 0.01)


@pytest.fixture
def start() -> Iterator[Callable[..., StandIn]]:
    started: list[StandIn] = []

    def start(**options: Any) -> StandIn:
        started.append(StandIn(**options))
        return started[-1]

    yield start
    for server in started:
        server.gate.set()
        server.stop()


@pytest.fixture
def zone(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The addresses of NAME, as a headless Service has them: none where there is no pod, or nobody to ask."""
    addresses: list[str] = []
    real = socket.getaddrinfo

    def getaddrinfo(host: Any, *args: Any, **options: Any) -> Any:
        if host != NAME:
            return real(host, *args, **options)
        if not addresses:
            raise socket.gaierror(socket.EAI_NONAME, "no such name")
        return [info for address in addresses for info in real(address, *args, **options)]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    return addresses


@pytest.fixture
def connect(tokenizer: Tokenizer) -> Iterator[Callable[..., Pool]]:
    pools: list[Pool] = []

    def connect(*urls: str, wait_s: float = 5, min_ready: int = 1, token: str = TOKEN) -> Pool:
        pools.append(Pool(urls, token, UID, tokenizer, wait_s=wait_s, min_ready=min_ready))
        return pools[-1]

    yield connect
    for pool in pools:
        pool.close()


@pytest.fixture
def publish(tmp_path: Path, tokenizer: Tokenizer) -> Callable[..., Policy]:
    def publish(name: str = "v1-a1", fingerprint: str | None = None) -> Policy:
        for file in ("config.json", "model.safetensors"):
            (tmp_path / file).write_text("{}")
        out = storage.open(str(tmp_path / "store"))
        return weights.publish(out, name, tmp_path, kind="full", tokenizer=fingerprint or tokenizer.fingerprint, canary=CANARY)

    return publish


Start, Connect, Publish = Callable[..., StandIn], Callable[..., Pool], Callable[..., Policy]


def test_every_prompt_gets_its_group_in_order(start: Start, connect: Connect, publish: Publish) -> None:
    a, b = start(), start()
    pool = connect(a.url, b.url, min_ready=2)
    pool.use(publish())
    groups = pool.generate(PROMPTS, SAMPLING)
    assert [[c.prompt_id for c in group] for group in groups] == [[p.id] * 2 for p in PROMPTS]
    assert len(a.generated) + len(b.generated) == len(PROMPTS)
    assert (pool.stats.completion_tokens, pool.stats.prompt_tokens, pool.stats.syncs, pool.stats.pause_s) == (48, 36, 1, 0.5)


@pytest.mark.parametrize("fault", ["abort", "hang up", "500", "404", "401"])
def test_a_group_that_one_server_fails_is_had_from_another(start: Start, connect: Connect, publish: Publish, fault: str) -> None:
    a, b = start(), start()
    pool = connect(a.url, b.url, min_ready=2)
    pool.use(publish())
    a.faults = [fault]
    b.faults = [fault]
    groups = pool.generate(PROMPTS, SAMPLING)
    assert [len(g) for g in groups] == [2] * len(PROMPTS)
    assert pool.stats.retries == 2


def test_a_restarted_server_is_synced_and_checked_before_it_gets_work(start: Start, connect: Connect, publish: Publish) -> None:
    server = start()
    pool = connect(server.url)
    pool.use(publish())
    server.faults = ["restart"]
    groups = pool.generate(PROMPTS[:1], SAMPLING)
    assert groups[0][0].policy == "v1-a1"
    assert server.syncs == ["v1-a1", "v1-a1"]


def test_a_server_that_lost_its_policy_is_noticed_without_a_failed_request(start: Start, connect: Connect, publish: Publish) -> None:
    server = start()
    pool = connect(server.url)
    pool.use(publish())
    server.policy = None
    wait_until(lambda: server.policy is not None)
    assert server.syncs == ["v1-a1", "v1-a1"]


def test_a_server_of_another_run_gets_no_work_and_no_policy(start: Start, connect: Connect, publish: Publish) -> None:
    foreign, own = start(uid="other"), start()
    pool = connect(foreign.url, own.url)
    pool.use(publish())
    pool.generate(PROMPTS, SAMPLING)
    assert (foreign.syncs, foreign.generated, len(own.generated)) == ([], [], len(PROMPTS))


def test_a_server_that_fails_the_canary_gets_no_work(start: Start, connect: Connect, publish: Publish) -> None:
    stale, good = start(), start()
    stale.canary = [-1.0, -2.01]
    pool = connect(stale.url, good.url)
    pool.use(publish())
    pool.generate(PROMPTS, SAMPLING)
    assert (stale.generated, len(good.generated)) == ([], len(PROMPTS))


def test_where_every_server_fails_the_canary_use_says_so_at_once(start: Start, connect: Connect, publish: Publish) -> None:
    server = start()
    server.canary = [-1.0, -2.01]
    with pytest.raises(IntegrityError, match=r"the canary of policy v1-a1 differs by 0\.01 nats, allowed 0\.001"):
        connect(server.url, wait_s=600).use(publish())


def test_an_artifact_that_every_server_refuses_is_an_integrity_error(start: Start, connect: Connect, publish: Publish) -> None:
    server = start()
    server.refuses = "model.safetensors differs from its manifest"
    with pytest.raises(IntegrityError, match=r"model\.safetensors differs"):
        connect(server.url, wait_s=600).use(publish())


def test_a_policy_of_another_tokenizer_is_refused_before_any_server_hears_of_it(start: Start, connect: Connect, publish: Publish) -> None:
    server = start()
    with pytest.raises(IntegrityError, match="another tokenizer"):
        connect(server.url).use(publish(fingerprint="0" * 64))
    assert server.syncs == []


def test_after_a_new_policy_only_its_samples_are_returned(start: Start, connect: Connect, publish: Publish) -> None:
    server = start()
    pool = connect(server.url)
    for name in ("v1-a1", "v2-a1"):
        pool.use(publish(name))
        assert {c.policy for g in pool.generate(PROMPTS, SAMPLING) for c in g} == {name}
    assert server.generated == [f"{UID}.v1-a1"] * 12 + [f"{UID}.v2-a1"] * 12


def test_a_late_server_joins(start: Start, connect: Connect, publish: Publish) -> None:
    first = start()
    late = start()
    late.stop()
    pool = connect(first.url, late.url)
    pool.use(publish())
    back = start(port=late.port)
    wait_until(lambda: back.policy is not None)
    assert back.syncs == ["v1-a1"]


def test_with_no_server_left_the_wait_is_visible_bounded_and_names_reasons(
    start: Start, connect: Connect, publish: Publish, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EHRMIND_LOG_FORMAT", "json")
    gone = start()
    gone.stop()
    with pytest.raises(RolloutUnavailable, match=rf"0 of 1 rollout servers were ready after 0\.2 s \(rollout\.wait_s\); {gone.url}: ConnectError"):
        connect(gone.url, wait_s=0.2).use(publish())
    events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    waiting = [e for e in events if e["event"] == "rollout.waiting"]
    assert len(waiting) == 1
    assert (waiting[0]["ready"], waiting[0]["needed"], waiting[0]["servers"]) == (0, 1, 1)


def test_a_wrong_token_is_named_as_the_reason(start: Start, connect: Connect, publish: Publish) -> None:
    with pytest.raises(RolloutUnavailable, match="status 401"):
        connect(start().url, wait_s=0.2, token="wrong").use(publish())


def test_a_group_that_ends_server_after_server_is_given_up_by_name(start: Start, connect: Connect, publish: Publish) -> None:
    server = start()
    pool = connect(server.url)
    pool.use(publish())
    server.faults = ["hang up"] * 100
    with pytest.raises(RolloutUnavailable, match="prompt p0 failed on 5 servers"):
        pool.generate(PROMPTS[:1], SAMPLING)


def test_a_prompt_that_no_server_can_take_is_a_data_error_and_benches_nobody(start: Start, connect: Connect, publish: Publish) -> None:
    server = start()
    pool = connect(server.url)
    pool.use(publish())
    server.faults = ["400"]
    with pytest.raises(DataError, match=r"prompt p0: .* 3 prompt tokens and up to 4 more") as caught:
        pool.generate(PROMPTS[:1], SAMPLING)
    assert "quotes" not in str(caught.value)
    assert len(pool.generate(PROMPTS[:1], SAMPLING)[0]) == 2
    assert server.syncs == ["v1-a1"]


def test_no_samples_before_a_policy_is_in_use(connect: Connect) -> None:
    with pytest.raises(RolloutUnavailable, match="use"):
        connect("http://127.0.0.1:9").generate(PROMPTS, SAMPLING)


def test_no_prompts_are_no_groups(start: Start, connect: Connect, publish: Publish) -> None:
    pool = connect(start().url)
    pool.use(publish())
    assert pool.generate([], SAMPLING) == []


class TestElastic:
    """Pods come and go behind one name, in the middle of a step. Each server takes one group at a time."""

    @pytest.fixture(autouse=True)
    def _one_at_a_time(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(pool_module, "ROWS", 2)

    def test_a_server_that_joins_gets_work(self, start: Start, connect: Connect, publish: Publish, zone: list[str]) -> None:
        first = start(host="127.0.0.2")
        late = start(host="127.0.0.3", port=first.port)
        zone[:] = ["127.0.0.2"]
        pool = connect(f"dns://{NAME}:{first.port}")
        pool.use(publish())
        first.gate.clear()
        groups = Generating(pool)
        wait_until(lambda: first.asked == 1)
        zone[:] = ["127.0.0.2", "127.0.0.3"]
        wait_until(lambda: len(late.generated) == 11)
        first.gate.set()
        assert [len(g) for g in groups.wait()] == [2] * 12
        assert (len(first.generated), late.syncs, pool.stats.retries) == (1, ["v1-a1"], 0)

    def test_a_server_that_leaves_may_finish_and_gets_no_more(self, start: Start, connect: Connect, publish: Publish, zone: list[str]) -> None:
        leaving = start(host="127.0.0.2")
        staying = start(host="127.0.0.3", port=leaving.port)
        zone[:] = ["127.0.0.2", "127.0.0.3"]
        pool = connect(f"dns://{NAME}:{leaving.port}", min_ready=2)
        pool.use(publish())
        leaving.gate.clear()
        staying.gate.clear()
        groups = Generating(pool)
        wait_until(lambda: leaving.asked == staying.asked == 1)
        zone[:] = ["127.0.0.3"]
        wait_until(lambda: leaving.url not in pool._servers)
        staying.gate.set()
        wait_until(lambda: len(staying.generated) == 11)
        leaving.gate.set()
        assert [len(g) for g in groups.wait()] == [2] * 12
        assert (len(leaving.generated), pool.stats.retries) == (1, 0)

    def test_servers_stay_while_nobody_can_be_asked_for_their_names(
        self, start: Start, connect: Connect, publish: Publish, zone: list[str], capsys: pytest.CaptureFixture[str]
    ) -> None:
        server = start()
        zone[:] = ["127.0.0.1"]
        pool = connect(f"dns://{NAME}:{server.port}")
        pool.use(publish())
        zone.clear()
        for _ in range(3):
            pool._resolve()
        assert len(pool.generate(PROMPTS, SAMPLING)) == 12
        assert "rollout.left" not in capsys.readouterr().out

    def test_the_counts_of_servers_reach_the_progress_of_the_stage(
        self, start: Start, connect: Connect, publish: Publish, zone: list[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        board = progress.Board("rlvr", 1)
        monkeypatch.setattr(logs, "_listeners", [board.hear])
        first = start(host="127.0.0.2")
        start(host="127.0.0.3", port=first.port)
        zone[:] = ["127.0.0.2", "127.0.0.3"]
        connect(f"dns://{NAME}:{first.port}", min_ready=2).use(publish())
        assert (board.ready, board.wanted) == (2, 2)
        zone[:] = ["127.0.0.2"]
        wait_until(lambda: (board.ready, board.wanted) == (1, 1))


def test_a_signal_does_not_wait_for_replies(start: Start, connect: Connect, publish: Publish) -> None:
    server = start()
    pool = connect(server.url)
    pool.use(publish())
    server.gate.clear()

    def end(signum: int, frame: Any) -> None:
        raise SystemExit(143)

    previous = signal.signal(signal.SIGUSR1, end)
    main = threading.get_ident()
    threading.Thread(target=lambda: (wait_until(lambda: server.asked > 0), signal.pthread_kill(main, signal.SIGUSR1))).start()
    try:
        with pytest.raises(SystemExit):
            pool.generate(PROMPTS, SAMPLING)
    finally:
        signal.signal(signal.SIGUSR1, previous)
    assert server.generated == []


def test_dns_names_one_server_per_address() -> None:
    assert "http://127.0.0.1:8000" in resolve("dns://localhost:8000")
    assert resolve("dns://no-such-host.invalid:8000") == []
    assert resolve("http://a:1/") == ["http://a:1"]


def test_the_pool_needs_urls_from_its_backend(tokenizer: Tokenizer, tmp_path: Path) -> None:
    from ehrmind_k8s import spec

    with pytest.raises(SpecError, match="EHRMIND_ROLLOUT_URLS"):
        Pool.connect(spec.load({"task": "medcalc", "preset": "tiny"}), str(tmp_path), UID, tokenizer, Settings(rollout_urls=None))  # type: ignore[call-arg]


class Generating:
    """The groups of PROMPTS, asked for in another thread."""

    def __init__(self, pool: Pool) -> None:
        self.groups: list[Any] = []
        self.thread = threading.Thread(target=lambda: self.groups.extend(pool.generate(PROMPTS, SAMPLING)))
        self.thread.start()

    def wait(self) -> list[Any]:
        self.thread.join()
        return self.groups


def wait_until(condition: Callable[[], bool]) -> None:
    """Until the pool's own thread has acted; pytest-timeout bounds it."""
    tick = threading.Event()
    while not condition():
        tick.wait(0.005)
