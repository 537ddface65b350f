"""What sampling offers to training and evaluation, whoever does it: `pool.Pool` (vLLM servers) or `inprocess.InProcess` (transformers)."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
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


@dataclass(frozen=True, slots=True)
class Stats:
    """What a generator has done since it was made; a step's share is the difference of two of them.

    `retries` counts groups sent again elsewhere, `dropped` samples left out for a log-prob that was not finite, `syncs` calls of `use` that
    changed the policy, `sync_s` their wall time (seconds), and `pause_s` how long the slowest server stood still in each, summed.
    """

    prompt_tokens: int = 0
    completion_tokens: int = 0
    retries: int = 0
    dropped: int = 0
    syncs: int = 0
    sync_s: float = 0.0
    pause_s: float = 0.0

    def __sub__(self, earlier: "Stats") -> "Stats":
        return Stats(*(getattr(self, f.name) - getattr(earlier, f.name) for f in fields(self)))

    def add(self, **more: float) -> "Stats":
        """These figures with some raised."""
        return replace(self, **{name: getattr(self, name) + value for name, value in more.items()})


class Generator(Protocol):
    """A source of completions under one policy at a time."""

    @property
    def stats(self) -> Stats:
        """Figures up to now."""

    def use(self, policy: Policy) -> None:
        """Sample from this policy from now on. Raises IntegrityError (bad artifact) or RolloutUnavailable."""

    def generate(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[list[Completion]]:
        """B groups of up to G completions, in the order of `prompts`, all made by the current policy.

        A sample without a finite log-prob is left out of its group; a group that could not be had raises RolloutUnavailable.
        """

    def close(self) -> None:
        """Release what is held."""
