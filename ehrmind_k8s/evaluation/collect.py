"""Gather what the run's artifacts say about it: data audit, learning curves, ledger, costs, versions, and what the figures do not show."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ehrmind_k8s import artifacts, storage
from ehrmind_k8s.artifacts import Manifest
from ehrmind_k8s.evaluation import versions
from ehrmind_k8s.evaluation.generate import Answer
from ehrmind_k8s.evaluation.measure import Measured
from ehrmind_k8s.evaluation.report import TITLES, Costs, DataAudit, PolicyResult, Report, StageCost
from ehrmind_k8s.spec import RunSpec
from ehrmind_k8s.storage import ObjectStore

Lines = Sequence[Mapping[str, Any]]


def curves(store: ObjectStore, manifest: Manifest, folder: Path) -> list[dict[str, Any]]:
    """The lines of a training stage's metrics, oldest first; none where the stage was skipped and wrote none."""
    if artifacts.METRICS not in {f.name for f in manifest.files}:
        return []
    artifacts.fetch(store, "", folder, [artifacts.METRICS])
    text = (folder / artifacts.METRICS).read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines() if line]


def audit(prepare: Manifest, spec: RunSpec, measured: Measured, asked: int, total: int) -> DataAudit:
    """The data behind the figures, from prepare's manifest."""
    meta = prepare.meta
    parts = {name: meta.get(name, {}) for name in ("source", "inputs", "counts", "drops", "checks", "audit")}
    return DataAudit(**parts, labels=spec.data.labels, asked=asked, groups=measured.groups, total=total, unscored=measured.unscored)


def costs(stores: Mapping[str, ObjectStore], manifests: Mapping[str, Manifest], own_seconds: float, sft: Lines, rlvr: Lines, made: int) -> Costs:
    """Time and tokens. `own_seconds` is evaluation's time so far, `made` the tokens it sampled; its manifest is not written yet."""
    seconds = {stage: float(m.meta["result"]["seconds"]) for stage, m in manifests.items()} | {"evaluate": own_seconds}
    stages = tuple(StageCost(stage, round(s, 1), artifacts.latest_attempt(stores[stage])) for stage, s in seconds.items())
    tokens = {
        "sft_trained": sum(int(line.get("tokens") or 0) for line in sft),
        "rlvr_prompt": sum(int(line.get("prompt_tokens_total") or 0) for line in rlvr),
        "rlvr_sampled": sum(int(line.get("completion_tokens_total") or 0) for line in rlvr),
        "evaluate_sampled": made,
    }
    split = [line["seconds"] for line in rlvr if line.get("seconds")]
    if not split:
        return Costs(stages, tokens)
    total = sum(s["total"] for s in split)
    sync = sum(s.get("publish", 0.0) + s.get("sync", 0.0) for s in split)
    return Costs(stages, tokens, round(total, 1), round(sync, 1), round(sync / total, 4) if total else None)


def software(manifests: Mapping[str, Manifest]) -> dict[str, Mapping[str, str]]:
    """Stage -> package -> version: what the other stages put into their manifests, and this machine for evaluate."""
    told = {stage: m.meta["versions"] for stage, m in manifests.items() if m.meta.get("versions")}
    return told | {"evaluate": versions.installed()}


def ledger(rlvr: Manifest | None) -> dict[str, int]:
    """Sums over every prompt of RLVR: issued, scored, trained, dropped, failed, voided."""
    return dict(rlvr.meta.get("ledger") or {}) if rlvr else {}


def with_skipped(policies: Mapping[str, PolicyResult], sft: Manifest) -> dict[str, PolicyResult]:
    """Mark the SFT policy as the start model where SFT was skipped."""
    if sft.meta.get("skipped") and {"base", "sft"} <= set(policies):
        return {**policies, "sft": replace(policies["sft"], same_as="base")}
    return dict(policies)


def limits(report: Report, spec: RunSpec) -> tuple[str, ...]:
    """What a reader must not conclude, one sentence each."""
    return tuple([*_limits_of_inputs(report, spec), *_limits_of_answers(report)])


def _limits_of_inputs(report: Report, spec: RunSpec) -> Iterable[str]:
    data, traces = report.data, report.data.checks.get("sft_text", {})
    if spec.model.uri == "toy":
        yield "The start model is a toy of about a million random parameters: these figures show that the recipe works, nothing about real models."
    if spec.data.uri is None:
        covered = ", ".join(f"{len(t.rows)} {t.name}" for t in report.tables)
        yield f"The data is the task's synthetic twin, not a benchmark. Its test rows cover: {covered}; nothing else was trained or tested."
    if traces.get("wrong") and spec.sft.mode != "never":
        judged = sum(n for name, n in traces.items() if name != "absent")
        yield f"SFT had an imperfect teacher: {traces['wrong']} of {judged} explanations end in another answer than the gold one."
    if data.asked < data.total:
        yield f"{data.asked} of {data.total} test rows were asked, chosen by seed {spec.seed} and stratified by category (evaluate.limit)."
    dropped = sum(data.drops.get("test", {}).values())
    if dropped:
        yield f"{dropped} test rows were dropped by the preparation, for the reasons under Data; no figure counts them."
    yield "One training run, one seed: an interval covers the choice of test rows, not the luck of another training run."


def _limits_of_answers(report: Report) -> Iterable[str]:
    data, policies = report.data, report.policies
    if data.unscored:
        yield f"{data.unscored} of {data.asked} test rows had no answer with finite log-probs from every policy and are left out of all figures."
    if any(p.same_as for p in policies.values()):
        yield "SFT was skipped: the SFT policy is the start model."
    if any(p.cut for p in policies.values()):
        cut = ", ".join(f"{TITLES[label]} {p.cut}" for label, p in policies.items())
        yield f"Greedy answers that reached the limit of tokens and were judged as they stand: {cut}."
    if any(p.metrics[report.primary_metric].low == p.metrics[report.primary_metric].high for p in policies.values()):
        width = 100 * min(1.0, 3 / max(1, data.asked))
        yield f"An interval of no width means answers all right or all wrong; the truth may still be {width:.1f} points away (rule of three)."


def sampled_tokens(found: Mapping[str, Sequence[Answer]]) -> int:
    """Tokens of all answers."""
    return sum(a.n_tokens for answers in found.values() for a in answers)


def policy_uri(stage: ObjectStore, manifest: Manifest, label: str) -> str | None:
    """Where a stage says that the policy `label` is."""
    key = manifest.meta["policies"].get(label)
    return storage.join(stage.uri, key) if key else None
