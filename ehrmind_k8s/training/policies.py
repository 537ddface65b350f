"""Policy versions: version N is what training holds after N steps, named `v<N>-a<K>`; version 0 is the SFT policy itself.

With vLLM servers every version is published (weights, canary, manifest last) and pulled by the servers before the first prompt that needs it.
With `rollout.engine: transformers` the sampler shares the trainer's weights and nothing has to move, so only checkpoint steps and the last
one are published: a later stage, or a person, finds the same layout.
"""

import shutil
import time
from typing import Any

from ehrmind_k8s import artifacts
from ehrmind_k8s.context import Context
from ehrmind_k8s.rollout import weights
from ehrmind_k8s.rollout.base import Generator, Policy
from ehrmind_k8s.rollout.inprocess import canary
from ehrmind_k8s.storage import join
from ehrmind_k8s.tokenization import Tokenizer
from ehrmind_k8s.training import loading, ranks


def publish_model(context: Context, name: str, model: Any, tokenizer: Tokenizer) -> None:
    """Publish what the model holds now as policy `name` of this stage, unless an earlier attempt has. On the first rank."""
    if ranks.rank() != 0 or artifacts.load(context.out, artifacts.policy_key(name)):
        return
    folder, kind = context.work / name, context.spec.model.tuning
    loading.save(model, folder, context.spec.model.dtype)
    if name != "base":
        loading.put_terms(context.inputs["prepare"], folder)
    weights.publish(context.out, name, folder, kind=kind, tokenizer=tokenizer.fingerprint, canary=canary(model, tokenizer), claim=context.claim)


class Policies:
    """Publishes what training holds and keeps the generator at it."""

    def __init__(self, context: Context, generator: Generator, tokenizer: Tokenizer, start: Policy) -> None:
        self.context, self.generator, self.tokenizer, self.start = context, generator, tokenizer, start
        self.current, self.step = Policy("", ""), -1
        self.publish_s = self.sync_s = 0.0

    def follow(self, trainer: Any, step: int) -> None:
        """Have the generator sample from version `step`, publishing it first where somebody has to fetch it. Nothing to do when it does already.

        Rank 0 publishes and syncs; the others join once that has worked. Raises RolloutUnavailable, IntegrityError or Fenced on every rank.
        """
        if step == self.step:
            return
        self.current = ranks.on_first(lambda: self._advance(trainer, step))
        if ranks.rank() != 0:
            self.generator.use(self.current)
        self.step = step

    def take_seconds(self) -> tuple[float, float]:
        """Time spent publishing and syncing since the last call (seconds)."""
        spent = self.publish_s, self.sync_s
        self.publish_s = self.sync_s = 0.0
        return spent

    def _advance(self, trainer: Any, step: int) -> Policy:
        started = time.monotonic()
        policy = self._publish(trainer, step) if step else self.start
        published = time.monotonic()
        self.generator.use(policy)
        self.publish_s += published - started
        self.sync_s += time.monotonic() - published
        self._retain()
        return policy

    def _publish(self, trainer: Any, step: int) -> Policy:
        spec, name = self.context.spec, f"v{step}-a{self.context.attempt}"
        key = artifacts.policy_key(name)
        moves = spec.rollout.engine == "vllm"
        if not moves and step % spec.rlvr.checkpoint_every and step != spec.rlvr.steps:
            return Policy(name, join(self.context.out.uri, key))
        folder = self.context.work / name
        model = trainer.accelerator.unwrap_model(trainer.model)
        loading.save(model, folder, spec.model.dtype)
        loading.put_terms(self.context.inputs["prepare"], folder)
        with trainer.accelerator.autocast():
            expected = canary(model, self.tokenizer)
        policy = weights.publish(
            self.context.out, name, folder, kind=spec.model.tuning, tokenizer=self.tokenizer.fingerprint, canary=expected,
            claim=self.context.claim, version=step,
        )  # fmt: skip
        shutil.rmtree(folder)
        return policy

    def _retain(self) -> None:
        """Delete versions more than `keep_policies` behind the newest. No server is still on one: every server in use has just been synced."""
        found = sorted(artifacts.versions(self.context.out), key=lambda v: (v[1], v[0]))
        for version, attempt in found[: -1 - self.context.spec.rlvr.keep_policies]:
            self.context.claim.check()
            artifacts.remove(self.context.out, artifacts.policy_key(f"v{version}-a{attempt}"))
