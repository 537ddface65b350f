"""Sampling inside this process with transformers: no server, one model, the same log-probs a vLLM server reports.

Used where vLLM is not installed (`rollout.engine: transformers`), by training around its own model, and as the reference for the servers.
Samples depend on the prompt, its id and the seed alone, not on what else is in the batch: every prompt draws from its own generator.

Shapes: B prompts, G samples per prompt, R = B x G rows, T tokens, V vocabulary.
"""

# ruff: noqa: N803, N806 (a tensor's name ends with its shape)

import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, DynamicCache, PreTrainedModel

from ehrmind_k8s import settings
from ehrmind_k8s.errors import IntegrityError, RolloutUnavailable, SpecError
from ehrmind_k8s.records import Completion, Prompt
from ehrmind_k8s.rollout import weights
from ehrmind_k8s.rollout.base import Policy, Sampling, Stats
from ehrmind_k8s.tokenization import Tokenizer

# Prompt and completion tokens of all rows that one batch may hold in its cache.
BATCH_TOKENS = 1 << 16


class InProcess:
    """A `base.Generator` over a model in this process.

    With `model` (training's own, in whatever state its optimizer left it) `use` only records the name of the policy. With `model_folder` the
    start model is loaded once and `use` fetches, verifies and loads each policy, then runs its canary.
    """

    def __init__(self, tokenizer: Tokenizer, model: Any = None, model_folder: Path | None = None, dtype: str = "float32") -> None:
        if (model is None) == (model_folder is None):
            raise SpecError("InProcess takes a model or a model folder: exactly one of the two")
        self.tokenizer, self.policy, self._dtype = tokenizer, "", dtype
        self.stats = Stats()
        self._own = model is None
        self.model = model if model is not None else _load_model(model_folder, dtype)

    def use(self, policy: Policy) -> None:
        """Sample from this policy from now on. Raises IntegrityError (bad artifact, foreign tokenizer, canary)."""
        if self._own and self.policy != policy.name:
            started = time.monotonic()
            self.policy = ""
            with tempfile.TemporaryDirectory(prefix="ehrmind-policy-", dir=settings.load().work_dir) as scratch:
                folder = Path(scratch) / "policy"
                meta = weights.fetch(policy, folder)
                if meta.tokenizer != self.tokenizer.fingerprint:
                    raise IntegrityError(f"{policy.uri}: policy {policy.name} was made with another tokenizer than this run's start model has")
                if meta.kind == "lora":
                    self._load_adapter(policy.name, folder)
                else:
                    _load_weights(self.model, policy, folder)
            found = logprobs(self.model, meta.canary.token_ids)
            weights.check(policy, meta.canary, found, weights.TOLERANCE[self._dtype], "transformers in this process")
            self.stats = self.stats.add(syncs=1, sync_s=time.monotonic() - started)
        self.policy = policy.name

    def generate(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[list[Completion]]:
        """B groups of up to G completions in the order of `prompts`; a sample with a log-prob that is not finite is left out."""
        if not self.policy:
            raise RolloutUnavailable("no policy is loaded; call use() first")
        groups: dict[int, list[Completion]] = {}
        was_training = self.model.training
        self.model.eval()
        try:
            with torch.no_grad():
                for indices in _batches(prompts, sampling):
                    groups.update(zip(indices, self._batch([prompts[i] for i in indices], sampling), strict=True))
        finally:
            self.model.train(was_training)
        self._count(prompts, groups, sampling.n)
        return [groups[i] for i in range(len(prompts))]

    def close(self) -> None:
        """Forget the model."""
        self.model = None

    def _count(self, prompts: Sequence[Prompt], groups: Mapping[int, list[Completion]], n: int) -> None:
        kept = [completion for group in groups.values() for completion in group]
        self.stats = self.stats.add(
            prompt_tokens=sum(len(p.token_ids) for p in prompts),
            completion_tokens=sum(len(c.token_ids) for c in kept),
            dropped=n * len(prompts) - len(kept),
        )

    def _batch(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[list[Completion]]:
        stops = torch.tensor(sampling.stop_token_ids or self.tokenizer.stop_ids)
        tokens_RT, logprobs_RT = _sample_rows(self.model, self.tokenizer.pad_id, prompts, sampling, stops)
        stopped_RT = torch.isin(tokens_RT, stops)
        ends_R = torch.where(stopped_RT.any(-1), stopped_RT.int().argmax(-1) + 1, tokens_RT.shape[1])
        groups: list[list[Completion]] = []
        for b, prompt in enumerate(prompts):
            rows = range(b * sampling.n, (b + 1) * sampling.n)
            kept = [r for r in rows if torch.isfinite(logprobs_RT[r, : ends_R[r]]).all()]
            groups.append([self._completion(prompt, tokens_RT[r, : ends_R[r]], logprobs_RT[r, : ends_R[r]], bool(stopped_RT[r].any())) for r in kept])
        return groups

    def _completion(self, prompt: Prompt, tokens_T: torch.Tensor, logprobs_T: torch.Tensor, stopped: bool) -> Completion:
        ids = tuple(tokens_T.tolist())
        return Completion(prompt.id, ids, tuple(logprobs_T.tolist()), self.tokenizer.text(ids), "stop" if stopped else "length", self.policy)

    def _load_adapter(self, name: str, folder: Path) -> None:
        if isinstance(self.model, PeftModel):
            old = list(self.model.peft_config)
            self.model.load_adapter(str(folder), adapter_name=name)
            self.model.set_adapter(name)
            for adapter in old:
                self.model.delete_adapter(adapter)
        else:
            self.model = PeftModel.from_pretrained(self.model, str(folder), adapter_name=name)
        self.model.eval()


def logprobs(model: Any, token_ids: Sequence[int]) -> list[float]:
    """log p(token_ids[i+1] | token_ids[:i+1]) of every token but the first (nats, softmax in fp32)."""
    ids_T = torch.tensor(token_ids, device=model.device)
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            logits_TV = model(input_ids=ids_T[None], use_cache=False).logits[0, :-1].float()
    finally:
        model.train(was_training)
    return list(logits_TV.log_softmax(-1).gather(-1, ids_T[1:, None])[:, 0].tolist())


def canary(model: Any, tokenizer: Tokenizer) -> weights.Canary:
    """The canary of the weights a model has now, for `weights.publish`."""
    ids = weights.canary_ids(tokenizer)
    return weights.Canary(tuple(ids), tuple(logprobs(model, ids)))


def _batches(prompts: Sequence[Prompt], sampling: Sampling) -> Iterator[list[int]]:
    """Indices of prompts of similar length, the longest first, so that a batch that does not fit in memory fails at once."""
    batch: list[int] = []
    width = 0
    for i in sorted(range(len(prompts)), key=lambda i: -len(prompts[i].token_ids)):
        width = width or len(prompts[i].token_ids) + sampling.max_tokens
        if batch and (len(batch) + 1) * sampling.n * width > BATCH_TOKENS:
            yield batch
            batch, width = [], len(prompts[i].token_ids) + sampling.max_tokens
        batch.append(i)
    if batch:
        yield batch


def _sample_rows(model: Any, pad_id: int, prompts: Sequence[Prompt], sampling: Sampling, stops: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Tokens and log-probs, both [R, T] on the CPU; what follows a row's first stop token means nothing."""
    device = model.device
    ids_BT, mask_BT = _left_padded(prompts, pad_id)
    mask = mask_BT.to(device)
    cache = DynamicCache(config=model.config)
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    output = model(input_ids=ids_BT.to(device), attention_mask=mask, position_ids=positions, past_key_values=cache, logits_to_keep=1)
    cache.batch_repeat_interleave(sampling.n)  # the prompt is read once for its whole group
    logits_RV = output.logits[:, -1].repeat_interleave(sampling.n, 0)
    mask, position_R = mask.repeat_interleave(sampling.n, 0), positions[:, -1].repeat_interleave(sampling.n, 0)
    uniforms_RT = _uniforms(prompts, sampling).to(device)
    done_R = torch.zeros(len(logits_RV), dtype=torch.bool)
    tokens, values = [], []
    for t in range(sampling.max_tokens):
        token_R, value_R = _sample(logits_RV, sampling, uniforms_RT[:, t])
        tokens.append(token_R.cpu())
        values.append(value_R.cpu())
        done_R |= torch.isin(tokens[-1], stops)
        if done_R.all() or t + 1 == sampling.max_tokens:
            break
        mask = torch.cat([mask, mask.new_ones(len(mask), 1)], -1)
        position_R = position_R + 1
        output = model(input_ids=token_R[:, None], attention_mask=mask, position_ids=position_R[:, None], past_key_values=cache)
        logits_RV = output.logits[:, -1]
    return torch.stack(tokens, 1), torch.stack(values, 1)


def _left_padded(prompts: Sequence[Prompt], pad_id: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids and attention mask, both [B, T], padded on the left so that every row ends where sampling begins."""
    width = max(len(p.token_ids) for p in prompts)
    ids_BT = torch.full((len(prompts), width), pad_id)
    mask_BT = torch.zeros((len(prompts), width), dtype=torch.long)
    for b, prompt in enumerate(prompts):
        ids_BT[b, width - len(prompt.token_ids) :] = torch.tensor(prompt.token_ids)
        mask_BT[b, width - len(prompt.token_ids) :] = 1
    return ids_BT, mask_BT


def _uniforms(prompts: Sequence[Prompt], sampling: Sampling) -> torch.Tensor:
    """Numbers in [0, 1), [R, T], from one CPU generator per prompt."""
    draws = [
        torch.rand(sampling.n, sampling.max_tokens, dtype=torch.float64, generator=torch.Generator().manual_seed(sampling.seed_for(p.id)))
        for p in prompts
    ]
    return torch.cat(draws)


def _sample(logits_RV: torch.Tensor, sampling: Sampling, uniform_R: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """One token per row and its log-prob under the distribution it was drawn from (vLLM: processed_logprobs), both [R].

    Greedy takes the largest logit and reports its log-prob at temperature 1, as vLLM does.
    """
    if sampling.greedy:
        logprobs_RV = logits_RV.float().log_softmax(-1)
        token_R = logits_RV.argmax(-1)
    else:
        logprobs_RV = _nucleus(logits_RV.float() / sampling.temperature, sampling.top_p).log_softmax(-1)
        cumulative_RV = logprobs_RV.double().exp().cumsum(-1)
        # right=True: the first token whose cumulative probability exceeds the draw, so one of probability 0 is never taken.
        token_R = torch.searchsorted(cumulative_RV, uniform_R[:, None] * cumulative_RV[:, -1:], right=True)[:, 0]
        token_R = token_R.clamp(max=logits_RV.shape[-1] - 1)  # a row of NaN finds no place; its log-prob says so
    return token_R, logprobs_RV.gather(-1, token_R[:, None])[:, 0]


def _nucleus(logits_RV: torch.Tensor, top_p: float) -> torch.Tensor:
    """Logits with everything outside the smallest set of probability top_p at -inf (Holtzman et al. 2020); the likeliest token always stays."""
    if top_p >= 1:
        return logits_RV
    ordered, order = logits_RV.sort(-1)
    outside = ordered.softmax(-1).cumsum(-1) <= 1 - top_p
    outside[:, -1] = False
    return logits_RV.masked_fill(torch.zeros_like(outside).scatter(-1, order, outside), float("-inf"))


def _load_model(folder: Path | None, dtype: str) -> PreTrainedModel:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = AutoModelForCausalLM.from_pretrained(str(folder), dtype=getattr(torch, dtype), local_files_only=True, use_safetensors=True)
    return model.to(device).eval()


def _load_weights(model: Any, policy: Policy, folder: Path) -> None:
    """Load whole weights in place. A parameter may be missing only where it is tied to one that is there."""
    state = {name: tensor for file in sorted(folder.glob("*.safetensors")) for name, tensor in load_file(file).items()}
    result = model.load_state_dict(state, strict=False)
    places = {name: tensor.data_ptr() for name, tensor in model.named_parameters(remove_duplicate=False)}
    filled = {places[name] for name in state if name in places}
    lost = [name for name in result.missing_keys if places.get(name) not in filled]
    if lost or result.unexpected_keys:
        strange = sorted([*lost, *result.unexpected_keys])
        raise IntegrityError(f"{policy.uri}: policy {policy.name} is of another architecture than the start model; first difference {strange[0]}")
