"""The learning curve of RLVR: what TRL measured, what the scorer said, and where the time of each step went."""

import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from transformers import TrainerCallback

from ehrmind_k8s import logs
from ehrmind_k8s.records import Example
from ehrmind_k8s.training import ranks
from ehrmind_k8s.training.loop import Curve
from ehrmind_k8s.training.rollouts import OUTCOMES, Rollouts, Step
from ehrmind_k8s.training.stopping import Abandoned

# Our name -> TRL's. `kl` is against the SFT policy, and absent where rlvr.kl is 0: TRL then computes no reference.
FROM_TRL = {
    "reward": "reward",
    "reward_std": "reward_std",
    "kl": "kl",
    "entropy": "entropy",
    "clip_ratio": "clip_ratio/region_mean",
    "learning_rate": "learning_rate",
    "grad_norm": "grad_norm",
    "loss": "loss",
}


class Steps(TrainerCallback):
    """Settles each step, checks validation rows when due, and writes one line. `trainer` is set once there is one."""

    def __init__(self, rollouts: Rollouts, validation: Sequence[Example], curve: Curve, attempt: int) -> None:
        self.rollouts, self.validation, self.curve, self.attempt = rollouts, validation, curve, attempt
        self.trainer: Any = None
        self.scores: dict[int, float] = {}
        self._step, self._train_s, self._validate_s = Step(), 0.0, 0.0
        self._stats = rollouts.generator.stats
        self._began = self._since = time.monotonic()

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._since = time.monotonic()

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._began = time.monotonic()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        elapsed = time.monotonic() - self._began
        self._step = self.rollouts.settle()
        policies = self.rollouts.policies
        self._train_s = elapsed - self._step.generate_s - policies.publish_s - policies.sync_s
        self._validate_s = self._validate(state)

    def on_log(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        found = kwargs["logs"]
        if "loss" not in found or ranks.rank() != 0:  # the summary at the end has no loss
            return
        line = self._line(state.global_step, found)
        self.curve.add(line)
        glance = {k: line[k] for k in ("reward", "accuracy", "validation_accuracy") if line.get(k) is not None}
        seconds = line["seconds"]["total"]
        logs.figures(**line, tokens_per_s=line["completion_tokens_total"] / seconds if seconds else None, step_s=seconds)
        logs.progress(state.global_step, state.max_steps, "step", **glance)

    def _validate(self, state: Any) -> float:
        """Greedy accuracy of the version just trained, at every `validate_every` steps and at the last one; seconds it took, without the sync.

        On SIGTERM it is left out: the step is whole, and what is left of the grace is for its checkpoint.
        """
        every = self.rollouts.spec.rlvr.validate_every
        if not self.validation or not every or (state.global_step % every and state.global_step != state.max_steps):
            return 0.0
        started = time.monotonic()
        with suppress(Abandoned), self.rollouts.stop.waiting():
            self.rollouts.policies.follow(self.trainer, state.global_step)
            started = time.monotonic()
            self.scores[state.global_step] = self.rollouts.accuracy(self.validation, self.trainer)
        return time.monotonic() - started

    def _line(self, step: int, found: dict[str, Any]) -> dict[str, Any]:
        done, total = self._step, sum(self._step.scored)
        stats, self._stats = self.rollouts.generator.stats - self._stats, self.rollouts.generator.stats
        publish_s, sync_s = self.rollouts.policies.take_seconds()
        now = time.monotonic()
        seconds = {"generate": done.generate_s, "publish": publish_s, "sync": sync_s, "pause": stats.pause_s}
        seconds |= {"train": self._train_s, "validate": self._validate_s, "total": now - self._since}
        line = {
            "step": step,
            "attempt": self.attempt,
            **{ours: found.get(theirs) for ours, theirs in FROM_TRL.items()},
            "accuracy": done.outcomes["correct"] / total if total else None,
            "completion_tokens": done.completion_tokens / total if total else None,
            "completion_tokens_total": done.completion_tokens,
            "prompt_tokens_total": done.prompt_tokens,
            "outcomes": {name: done.outcomes[name] for name in OUTCOMES},
            "dropped": done.lost,
            "retries": stats.retries,
            "seconds": {name: round(value, 4) for name, value in seconds.items()},
        }
        self._since = now
        return line | ({"validation_accuracy": self.scores[step]} if step in self.scores else {})
