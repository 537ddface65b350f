"""The rollout path on real vLLM servers: sync, canary, adapters, access, and what happens when a server goes."""

import signal
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from ehrmind_k8s.errors import IntegrityError, RolloutUnavailable
from ehrmind_k8s.records import Completion, Prompt
from ehrmind_k8s.rollout.base import Policy, Sampling
from ehrmind_k8s.rollout.pool import Pool
from ehrmind_k8s.rollout.weights import Canary
from tests.integration.rollout_servers import TOKEN, Run, Server

pytestmark = [pytest.mark.vllm, pytest.mark.xdist_group("vllm")]

PROMPTS = [Prompt(f"p{i}", tuple(range(10, 20 + i))) for i in range(6)]
SAMPLING = Sampling(n=3, max_tokens=8, temperature=0.8, seed=4)
MANY = [Prompt(f"m{i}", (30 + i, 31, 32)) for i in range(48)]
LONG = Sampling(n=32, max_tokens=48, seed=1)  # eight groups fill a server, so most of MANY is sent after the first are answered


def changed(run: Run, seed: int) -> Any:
    """The run's start model with weights that no other seed has."""
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(run.model_folder, dtype=torch.float32)
    return shaken(model, seed)


def shaken(model: Any, seed: int) -> Any:
    import torch

    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter) * 0.05)
    return model


def assert_made_by(model: Any, groups: list[list[Completion]], prompts: list[Prompt], sampling: Sampling) -> None:
    """Every log-prob is the one that transformers gives to the same tokens, within the canary's tolerance."""
    import torch

    for prompt, group in zip(prompts, groups, strict=True):
        assert len(group) == sampling.n
        for completion in group:
            with torch.no_grad():
                logits = model(input_ids=torch.tensor([[*prompt.token_ids, *completion.token_ids]])).logits[0, len(prompt.token_ids) - 1 : -1]
            rows = (logits / sampling.temperature).log_softmax(-1)
            expected = [float(row[token]) for row, token in zip(rows, completion.token_ids, strict=True)]
            assert completion.logprobs == pytest.approx(expected, abs=1e-3)


@pytest.fixture(scope="class")
def second(full_run: Run) -> Iterator[Server]:
    server = Server(full_run, 1).start()
    yield server.wait()
    server.stop()


