"""rlvr: improve the SFT policy on rewards that the task's scorer verifies.

Reads `prepare` (train and validation rows, never test rows) and `sft/policy/sft`; publishes policy versions, checkpoints and the ledger.
A killed attempt is continued from the newest checkpoint that its manifest proves whole.
"""

import json
from functools import partial
from pathlib import Path
from typing import Any

from ehrmind_k8s import artifacts, examples, logs, rollout, settings
from ehrmind_k8s.context import Context, Output
from ehrmind_k8s.evaluation.generate import stratify
from ehrmind_k8s.rollout.base import Generator
from ehrmind_k8s.rollout.inprocess import InProcess
from ehrmind_k8s.tasks import registry
from ehrmind_k8s.tokenization import Tokenizer
from ehrmind_k8s.training import checkpoint, ledger, loading, loop, ranks, rlvr
from ehrmind_k8s.training.checkpoint import Checkpoint
from ehrmind_k8s.training.policies import Policies
from ehrmind_k8s.training.rollouts import Rollouts
from ehrmind_k8s.training.steps import Steps

LEDGER = "ledger.json"


def run(context: Context) -> Output:
    """Train and publish. Raises RolloutUnavailable, Fenced, IntegrityError, SpecError; SystemExit(143) on SIGTERM, after a checkpoint."""
    spec, out = context.spec, context.work / "out"
    ranks.join()
    prepared = loading.prepared(context.inputs["prepare"], context.work / "prepare", "train.parquet", "validation.parquet", artifacts.MODEL)
    tokenizer = Tokenizer(prepared / artifacts.MODEL)
    start = loading.output_policy(context.inputs["sft"], "sft", "sft")
    model = loading.policy_model(spec.model, prepared / artifacts.MODEL, start, context.work / "start")
    generator = _generator(context, tokenizer, model, prepared / artifacts.MODEL)
    try:
        policies = Policies(context, generator, tokenizer, start)
        _train(context, prepared, tokenizer, model, generator, policies, loop.Curve(out))
    finally:
        generator.close()
    sums = ledger.audit(context.out) if ranks.rank() == 0 else {}
    (out / LEDGER).write_text(json.dumps(sums, indent=1), encoding="utf-8")
    output = {"rlvr": artifacts.policy_key(policies.current.name)}
    return Output(out, {"policies": output, "steps": spec.rlvr.steps, "ledger": sums}, message=f"{spec.rlvr.steps} steps")


def _generator(context: Context, tokenizer: Tokenizer, model: Any, folder: Path) -> Generator:
    if context.spec.rollout.engine == "transformers":
        return InProcess(tokenizer, model=model)
    return rollout.connect(context.spec, context.run_uri, context.uid, tokenizer, folder, settings.load())


def _train(context: Context, prepared: Path, tokenizer: Tokenizer, model: Any, generator: Generator, policies: Policies, curve: loop.Curve) -> None:
    spec, restored = context.spec, context.work / "restored"
    book = ledger.Ledger(context.claim)
    resumed = checkpoint.restore_everywhere(context.out, restored, ledger.read(context.out)[1])
    if ranks.rank() == 0:
        begin = book.begin(resumed.step if resumed else 0)
        logs.event("rlvr.start", steps=spec.rlvr.steps, from_step=begin.after_step, voided=begin.voided)
    if resumed:
        curve.restore(restored)
    train, validation = (examples.read_split(prepared / f"{split}.parquet") for split in ("train", "validation"))
    rollouts = Rollouts(spec, registry.get(spec.task), tokenizer, train, generator, policies, book)
    steps = Steps(rollouts, stratify(validation, spec.rlvr.validate_limit, spec.seed), curve, context.attempt)
    processing_class = loading.processing_class(tokenizer, prepared / artifacts.MODEL)
    trainer = rlvr.build(spec, model, processing_class, rollouts, [steps], context.work / "trainer")
    steps.trainer = trainer

    def describe(step: int) -> Checkpoint:
        position = step * spec.rlvr.prompts_per_step
        return Checkpoint(step, context.attempt, position, policies.current.name, steps.scores.get(step), ranks.size())

    terms = partial(loading.put_terms, context.inputs["prepare"])
    boundary = loop.StepBoundary(context.claim, curve, spec.rlvr.checkpoint_every, spec.rlvr.keep_checkpoints, describe, rollouts.stop, terms)
    loop.train(trainer, boundary, restored if resumed else None)
    policies.follow(trainer, spec.rlvr.steps)
