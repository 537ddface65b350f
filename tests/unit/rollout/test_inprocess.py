"""Sampling with transformers in this process, on the toy model."""

from pathlib import Path
from typing import Any

import pytest

from ehrmind_k8s import storage
from ehrmind_k8s.errors import IntegrityError, RolloutUnavailable
from ehrmind_k8s.records import Prompt
from ehrmind_k8s.rollout import weights
from ehrmind_k8s.rollout.base import Policy, Sampling
from ehrmind_k8s.rollout.weights import Canary
from ehrmind_k8s.tokenization import Tokenizer

torch = pytest.importorskip("torch", reason="needs torch: pip install 'ehrmind_k8s[train]'")
from peft import LoraConfig, get_peft_model  # noqa: E402
from transformers import AutoModelForCausalLM  # noqa: E402

from ehrmind_k8s.rollout import inprocess  # noqa: E402
from ehrmind_k8s.rollout.inprocess import InProcess  # noqa: E402

PROMPTS = [Prompt("a", (10, 11, 12)), Prompt("b", (20, 21, 22, 23, 24, 25, 26)), Prompt("c", (30, 31))]
SAMPLING = Sampling(n=3, max_tokens=8, temperature=0.7, top_p=0.9, seed=5)


def load(folder: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)


@pytest.fixture(scope="module")
def generator(model_folder: Path, tokenizer: Tokenizer) -> InProcess:
    """Around a model whose head is scaled up, so that the distribution is peaked and top_p cuts something."""
    model = load(model_folder)
    with torch.no_grad():
        model.lm_head.weight.mul_(20)
    generator = InProcess(tokenizer, model=model)
    generator.use(Policy("v1-a1", "unused"))
    return generator


def expected(model: Any, prompt: Prompt, ids: tuple[int, ...], sampling: Sampling) -> list[float]:
    """Log-probs by the definition: one forward pass, softmax at temperature, smallest set of tokens reaching top_p."""
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([[*prompt.token_ids, *ids]])).logits[0, len(prompt.token_ids) - 1 : -1].double()
    values = []
    for row, token in zip(logits / (1 if sampling.greedy else sampling.temperature), ids, strict=True):
        probabilities = row.softmax(-1)
        order = probabilities.argsort(descending=True)
        before = probabilities[order].cumsum(0) - probabilities[order]
        kept = order if sampling.greedy else order[before < sampling.top_p]
        assert token in kept.tolist()
        values.append(float((probabilities[token] / probabilities[kept].sum()).log()))
    return values


@pytest.mark.parametrize("sampling", [SAMPLING, Sampling(2, 8, seed=1), Sampling(1, 8, greedy=True)], ids=["nucleus", "whole softmax", "greedy"])
def test_logprobs_are_those_of_the_distribution_sampled_from(generator: InProcess, sampling: Sampling) -> None:
    for prompt, group in zip(PROMPTS, generator.generate(PROMPTS, sampling), strict=True):
        assert len(group) == sampling.n
        for completion in group:
            assert completion.logprobs == pytest.approx(expected(generator.model, prompt, completion.token_ids, sampling), abs=1e-4)


def test_a_group_does_not_depend_on_its_batch(generator: InProcess) -> None:
    together = generator.generate(PROMPTS, SAMPLING)
    alone = [generator.generate([p], SAMPLING)[0] for p in PROMPTS]
    assert [[c.token_ids for c in g] for g in together] == [[c.token_ids for c in g] for g in alone]


def test_samples_of_a_group_differ_and_another_seed_gives_others(generator: InProcess) -> None:
    def tokens(seed: int) -> list[tuple[int, ...]]:
        return [c.token_ids for c in generator.generate(PROMPTS[:1], Sampling(4, 8, seed=seed))[0]]

    assert len(set(tokens(1))) > 1
    assert tokens(1) == tokens(1) != tokens(2)


def test_two_prompts_of_the_same_tokens_are_sampled_apart(generator: InProcess) -> None:
    first, second = generator.generate([Prompt("x", (10, 11)), Prompt("y", (10, 11))], SAMPLING)
    assert [c.token_ids for c in first] != [c.token_ids for c in second]


