"""sft: warm the start model up on the categories that need it, or publish it unchanged.

Reads `prepare` and, where there is one, the diagnosis, which decides with `sft.mode: auto`. Publishes `policy/sft`, and `policy/base` (the
start model; for lora a zero adapter, since a server with adapters never serves without one) where no diagnosis has.
"""

from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from ehrmind_k8s import artifacts, examples, logs, plan
from ehrmind_k8s.artifacts import Manifest
from ehrmind_k8s.context import Context, Output
from ehrmind_k8s.evaluation import diagnose
from ehrmind_k8s.evaluation.diagnose import Choice
from ehrmind_k8s.evaluation.report import WarmUp
from ehrmind_k8s.records import Example
from ehrmind_k8s.tokenization import Tokenizer
from ehrmind_k8s.training import checkpoint, loading, loop, policies, ranks, sft, traces
from ehrmind_k8s.training.checkpoint import Checkpoint


def run(context: Context) -> Output:
    """Train and publish. Raises DataError, ModelError, SpecError, IntegrityError, Fenced; SystemExit(143) on SIGTERM, after a checkpoint."""
    spec, out = context.spec, context.work / "out"
    ranks.join()
    folder = loading.prepared(context.inputs["prepare"], context.work / "prepare", "train.parquet", artifacts.MODEL)
    tokenizer = Tokenizer(folder / artifacts.MODEL)
    choice = _choice(context)
    model = loading.start_model(spec.model, folder / artifacts.MODEL, spec.seed)
    names = ["sft"]
    if plan.base_stage(spec) == context.stage:
        policies.publish_model(context, "base", model, tokenizer)
        names.insert(0, "base")
    curve = loop.Curve(out)
    curve.path.touch()
    rows = _rows(context, choice, examples.read_split(folder / "train.parquet")) if choice.train else []
    if choice.train:
        _train(context, model, tokenizer, rows, curve, folder / artifacts.MODEL)
    policies.publish_model(context, "sft", model, tokenizer)
    warm_up = WarmUp(choice.train, choice.categories, choice.why, spec.sft.traces, _judged(context), len(rows))
    meta: dict[str, Any] = {"policies": {n: artifacts.policy_key(n) for n in names}, "skipped": not choice.train, "warm_up": asdict(warm_up)}
    if not choice.train:
        return Output(out, {**meta, "rows": 0}, reason="skipped", message=choice.why)
    total = sft.steps(spec.sft, len(rows))
    return Output(out, {**meta, "rows": len(rows), "steps": total}, message=f"{len(rows)} rows, {total} steps; {choice.why}")


def _choice(context: Context) -> Choice:
    store = context.inputs.get("diagnose")
    if store is None:
        return diagnose.choose(context.spec.sft, None)
    folder = context.work / "diagnosis"
    artifacts.fetch(store, "", folder, [artifacts.DIAGNOSIS])
    return diagnose.choose(context.spec.sft, diagnose.from_json((folder / artifacts.DIAGNOSIS).read_text(encoding="utf-8")))


def _rows(context: Context, choice: Choice, train: list[Example]) -> list[Example]:
    spec = context.spec
    if spec.sft.traces in traces.GATHERED:
        train = traces.lay_over(train, context.inputs["diagnose"], context.work / "traces")
    return sft.choose(spec.sft, train, spec.seed, choice.categories)


def _judged(context: Context) -> dict[str, int]:
    """What became of all texts, as the stage that judged them has counted."""
    gathered = context.spec.sft.traces in traces.GATHERED
    manifest: Manifest | None = artifacts.load(context.inputs["diagnose" if gathered else "prepare"])
    assert manifest is not None
    return dict(manifest.meta.get("traces") or {}) if gathered else dict(manifest.meta["checks"]["sft_text"]["train"])


def _train(context: Context, model: Any, tokenizer: Tokenizer, rows: list[Example], curve: loop.Curve, folder: Path) -> None:
    spec = context.spec
    restored = checkpoint.restore_everywhere(context.out, context.work / "restored")
    if restored:
        curve.restore(context.work / "restored")
    data = sft.tokenised(spec.sft, rows, tokenizer)
    processing_class = loading.processing_class(tokenizer, folder)
    trainer = sft.build(spec, model, processing_class, data, curve, context.work / "trainer")
    describe = partial(_checkpoint, context.attempt, spec.sft.batch_size)
    boundary = loop.StepBoundary(
        context.claim, curve, spec.sft.checkpoint_every, keep=1, describe=describe, beside=partial(loading.put_terms, context.inputs["prepare"])
    )
    logs.event("sft.start", rows=len(rows), steps=trainer.args.max_steps, from_step=restored.step if restored else 0)
    loop.train(trainer, boundary, context.work / "restored" if restored else None)


def _checkpoint(attempt: int, batch_size: int, step: int) -> Checkpoint:
    return Checkpoint(step, attempt, step * batch_size, "base", world_size=ranks.size())
