"""Gather what the run's artifacts say about it, and make the report of it: data audit, learning curves, ledger, costs, versions."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ehrmind_k8s import artifacts, versions
from ehrmind_k8s.artifacts import Manifest
from ehrmind_k8s.context import Context
from ehrmind_k8s.evaluation import limits
from ehrmind_k8s.evaluation.measure import Measured
from ehrmind_k8s.evaluation.report import Costs, DataAudit, Diagnosis, PolicyResult, Report, RunInfo, Served, StageCost, WarmUp, headline
from ehrmind_k8s.storage import ObjectStore
from ehrmind_k8s.tasks.base import Task

Lines = Sequence[Mapping[str, Any]]
TRAINED: tuple[str, ...] = ("sft", "rlvr")  # the stages that leave learning curves


@dataclass(frozen=True)
class Found:
    """What evaluation itself found: `asked` of `total` test rows went to every policy, which took `tokens` and `seconds`.

    `diagnosis` is what stage diagnose found about the start model, `after_sft` the same about the SFT policy.
    """

    task: Task
    measured: Measured
    model: Served
    asked: int
    total: int
    tokens: int
    seconds: float
    diagnosis: Diagnosis | None = None
    after_sft: Diagnosis | None = None


def report(context: Context, manifests: Mapping[str, Manifest], found: Found) -> Report:
    """The report of the run, from the manifests of the stages before (by name) and what evaluation found."""
    spec, measured, metric = context.spec, found.measured, found.task.primary_metric
    policies = _with_skipped(measured.policies, manifests["sft"])
    lines = {s: _curve(context.inputs[s], manifests[s], context.work / f"curve-{s}") for s in TRAINED if s in manifests}
    tree = Report(
        run=_run(context, found.task),
        headline=headline(metric, policies, measured.differences),
        primary_metric=metric,
        policies=policies,
        differences=measured.differences,
        tables=measured.tables,
        curves=lines,
        data=_data(manifests["prepare"], spec.data.labels, found),
        ledger=_ledger(manifests),
        costs=_costs(context, manifests, lines, found),
        model=found.model,
        settings=spec.model_dump(mode="json"),
        versions={s: m.meta["versions"] for s, m in manifests.items() if "versions" in m.meta} | {"evaluate": versions.installed()},
        limits=(),
        samples=spec.evaluate.samples,
        resamples=spec.evaluate.bootstrap,
        diagnosis=found.diagnosis,
        warm_up=WarmUp(**manifests["sft"].meta["warm_up"]) if "warm_up" in manifests["sft"].meta else None,
        after_sft=found.after_sft,
    )
    return replace(tree, limits=limits.sentences(tree, spec))


def _run(context: Context, task: Task) -> RunInfo:
    spec = context.spec
    return RunInfo(
        name=spec.name,
        uid=context.uid,
        uri=context.run_uri,
        task=spec.task,
        title=task.title,
        preset=spec.preset,
        recipe=spec.recipe,
        recipe_hash=spec.recipe_hash(),
        seed=spec.seed,
        model=spec.model.uri,
    )


def _curve(store: ObjectStore, manifest: Manifest, folder: Path) -> list[dict[str, Any]]:
    """The lines of a training stage's metrics, oldest first; none where the stage wrote none."""
    if artifacts.METRICS not in {f.name for f in manifest.files}:
        return []
    artifacts.fetch(store, "", folder, [artifacts.METRICS])
    text = (folder / artifacts.METRICS).read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines() if line]


def _data(prepare: Manifest, labels: str, found: Found) -> DataAudit:
    told = {name: prepare.meta.get(name, {}) for name in ("source", "inputs", "counts", "drops", "checks", "audit")}
    measured = found.measured
    return DataAudit(
        **told,
        terms=str(prepare.meta.get("terms", "")),
        labels=labels,
        asked=found.asked,
        groups=measured.groups,
        total=found.total,
        unscored=measured.unscored,
    )


def _costs(context: Context, manifests: Mapping[str, Manifest], lines: Mapping[str, Lines], found: Found) -> Costs:
    """Time and tokens; evaluation's own time is that so far, since its manifest is not written yet."""
    stores = {**context.inputs, context.stage: context.out}
    seconds = {s: float(m.meta["result"]["seconds"]) for s, m in manifests.items()} | {context.stage: found.seconds}
    stages = tuple(StageCost(s, round(t, 1), artifacts.latest_attempt(stores[s])) for s, t in seconds.items())
    sft, rlvr = lines.get("sft", ()), lines.get("rlvr", ())
    tokens = {"diagnose_sampled": int(manifests["diagnose"].meta.get("sampled_tokens", 0))} if "diagnose" in manifests else {}
    tokens |= {"sft_trained": _sum(sft, "tokens")} if sft else {}
    if rlvr:
        tokens |= {"rlvr_prompt": _sum(rlvr, "prompt_tokens_total"), "rlvr_sampled": _sum(rlvr, "completion_tokens_total")}
    tokens["evaluate_sampled"] = found.tokens
    split = [line["seconds"] for line in rlvr if line.get("seconds")]
    total = sum(s["total"] for s in split)
    if not total:
        return Costs(stages, tokens)
    sync = sum(s.get("publish", 0.0) + s.get("sync", 0.0) for s in split)
    return Costs(stages, tokens, round(total, 1), round(sync, 1), round(sync / total, 4))


def _sum(lines: Lines, key: str) -> int:
    return sum(int(line.get(key) or 0) for line in lines)


def _ledger(manifests: Mapping[str, Manifest]) -> dict[str, int]:
    """Sums over every prompt of RLVR: issued, scored, trained, dropped, failed, voided, open."""
    return dict(manifests["rlvr"].meta.get("ledger") or {}) if "rlvr" in manifests else {}


def _with_skipped(policies: Mapping[str, PolicyResult], sft: Manifest) -> dict[str, PolicyResult]:
    """Say that the SFT policy is the start model where SFT was skipped."""
    if sft.meta.get("skipped") and {"base", "sft"} <= set(policies):
        return {**policies, "sft": replace(policies["sft"], same_as="base")}
    return dict(policies)