def test_prompts_over_one_batch_come_back_in_order(generator: InProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = generator.generate(PROMPTS, SAMPLING)
    monkeypatch.setattr(inprocess, "BATCH_TOKENS", 40)
    assert [[c.token_ids for c in g] for g in generator.generate(PROMPTS, SAMPLING)] == [[c.token_ids for c in g] for g in whole]
    assert [g[0].prompt_id for g in whole] == ["a", "b", "c"]


def test_a_completion_ends_with_its_first_stop_token(generator: InProcess) -> None:
    free = generator.generate(PROMPTS[:1], Sampling(1, 8, greedy=True))[0][0]
    stop = free.token_ids[2]
    cut = generator.generate(PROMPTS[:1], Sampling(1, 8, greedy=True, stop_token_ids=(stop,)))[0][0]
    assert cut.token_ids == free.token_ids[: free.token_ids.index(stop) + 1]
    assert (cut.finish_reason, free.finish_reason) == ("stop", "length")
    assert len(cut.logprobs) == len(cut.token_ids)
    assert cut.policy == "v1-a1"


def test_a_sample_whose_logprob_is_not_finite_is_left_out(model_folder: Path, tokenizer: Tokenizer) -> None:
    model = load(model_folder)
    with torch.no_grad():
        model.model.embed_tokens.weight[30] = float("nan")
    generator = InProcess(tokenizer, model=model)
    generator.use(Policy("v1-a1", "unused"))
    assert [len(g) for g in generator.generate(PROMPTS, Sampling(2, 3))] == [2, 2, 0]


def test_training_mode_of_a_given_model_is_put_back(generator: InProcess) -> None:
    generator.model.train()
    generator.generate(PROMPTS[:1], SAMPLING)
    assert generator.model.training


def test_nothing_is_sampled_before_a_policy_is_in_use(model_folder: Path, tokenizer: Tokenizer) -> None:
    with pytest.raises(RolloutUnavailable, match="use"):
        InProcess(tokenizer, model_folder=model_folder).generate(PROMPTS, SAMPLING)


@pytest.mark.parametrize("tied", [False, True], ids=["head of its own", "tied head"])
def test_use_loads_full_weights_and_the_canary_agrees(model_folder: Path, tokenizer: Tokenizer, tmp_path: Path, tied: bool) -> None:
    start = load(model_folder)
    start.config.tie_word_embeddings = tied
    if tied:
        start.tie_weights()
    start.save_pretrained(tmp_path / "start")
    generator = InProcess(tokenizer, model_folder=tmp_path / "start")
    trained = _changed(start)
    policy = _publish(tmp_path, trained, tokenizer, "full", inprocess.canary(trained, tokenizer))
    generator.use(policy)
    ids = list(range(50, 70))
    assert inprocess.logprobs(generator.model, ids) == pytest.approx(inprocess.logprobs(trained, ids), abs=1e-5)
    assert generator.generate(PROMPTS[:1], SAMPLING)[0][0].policy == policy.name


def test_a_wrong_canary_is_refused_and_nothing_is_sampled_from_it(model_folder: Path, tokenizer: Tokenizer, tmp_path: Path) -> None:
    generator = InProcess(tokenizer, model_folder=model_folder)
    trained = _changed(load(model_folder))
    policy = _publish(tmp_path, trained, tokenizer, "full", inprocess.canary(load(model_folder), tokenizer))
    with pytest.raises(IntegrityError, match="canary"):
        generator.use(policy)
    with pytest.raises(RolloutUnavailable):
        generator.generate(PROMPTS, SAMPLING)


def test_a_policy_that_lacks_a_tensor_is_refused_by_its_name(model_folder: Path, tokenizer: Tokenizer, tmp_path: Path) -> None:
    model = load(model_folder)
    state = {name: tensor for name, tensor in model.state_dict().items() if name != "model.layers.3.mlp.up_proj.weight"}
    model.save_pretrained(tmp_path / "save", state_dict=state)
    out = storage.open(str(tmp_path / "s"))
    policy = weights.publish(out, "sft", tmp_path / "save", kind="full", tokenizer=tokenizer.fingerprint, canary=inprocess.canary(model, tokenizer))
    with pytest.raises(IntegrityError, match=r"first difference model\.layers\.3\.mlp\.up_proj\.weight"):
        InProcess(tokenizer, model_folder=model_folder).use(policy)


def test_a_policy_of_another_tokenizer_is_refused(model_folder: Path, tokenizer: Tokenizer, tmp_path: Path) -> None:
    model = load(model_folder)
    model.save_pretrained(tmp_path / "save")
    policy = weights.publish(
        storage.open(str(tmp_path / "s")), "sft", tmp_path / "save", kind="full", tokenizer="other", canary=inprocess.canary(model, tokenizer)
    )
    with pytest.raises(IntegrityError, match="another tokenizer"):
        InProcess(tokenizer, model_folder=model_folder).use(policy)


def test_adapters_are_swapped_and_the_zero_adapter_is_the_start_model(model_folder: Path, tokenizer: Tokenizer, tmp_path: Path) -> None:
    generator = InProcess(tokenizer, model_folder=model_folder)
    adapted = get_peft_model(load(model_folder), LoraConfig(r=4, target_modules=["q_proj", "down_proj"], task_type="CAUSAL_LM"))
    zero = _publish(tmp_path, adapted, tokenizer, "lora", inprocess.canary(load(model_folder), tokenizer), "base")
    one = _publish(tmp_path, _changed(adapted), tokenizer, "lora", inprocess.canary(adapted, tokenizer), "v1-a1")
    for policy in (zero, one, zero):
        generator.use(policy)  # raises where the canary differs
    assert list(generator.model.peft_config) == ["base"]


def _changed(model: Any) -> Any:
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter) * 0.05)
    return model


def _publish(tmp_path: Path, model: Any, tokenizer: Tokenizer, kind: Any, canary: Canary, name: str = "v1-a1") -> Policy:
    folder = tmp_path / f"save-{name}"
    model.save_pretrained(folder)
    return weights.publish(storage.open(str(tmp_path / "store")), name, folder, kind=kind, tokenizer=tokenizer.fingerprint, canary=canary)
