"""RLVR: GRPO (arXiv 2402.03300, eq. 3) over TRL, with verifiable rewards and a sampler that may be another process.

For a prompt with G completions of rewards r_1..r_G the advantage of completion i, the same for all its tokens, is

    A_i = (r_i - mean(r)) / (std(r) + 1e-4)          `scale_rewards: none` leaves the division out (Dr. GRPO, arXiv 2503.20783)

and the loss to minimise, averaged over tokens as `loss` says, is

    - min(w A, clip(w, 1 - clip, 1 + clip_high) A) + kl x D,      w = p(token) / p_sampler(token)

D is the k3 estimate of KL(policy || SFT policy) (exp(d) - d - 1, d = log p_sft - log p), which is never negative and is *added*: it pulls
towards the SFT policy. Where all rewards of a group are equal, A is 0.

Survivors: a completion the infrastructure lost is no completion. It has no reward, its tokens are masked, and neither mean, std nor the
average over tokens or rows counts it. What we change in TRL is in `Grpo`, and a test holds each hook.

Departures from the paper: the old log-probs are the sampler's own, so w corrects for what differs between sampler and trainer (with top_p
below 1 also for the cut-off tail); the KL has the right sign.
"""

from typing import Any

import torch
from datasets import Dataset
from transformers import PreTrainedTokenizerFast

from ehrmind_k8s.errors import SpecError
from ehrmind_k8s.spec import RlvrSpec, RunSpec
from ehrmind_k8s.training import loading, ranks
from ehrmind_k8s.training.rollouts import Rollouts
from ehrmind_k8s.training.trainers import GRPOConfig, GRPOTrainer

# The losses that average over rows, so that rows without a completion must leave the divisor. The others average over unmasked tokens.
ROW_AVERAGED = ("grpo", "dr_grpo")
WEIGHT_DECAY = 0.01  # AdamW, as in the paper's scripts


class Grpo(GRPOTrainer):
    """GRPOTrainer that takes the sampler's log-probs as the old policy's and leaves lost completions out of every average."""

    _buffered_inputs: list[dict[str, Any]] | None
    _rows_per_survivor = 1.0

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        """TRL's batch (B x G rows, T tokens) with `old_per_token_logps` replaced; without vLLM inside, TRL stores the sampler's and ignores them."""
        batch = super()._generate_and_score_completions(inputs)
        batch["old_per_token_logps"] = batch["sampling_per_token_logps"]
        kept = torch.cat([torch.tensor(part) for part in ranks.gather(batch["tool_mask"].mul(batch["completion_mask"]).any(1).tolist())])
        self._rows_per_survivor = len(kept) / max(1, int(kept.sum()))
        return batch

    def _prepare_inputs(self, generation_batch: Any) -> dict[str, Any]:
        """The rows of the next forward pass. One batch is generated per optimizer step and cut into passes of similar length.

        TRL shuffles rows and pads all to the longest, which on notes of 100 to 3,000 tokens triples the work. The gradient of the step is the
        sum over all passes, so their order does not matter to it.
        """
        passes = self.args.gradient_accumulation_steps
        if self._step % passes == 0 or self._buffered_inputs is None:  # None: the first step after a resume
            self._buffered_inputs = passes_by_length(self._generate_and_score_completions(generation_batch), passes)
        return self._buffered_inputs[self._step % passes]

    def compute_loss(self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None) -> torch.Tensor:
        """TRL's loss (a scalar), its divisor corrected to survivors where it counts rows."""
        loss = super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        return loss * self._rows_per_survivor if self.loss_type in ROW_AVERAGED else loss

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        """None: a checkpoint is an artifact with a manifest, not a page on a hub."""


def passes_by_length(batch: dict[str, Any], passes: int) -> list[dict[str, Any]]:
    """Cut a batch of R rows into `passes` of R / passes rows, the longest prompts first, each without columns that are padding in all its rows.

    Rows are ordered by prompt alone: completions of one prompt stay together, and no loss that averages within a pass sees rows sorted by
    the length of what was sampled. Numbers of the whole batch (no dimension) are repeated.
    """
    order = batch["prompt_mask"].sum(1).argsort(descending=True, stable=True)
    cut = []
    for rows in order.chunk(passes):
        part = {name: value[rows] if value.ndim else value for name, value in batch.items()}
        prompt = int(part["prompt_mask"].sum(1).max())
        completion = int(part["completion_mask"].sum(1).max())
        for name, value in part.items():
            if name.startswith("prompt_"):
                part[name] = value[:, -prompt:]
            elif value.ndim == 2:
                part[name] = value[:, :completion]
        cut.append(part)
    return cut


def build(spec: RunSpec, model: Any, tokenizer: PreTrainedTokenizerFast, rollouts: Rollouts, callbacks: list[Any], folder: Any) -> Grpo:
    """The trainer. Its dataset is the order of the whole run, one issue key per prompt; `rollouts` turns keys into tokens and rewards."""
    config = GRPOConfig(
        **loading.arguments(spec, folder),
        **batch_shape(spec.rlvr, ranks.size()),
        max_steps=spec.rlvr.steps,
        learning_rate=spec.rlvr.learning_rate,
        lr_scheduler_type="constant",
        weight_decay=WEIGHT_DECAY,
        max_grad_norm=spec.rlvr.max_grad_norm,
        beta=spec.rlvr.kl,
        epsilon=spec.rlvr.clip,
        epsilon_high=spec.rlvr.clip_high,
        loss_type=spec.rlvr.loss,
        scale_rewards=spec.rlvr.scale_rewards,
        temperature=spec.rlvr.temperature,
        top_p=spec.rlvr.top_p,
        max_completion_length=spec.rlvr.max_completion_tokens,
        shuffle_dataset=False,
        use_vllm=False,
    )
    data = Dataset.from_dict({"prompt": rollouts.keys})
    return Grpo(
        model=model,
        reward_funcs=verifiable_reward,
        args=config,
        train_dataset=data,
        processing_class=tokenizer,
        rollout_func=rollouts,
        callbacks=callbacks,
    )


def verifiable_reward(reward: list[float | None], **_: Any) -> list[float | None]:
    """The rewards that `rollouts` computed with the task's scorer, one per completion; None where there is no completion."""
    return reward


def batch_shape(spec: RlvrSpec, processes: int) -> dict[str, int]:
    """How B x G completions are cut into ranks and passes. Raises SpecError where a group would straddle ranks.

    TRL generates once per optimizer step, so a checkpoint never falls inside a generation block.
    """
    rows, micro = spec.prompts_per_step * spec.samples_per_prompt, spec.micro_batch_size
    if spec.prompts_per_step % processes or (rows // processes) % micro:
        raise SpecError(
            f"rlvr.prompts_per_step {spec.prompts_per_step} x samples_per_prompt {spec.samples_per_prompt} does not cut into {processes} ranks of"
            f" whole groups and passes of micro_batch_size {micro};"
            f" choose prompts_per_step as a multiple of {processes} and a smaller micro_batch_size"
        )
    return {
        "per_device_train_batch_size": micro,
        "gradient_accumulation_steps": rows // (micro * processes),
        "num_generations": spec.samples_per_prompt,
    }