@pytest.fixture(scope="class")
def lora_run(full_run: Run, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return Run.create(tmp_path_factory.mktemp("lora-run"), "lora")


@pytest.fixture(scope="class")
def lora_server(lora_run: Run) -> Iterator[Server]:
    server = Server(lora_run, 0).start()
    yield server.wait()
    server.stop()


@pytest.fixture
def pool(full_run: Run, full_server: Server) -> Iterator[Pool]:
    pool = full_run.pool(full_server)
    yield pool
    pool.close()


class TestWholeWeights:
    def test_a_sync_changes_what_is_sampled_to_the_published_weights(self, full_run: Run, pool: Pool) -> None:
        for seed in (1, 2):
            model = changed(full_run, seed)
            pool.use(full_run.publish(f"sync-{seed}", model))
            assert_made_by(model, pool.generate(PROMPTS, SAMPLING), PROMPTS, SAMPLING)

    def test_seeded_prompts_longer_than_a_pass_of_the_engine_are_sampled(self, full_run: Run, pool: Pool) -> None:
        model = changed(full_run, 10)
        pool.use(full_run.publish("long", model))
        prompts = [Prompt(f"l{i}", tuple(20 + (7 * i + j) % 200 for j in range(900))) for i in range(8)]
        assert_made_by(model, pool.generate(prompts, SAMPLING), prompts, SAMPLING)
        assert pool.stats.retries == 0

    def test_the_canary_agrees_to_rounding(self, full_run: Run, full_server: Server, pool: Pool) -> None:
        from ehrmind_k8s.rollout import weights
        from ehrmind_k8s.rollout.client import Client, Target

        policy = full_run.publish("canary-1", changed(full_run, 3))
        pool.use(policy)
        client = Client(full_server.url, TOKEN)
        target = Target(policy, weights.load(policy), full_run.document.uid)
        assert target.meta.canary.difference(client.canary(target)) < 2e-5
        client.close()

    def test_a_flipped_byte_is_refused_and_the_old_policy_serves_on(self, full_run: Run, full_server: Server, pool: Pool) -> None:
        model = changed(full_run, 4)
        good = full_run.publish("good", model)
        pool.use(good)
        bad = full_run.publish("bad", changed(full_run, 5))
        flip(bad)
        reply = full_server.post("/v1/policy/sync", {"name": bad.name, "uri": bad.uri})
        assert (reply.status_code, reply.json()["error"]) == (422, "IntegrityError")
        assert "model.safetensors" in reply.json()["message"]
        assert full_server.get("/v1/policy").json()["policy"].endswith(".good")
        assert_made_by(model, pool.generate(PROMPTS, SAMPLING), PROMPTS, SAMPLING)
        with pytest.raises(IntegrityError, match=r"model\.safetensors"):
            pool.use(bad)
        pool.use(good)
        assert_made_by(model, pool.generate(PROMPTS, SAMPLING), PROMPTS, SAMPLING)

    def test_weights_of_another_shape_do_not_reach_the_engine(self, full_run: Run, full_server: Server, pool: Pool) -> None:
        model = changed(full_run, 6)
        pool.use(full_run.publish("shape-good", model))
        other = changed(full_run, 6)
        other.resize_token_embeddings(64)
        bad = full_run.publish("shape-bad", other, canary=Canary((1, 2), (-1.0,)))
        with pytest.raises(IntegrityError, match=r"expected shape .* found"):
            pool.use(bad)
        assert full_server.get("/health").status_code == 200
        assert full_server.get("/v1/policy").json()["policy"].endswith(".shape-good")

    def test_a_wrong_canary_keeps_a_server_out(self, full_run: Run, pool: Pool) -> None:
        model = changed(full_run, 7)
        right = full_run.publish("canary-right", model)
        from ehrmind_k8s.rollout import inprocess

        wrong = full_run.publish("canary-wrong", model, canary=inprocess.canary(changed(full_run, 8), full_run.tokenizer))
        with pytest.raises(IntegrityError, match="the canary of policy canary-wrong differs"):
            pool.use(wrong)
        pool.use(right)

    def test_a_policy_from_outside_the_run_is_refused(self, full_run: Run, full_server: Server, tmp_path: Path) -> None:
        for uri in (str(tmp_path), f"{full_run.uri}/../elsewhere", "s3://bucket/policy"):
            reply = full_server.post("/v1/policy/sync", {"name": "elsewhere", "uri": uri})
            assert (reply.status_code, reply.json()["error"]) == (422, "SpecError"), uri

    def test_a_server_of_another_run_is_refused(self, full_run: Run, full_server: Server) -> None:
        pool = full_run.pool(full_server, uid="ffffffffffff", wait_s=1)
        with pytest.raises(RolloutUnavailable, match=f"serves run {full_run.document.uid}"):
            pool.use(full_run.publish("foreign", changed(full_run, 9)))
        pool.close()


class TestAccess:
    PATHS = (
        *(
            "/v1/policy",
            "/v1/models",
            "/ping",
            "/version",
            "/load",
            "/metrics",
            "/openapi.json",
            "/docs",
            "/is_paused",
            "/weight_info",
            "/server_info",
        ),
        *(
            "/v1/policy/sync",
            "/v1/policy/adapter",
            "/inference/v1/generate",
            "/inference/v1/abort_requests",
            "/v1/completions",
            "/v1/chat/completions",
        ),
        *("/invocations", "/tokenize", "/detokenize", "/pause", "/resume", "/start_weight_update", "/update_weights", "/finish_weight_update"),
        *("/collective_rpc", "/reset_prefix_cache", "/sleep", "/wake_up", "/scale_elastic_ep", "/v1/load_lora_adapter", "/v1/unload_lora_adapter"),
    )

    @pytest.mark.parametrize(
        "headers", [{}, {"Authorization": "Bearer wrong"}, {"Authorization": "Basic a"}], ids=["no token", "wrong token", "other"]
    )
    def test_without_the_token_only_health_answers(self, full_server: Server, headers: dict[str, str]) -> None:
        with httpx.Client(base_url=full_server.url, headers=headers) as client:
            found = {path: client.request(method, path).status_code for path in self.PATHS for method in ("GET", "POST")}
            assert set(found.values()) == {401}
            assert client.get("/health").status_code == 200

    def test_with_the_token_the_development_routes_are_not_there(self, full_server: Server) -> None:
        for path in ("/pause", "/collective_rpc", "/update_weights", "/reset_prefix_cache", "/v1/load_lora_adapter", "/sleep"):
            assert full_server.post(path, {}).status_code == 404, path


class TestLosingServers:
    def test_a_killed_server_loses_no_sample_and_comes_back_checked(self, full_run: Run, full_server: Server, second: Server) -> None:
        model = changed(full_run, 20)
        pool = full_run.pool(full_server, second)
        pool.use(full_run.publish("killed", model))
        groups = generate_while(pool, lambda: second.running() > 0, lambda: second.signal(signal.SIGKILL))
        assert pool.stats.retries > 0
        assert_whole(model, groups)
        second.stop()
        second.start().wait()  # with the weights of the start model
        wait_until(lambda: second.get("/v1/policy").json()["policy"] == f"{full_run.document.uid}.killed")
        groups = generate_while(pool, lambda: second.running() > 0, lambda: None)
        assert_whole(model, groups)
        pool.close()

    def test_a_server_told_to_end_loses_no_sample_and_leaves_nobody_waiting(
        self, full_run: Run, full_server: Server, second: Server, capsys: pytest.CaptureFixture[str]
    ) -> None:
        model = changed(full_run, 21)
        pool = full_run.pool(full_server, second)
        pool.use(full_run.publish("ended", model))
        groups = generate_while(pool, lambda: second.running() > 0, second.terminate)
        assert_whole(model, groups)
        said = capsys.readouterr().out
        assert "status 503 Draining" in said
        assert "ReadTimeout" not in said
        assert second.wait_end() in (0, -signal.SIGTERM, 128 + signal.SIGTERM)
        pool.close()


class TestElastic:
    """`kubectl scale` in the middle of a step, as the pool sees it: the addresses behind one name change."""

    NAME = "run-rollout.test"

    @pytest.fixture
    def zone(self, monkeypatch: pytest.MonkeyPatch) -> list[str]:
        """The addresses of NAME."""
        addresses: list[str] = []
        real = socket.getaddrinfo

        def getaddrinfo(host: Any, *args: Any, **options: Any) -> Any:
            names = addresses if host == self.NAME else [host]
            return [info for name in names for info in real(name, *args, **options)]

        monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
        return addresses

    def test_servers_join_and_leave_in_the_middle_of_a_step_and_no_sample_is_lost(self, full_run: Run, full_server: Server, zone: list[str]) -> None:
        late = Server(full_run, 1, full_server.port, host="127.0.0.2").start()
        model = changed(full_run, 22)
        zone[:] = ["127.0.0.1"]
        dtype = full_run.document.spec.model.dtype
        pool = Pool([f"dns://{self.NAME}:{full_server.port}"], TOKEN, full_run.document.uid, full_run.tokenizer, dtype, 60)
        pool.use(full_run.publish("elastic", model))
        late.wait()
        assert_whole(model, generate_while(pool, lambda: full_server.running() > 0, lambda: zone.append("127.0.0.2")))
        assert late.get("/v1/policy").json()["policy"] == f"{full_run.document.uid}.elastic"
        assert_whole(model, generate_while(pool, lambda: full_server.running() > 0 and late.running() > 0, lambda: zone.remove("127.0.0.1")))
        assert pool.stats.retries == 0
        assert [s.url for s in pool._servers.values()] == [late.url]
        pool.close()
        late.stop()


def generate_while(pool: Pool, seen: Callable[[], bool], act: Callable[[], None]) -> list[list[Completion]]:
    """The groups of MANY, with `act` done in the middle, once `seen` is true."""
    result: list[list[list[Completion]]] = []
    thread = threading.Thread(target=lambda: result.append(pool.generate(MANY, LONG)))
    thread.start()
    wait_until(seen)
    act()
    thread.join()
    return result[0]


def assert_whole(model: Any, groups: list[list[Completion]]) -> None:
    """Every group has all its samples; two of each are checked token by token."""
    assert [len(group) for group in groups] == [LONG.n] * len(MANY)
    assert_made_by(model, [group[:2] for group in groups], MANY, Sampling(2, LONG.max_tokens))


class TestAdapters:
    def test_adapters_are_swapped_by_name_and_the_older_ones_dropped(self, lora_run: Run, lora_server: Server) -> None:
        from peft import LoraConfig, get_peft_model

        from ehrmind_k8s.rollout.server.__main__ import LORA_TARGETS

        pool = lora_run.pool(lora_server)
        model = get_peft_model(start_model(lora_run), LoraConfig(r=8, lora_alpha=16, target_modules=list(LORA_TARGETS), task_type="CAUSAL_LM"))
        for version in range(4):  # version 0 is the zero adapter
            pool.use(lora_run.publish(f"v{version}-a1", model, "lora"))
            assert_made_by(model, pool.generate(PROMPTS, SAMPLING), PROMPTS, SAMPLING)
            shaken(model, version)
        uid = lora_run.document.uid
        assert lora_server.get("/v1/policy").json() == {"uid": uid, "policy": f"{uid}.v3-a1", "loaded": [f"{uid}.v2-a1", f"{uid}.v3-a1"]}
        assert sorted(p.name for p in (lora_run.root / "state").rglob("policy/*")) == ["v2-a1", "v3-a1"]
        assert pool.stats.retries == 0
        pool.close()

    def test_a_flipped_byte_is_refused_and_the_old_adapter_serves_on(self, lora_run: Run, lora_server: Server) -> None:
        from peft import LoraConfig, get_peft_model

        pool = lora_run.pool(lora_server)
        model = shaken(get_peft_model(start_model(lora_run), LoraConfig(r=8, target_modules=["q_proj"], task_type="CAUSAL_LM")), 30)
        good = lora_run.publish("good", model, "lora")
        pool.use(good)
        bad = lora_run.publish("bad", model, "lora")
        flip(bad)
        with pytest.raises(IntegrityError, match=r"adapter_model\.safetensors"):
            pool.use(bad)
        pool.use(good)
        assert_made_by(model, pool.generate(PROMPTS, SAMPLING), PROMPTS, SAMPLING)
        pool.close()

    def test_an_adapter_over_the_servers_rank_is_refused(self, lora_run: Run, lora_server: Server) -> None:
        from peft import LoraConfig, get_peft_model

        pool = lora_run.pool(lora_server)
        model = get_peft_model(start_model(lora_run), LoraConfig(r=64, target_modules=["q_proj"], task_type="CAUSAL_LM"))
        with pytest.raises(IntegrityError, match="refuses the adapter"):
            pool.use(lora_run.publish("rank", model, "lora"))
        assert lora_server.get("/health").status_code == 200
        pool.close()


def start_model(run: Run) -> Any:
    import torch
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(run.model_folder, dtype=torch.float32)


def flip(policy: Policy) -> None:
    path = next(Path(policy.uri.removeprefix("file://")).glob("*.safetensors"))
    raw = bytearray(path.read_bytes())
    raw[-1] ^= 1
    path.write_bytes(raw)


def wait_until(condition: Callable[[], bool]) -> None:
    """pytest-timeout bounds it."""
    tick = threading.Event()
    while not condition():
        tick.wait(0.05)
