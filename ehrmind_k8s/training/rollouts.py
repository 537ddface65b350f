"""From prompt to reward: TRL asks for completions by issue key, a generator samples them, the task's one scorer judges them.

A key is `<epoch>/<example id>`: it names an issue of the ledger, seeds its samples (so a resumed step draws the same ones, and another epoch
others), and keeps text out of TRL. Prompts are tokenised once, by `tokenization`; token ids are what goes to the sampler and to the loss.

Shapes: B prompts of this rank, G samples per prompt.
"""

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from typing import Any

from ehrmind_k8s.errors import RunFailed, TryAgain
from ehrmind_k8s.records import Completion, Example, Prompt, Verdict
from ehrmind_k8s.rollout.base import Generator, Sampling
from ehrmind_k8s.spec import RunSpec
from ehrmind_k8s.tasks.base import Task
from ehrmind_k8s.tasks.reward import reward
from ehrmind_k8s.tokenization import Tokenizer
from ehrmind_k8s.training import order, ranks
from ehrmind_k8s.training.ledger import Entry, Ledger
from ehrmind_k8s.training.policies import Policies
from ehrmind_k8s.training.stopping import Stop

OUTCOMES = ("malformed", "unparseable", "wrong", "correct")


@dataclass
class Step:
    """What one rank sampled in one step; `merge` adds up ranks. `scored` holds the judged completions of each issue, in order."""

    scored: list[int] = field(default_factory=list)
    lost: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    prompt_tokens: int = 0
    completion_tokens: int = 0
    generate_s: float = 0.0

    @staticmethod
    def merge(parts: Sequence["Step"]) -> "Step":
        """The step over all ranks; the slowest rank's time is the step's."""
        whole = Step()
        for part in parts:
            whole.scored += part.scored
            whole.lost += part.lost
            whole.outcomes += part.outcomes
            whole.prompt_tokens += part.prompt_tokens
            whole.completion_tokens += part.completion_tokens
        whole.generate_s = max(part.generate_s for part in parts)
        return whole


