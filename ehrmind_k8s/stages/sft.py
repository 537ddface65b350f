"""sft: warm the start model up on the source's own explanations, or publish it unchanged.

Publishes `policy/base` (the start model; for lora a zero adapter, since a server with adapters never serves without one) and `policy/sft`.
"""

from functools import partial
from pathlib import Path
from typing import Any

from ehrmind_k8s import artifacts, examples, logs
from ehrmind_k8s.context import Context, Output
from ehrmind_k8s.rollout import weights
from ehrmind_k8s.rollout.inprocess import canary
from ehrmind_k8s.tokenization import Tokenizer
from ehrmind_k8s.training import checkpoint, loading, loop, ranks, sft
from ehrmind_k8s.training.checkpoint import Checkpoint


def run(context: Context) -> Output:
    """Train and publish. Raises DataError, ModelError, SpecError, Fenced; SystemExit(143) on SIGTERM, after a checkpoint."""
    spec, out = context.spec, context.work / "out"
    ranks.join()
    folder = loading.prepared(context.inputs["prepare"], context.work / "prepare", "train.parquet", artifacts.MODEL)
    tokenizer = Tokenizer(folder / artifacts.MODEL)
    model = loading.start_model(spec.model, folder / artifacts.MODEL, spec.seed)
    _publish(context, "base", model, tokenizer)
    curve = loop.Curve(out)
    curve.path.touch()
    meta: dict[str, Any] = {"policies": {name: artifacts.policy_key(name) for name in ("base", "sft")}, "skipped": spec.sft.mode == "never"}
    if spec.sft.mode == "never":
        _publish(context, "sft", model, tokenizer)
        return Output(out, {**meta, "rows": 0}, reason="skipped", message="sft.mode is never: the start model is published as it is")
    rows = sft.choose(spec.sft, examples.read_split(folder / "train.parquet"), spec.seed)
    _train(context, model, tokenizer, rows, curve, folder / artifacts.MODEL)
    _publish(context, "sft", model, tokenizer)
    total = sft.steps(spec.sft, len(rows))
    return Output(out, {**meta, "rows": len(rows), "steps": total}, message=f"{len(rows)} rows, {total} steps")


def _train(context: Context, model: Any, tokenizer: Tokenizer, rows: list[Any], curve: loop.Curve, folder: Path) -> None:
    spec = context.spec
    restored = checkpoint.restore_everywhere(context.out, context.work / "restored")
    if restored:
        curve.restore(context.work / "restored")
    data = sft.tokenised(spec.sft, rows, tokenizer)
    processing_class = loading.processing_class(tokenizer, folder)
    trainer = sft.build(spec, model, processing_class, data, curve, context.work / "trainer")
    describe = partial(_checkpoint, context.attempt, spec.sft.batch_size)
    boundary = loop.StepBoundary(context.claim, curve, spec.sft.checkpoint_every, keep=1, describe=describe)
    logs.event("sft.start", rows=len(rows), steps=trainer.args.max_steps, from_step=restored.step if restored else 0)
    loop.train(trainer, boundary, context.work / "restored" if restored else None)


def _checkpoint(attempt: int, batch_size: int, step: int) -> Checkpoint:
    return Checkpoint(step, attempt, step * batch_size, "base", world_size=ranks.size())


def _publish(context: Context, name: str, model: Any, tokenizer: Tokenizer) -> None:
    """Publish what the model holds now, unless an earlier attempt has."""
    if ranks.rank() != 0 or artifacts.load(context.out, artifacts.policy_key(name)):
        return
    folder = context.work / name
    loading.save(model, folder, context.spec.model.dtype)
    kind = context.spec.model.tuning
    weights.publish(context.out, name, folder, kind=kind, tokenizer=tokenizer.fingerprint, canary=canary(model, tokenizer), claim=context.claim)
