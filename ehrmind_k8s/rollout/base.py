"""What sampling offers to training and evaluation, whoever does it: `pool.Pool` (vLLM servers) or `inprocess.InProcess` (transformers)."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from ehrmind_k8s.records import Completion, Prompt


@dataclass(frozen=True, slots=True)
class Policy:
    """Published weights: an immutable artifact of kind `policy` (see `weights`). `name` is unique within the run: `base`, `sft`, `v12-a1`."""

    name: str
    uri: str


@dataclass(frozen=True, slots=True)
class Sampling:
    """How to sample. `greedy` ignores temperature and top_p. `seed` is combined with the prompt id, so a retry elsewhere repeats it.

    `stop_token_ids` empty: the tokenizer's own.
    """

    n: int
    max_tokens: int
    temperature: float = 1.0
    top_p: float = 1.0
    seed: int = 0
    greedy: bool = False
    stop_token_ids: tuple[int, ...] = ()

    def seed_for(self, prompt_id: str) -> int:
        """Seed of one prompt's group, below 2^62: apart from its neighbours, since vLLM gives sample i of a group seed + i."""
        return int.from_bytes(hashlib.sha256(f"{self.seed}/{prompt_id}".encode()).digest()[:8]) >> 2


class Generator(Protocol):
    """A source of completions under one policy at a time."""

    def use(self, policy: Policy) -> None:
        """Sample from this policy from now on. Raises IntegrityError (bad artifact) or RolloutUnavailable."""

    def generate(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[list[Completion]]:
        """B groups of up to G completions, in the order of `prompts`, all made by the current policy.

        A sample without a finite log-prob is left out of its group; a group that could not be had raises RolloutUnavailable.
        """

    def close(self) -> None:
        """Release what is held."""