class Rollouts:
    """TRL's `rollout_func`, and the greedy validation beside it."""

    def __init__(
        self, spec: RunSpec, task: Task, tokenizer: Tokenizer, train: Sequence[Example], generator: Generator, policies: Policies, ledger: Ledger
    ) -> None:
        self.spec, self.task, self.tokenizer, self.generator, self.policies, self.ledger = spec, task, tokenizer, generator, policies, ledger
        self.rows = list(train)
        self.examples: Mapping[str, Example] = {e.id: e for e in train}
        self.prompt_ids = cache(lambda example_id: tokenizer.prompt(self.examples[example_id]).token_ids)
        self.sampling = Sampling(
            n=spec.rlvr.samples_per_prompt,
            max_tokens=spec.rlvr.max_completion_tokens,
            temperature=spec.rlvr.temperature,
            top_p=spec.rlvr.top_p,
            seed=spec.seed,
        )
        self.entries: list[Entry] = []
        self.step = Step()
        self.stop = Stop()

    @cached_property
    def issues(self) -> list[tuple[int, str]]:
        """(epoch, example id) of every prompt of the run, in order."""
        count = self.spec.rlvr.steps * self.spec.rlvr.prompts_per_step
        return [(epoch, self.rows[index].id) for epoch, index in order.positions(self.spec.seed, len(self.rows), count)]

    @property
    def keys(self) -> list[str]:
        """The issues as TRL sees them: strings, which it passes on untouched."""
        return [f"{epoch}/{example_id}" for epoch, example_id in self.issues]

    def __call__(self, prompts: list[str], trainer: Any) -> dict[str, list[Any]]:
        """One completion per entry of `prompts` (B x G keys, each repeated G times in a row).

        Raises RolloutUnavailable, after the ledger has it, when no server could be had, and Abandoned on SIGTERM.
        """
        with self.stop.waiting():
            return self._sample(prompts, trainer)

    def _sample(self, prompts: list[str], trainer: Any) -> dict[str, list[Any]]:
        step, samples = trainer.state.global_step + 1, self.sampling.n
        keys = prompts[::samples]
        assert prompts == [key for key in keys for _ in range(samples)], "TRL no longer repeats prompts group by group"
        self.policies.follow(trainer, step - 1)
        self._issue(step)
        started = time.monotonic()
        asked = [Prompt(key, self.prompt_ids(key.split("/", 1)[1])) for key in keys]
        try:
            with trainer.accelerator.autocast():
                groups = self.generator.generate(asked, self.sampling)
        except TryAgain:
            if self.entries:
                self.ledger.fail(self.entries)
            raise
        self.step = Step(generate_s=time.monotonic() - started)
        columns: dict[str, list[Any]] = {name: [] for name in ("prompt_ids", "completion_ids", "logprobs", "env_mask", "reward")}
        for prompt, group in zip(asked, groups, strict=True):
            self._add(columns, prompt, group)
        return columns

    def settle(self) -> Step:
        """The step that has just been trained, over all ranks; the ledger learns what became of its issues. Raises RunFailed where none was left."""
        whole = Step.merge(ranks.gather(self.step))
        if ranks.rank() == 0:
            self.ledger.settle(self.entries, whole.scored)
            self.entries = []
        if not any(whole.scored):
            raise _diverged(f"the {whole.lost} completions of a step")
        return whole

    def accuracy(self, rows: Sequence[Example], trainer: Any) -> float:
        """Share of `rows` whose greedy completion is right (of 1), each rank taking its share. A completion that was lost counts as neither.

        Raises RunFailed where all were lost.
        """
        mine = rows[ranks.rank() :: ranks.size()]
        greedy = Sampling(n=1, max_tokens=self.spec.rlvr.max_completion_tokens, greedy=True, seed=self.spec.seed)
        with trainer.accelerator.autocast():
            groups = self.generator.generate([self.tokenizer.prompt(e) for e in mine], greedy)
        correct = [self.task.score(e, c.text).correct for e, group in zip(mine, groups, strict=True) for c in group]
        whole = [c for part in ranks.gather(correct) for c in part]
        if not whole:
            raise _diverged(f"the {len(rows)} completions of a validation")
        return sum(whole) / len(whole)

    def _issue(self, step: int) -> None:
        if ranks.rank() == 0:
            size = self.spec.rlvr.prompts_per_step
            self.entries = self.ledger.issue(step, self.issues[(step - 1) * size : step * size])

    def _add(self, columns: dict[str, list[Any]], prompt: Prompt, group: Sequence[Completion]) -> None:
        """Append G entries for one prompt: its completions, then placeholders for those lost, which no average may see."""
        example = self.examples[prompt.id.split("/", 1)[1]]
        kept = [c for c in group if c.policy == self.policies.current.name]
        lost = self.sampling.n - len(kept)
        verdicts = [self.task.score(example, c.text) for c in kept]
        columns["prompt_ids"] += [list(prompt.token_ids)] * self.sampling.n
        columns["completion_ids"] += [list(c.token_ids) for c in kept] + [[self.tokenizer.eos_id]] * lost
        columns["logprobs"] += [list(c.logprobs) for c in kept] + [[0.0]] * lost
        columns["env_mask"] += [[1] * len(c.token_ids) for c in kept] + [[0]] * lost
        columns["reward"] += [reward(v, self.spec.rlvr.reward) for v in verdicts] + [None] * lost
        self.step.scored.append(len(kept))
        self.step.lost += lost
        self.step.outcomes.update(map(_outcome, verdicts))
        self.step.prompt_tokens += len(prompt.token_ids) * len(kept)
        self.step.completion_tokens += sum(len(c.token_ids) for c in kept)


def _diverged(what: str) -> RunFailed:
    return RunFailed(f"rlvr: none of {what} had finite log-probs, so the weights are not finite either; lower rlvr.learning_rate or raise rlvr.kl")


def _outcome(verdict: Verdict) -> str:
    if verdict.outcome != "scored":
        return verdict.outcome
    return "correct" if verdict.correct else "wrong"
