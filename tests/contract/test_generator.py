"""The same stories for every generator: transformers in this process, and a pool of vLLM servers."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ehrmind_k8s.errors import IntegrityError, RolloutUnavailable
from ehrmind_k8s.records import Prompt
from ehrmind_k8s.rollout.base import Generator, Policy, Sampling
from tests.conftest import needs_module
from tests.integration.rollout_servers import Run

PROMPTS = [Prompt(f"p{i}", tuple(range(10, 20 + 3 * i))) for i in range(5)]
SAMPLING = Sampling(n=3, max_tokens=10, temperature=0.7, top_p=0.8, seed=4)


@pytest.fixture(scope="session")
def policies(full_run: Run) -> Callable[[int], tuple[Policy, Any]]:
    """Policy number k of the run and the model it was published from, peaked, so that top_p and greedy mean something."""
    import torch
    from transformers import AutoModelForCausalLM

    made: dict[int, tuple[Policy, Any]] = {}

    def policy(k: int) -> tuple[Policy, Any]:
        if k not in made:
            model = AutoModelForCausalLM.from_pretrained(full_run.model_folder, dtype=torch.float32)
            torch.manual_seed(k)
            with torch.no_grad():
                for name, parameter in model.named_parameters():
                    parameter.add_(torch.randn_like(parameter) * (0.05 if "embed" in name else 0.3))
                model.model.norm.weight.mul_(3)
            made[k] = full_run.publish(f"contract-{k}", model), model
        return made[k]

    return policy


@pytest.fixture(params=["transformers", pytest.param("vllm", marks=[pytest.mark.vllm, pytest.mark.xdist_group("vllm")])])
def generator(request: pytest.FixtureRequest, full_run: Run) -> Iterator[Generator]:
    needs_module("torch", "pip install 'ehrmind_k8s[train]'")
    generator: Generator
    if request.param == "vllm":
        generator = full_run.pool(request.getfixturevalue("full_server"))
    else:
        from ehrmind_k8s.rollout.inprocess import InProcess

        generator = InProcess(full_run.tokenizer, model_folder=full_run.model_folder)
    yield generator
    generator.close()


Policies = Callable[[int], tuple[Policy, Any]]


def nucleus_logprobs(model: Any, prompt: Prompt, ids: tuple[int, ...], sampling: Sampling) -> list[float]:
    """By the definition: softmax at temperature over the smallest set of tokens that reaches top_p."""
    import torch

    with torch.no_grad():
        logits = model(input_ids=torch.tensor([[*prompt.token_ids, *ids]])).logits[0, len(prompt.token_ids) - 1 : -1].double()
    values = []
    for row, token in zip(logits / sampling.temperature, ids, strict=True):
        probabilities, order = row.softmax(-1).sort(descending=True)
        kept = order[probabilities.cumsum(0) - probabilities < sampling.top_p]
        assert token in kept.tolist()
        values.append(float((row.softmax(-1)[token] / row.softmax(-1)[kept].sum()).log()))
    return values


def test_groups_come_whole_in_order_and_say_who_made_them(generator: Generator, policies: Policies) -> None:
    policy, _ = policies(1)
    generator.use(policy)
    groups = generator.generate(PROMPTS, SAMPLING)
    assert [[(c.prompt_id, c.policy) for c in g] for g in groups] == [[(p.id, policy.name)] * 3 for p in PROMPTS]
    assert len({c.token_ids for c in groups[0]}) > 1


def test_logprobs_are_those_of_the_distribution_sampled_from(generator: Generator, policies: Policies) -> None:
    policy, model = policies(1)
    generator.use(policy)
    for prompt, group in zip(PROMPTS, generator.generate(PROMPTS, SAMPLING), strict=True):
        for completion in group:
            assert completion.logprobs == pytest.approx(nucleus_logprobs(model, prompt, completion.token_ids, SAMPLING), abs=1e-3)


def test_greedy_takes_the_likeliest_token_and_reports_its_logprob(generator: Generator, policies: Policies) -> None:
    policy, model = policies(1)
    generator.use(policy)
    greedy = Sampling(1, 10, greedy=True, temperature=0.1, top_p=0.1)
    for prompt, (completion,) in zip(PROMPTS, generator.generate(PROMPTS, greedy), strict=True):
        expected = nucleus_logprobs(model, prompt, completion.token_ids, Sampling(1, 10))
        assert completion.logprobs == pytest.approx(expected, abs=1e-3)
        nucleus_logprobs(model, prompt, completion.token_ids, Sampling(1, 10, top_p=1e-9))  # asserts that each is the likeliest


def test_one_seed_is_one_sample_whatever_else_is_asked_for(generator: Generator, policies: Policies) -> None:
    generator.use(policies(1)[0])
    together = [[c.token_ids for c in g] for g in generator.generate(PROMPTS, SAMPLING)]
    alone = [[c.token_ids for c in generator.generate([p], SAMPLING)[0]] for p in PROMPTS]
    other = [[c.token_ids for c in g] for g in generator.generate(PROMPTS, Sampling(3, 10, 0.7, 0.8, seed=5))]
    assert together == alone != other


def test_a_completion_ends_with_the_stop_token_or_at_its_length(generator: Generator, policies: Policies) -> None:
    generator.use(policies(1)[0])
    whole = generator.generate(PROMPTS[:1], Sampling(1, 6, greedy=True))[0][0]
    stop = whole.token_ids[4]
    cut = generator.generate(PROMPTS[:1], Sampling(1, 6, greedy=True, stop_token_ids=(stop,)))[0][0]
    assert (whole.finish_reason, len(whole.token_ids)) == ("length", 6)
    assert cut.finish_reason == "stop"
    assert cut.token_ids == whole.token_ids[: whole.token_ids.index(stop) + 1]


def test_text_is_what_the_tokens_say(generator: Generator, policies: Policies, full_run: Run) -> None:
    generator.use(policies(1)[0])
    for completion in generator.generate(PROMPTS[:1], SAMPLING)[0]:
        assert completion.text == full_run.tokenizer.text(completion.token_ids)


def test_another_policy_samples_from_its_own_weights(generator: Generator, policies: Policies) -> None:
    for k in (1, 2, 1):
        policy, model = policies(k)
        generator.use(policy)
        (group,) = generator.generate(PROMPTS[:1], SAMPLING)
        assert group[0].policy == policy.name
        assert group[0].logprobs == pytest.approx(nucleus_logprobs(model, PROMPTS[0], group[0].token_ids, SAMPLING), abs=1e-3)


def test_an_altered_policy_is_refused_by_file_and_a_good_one_is_used_after_it(generator: Generator, policies: Policies, full_run: Run) -> None:
    good, model = policies(1)
    bad = full_run.publish("contract-bad", model)
    file = Path(bad.uri.removeprefix("file://")) / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    with pytest.raises(IntegrityError, match=r"model\.safetensors"):
        generator.use(bad)
    generator.use(good)
    assert generator.generate(PROMPTS[:1], SAMPLING)[0][0].policy == good.name


def test_figures_count_tokens_and_syncs(generator: Generator, policies: Policies) -> None:
    generator.use(policies(1)[0])
    before = generator.stats
    groups = generator.generate(PROMPTS, SAMPLING)
    generator.use(policies(2)[0])
    done = generator.stats - before
    assert done.completion_tokens == sum(len(c.token_ids) for g in groups for c in g)
    assert done.prompt_tokens == sum(len(p.token_ids) for p in PROMPTS)
    assert (done.syncs, done.dropped, done.retries) == (1, 0, 0)
    assert done.sync_s > 0


def test_nothing_is_sampled_before_a_policy_is_in_use(generator: Generator) -> None:
    with pytest.raises(RolloutUnavailable):
        generator.generate(PROMPTS, SAMPLING)
