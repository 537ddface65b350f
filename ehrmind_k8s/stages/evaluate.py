"""evaluate: base, SFT and RLVR answer the test split side by side through the same generator; the report and the run's model come out.

reads   prepare (test split, tokenizer), sft (policies base and sft), rlvr (the newest policy)
writes  results/<policy>/, report.json, report.md, report.html, and <run>/model/
"""

import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ehrmind_k8s import artifacts, examples, logs, plan, storage
from ehrmind_k8s.artifacts import Manifest, RunDocument
from ehrmind_k8s.context import Context, Output
from ehrmind_k8s.errors import IntegrityError, ModelError
from ehrmind_k8s.evaluation import collect, export, generate, markdown, measure, page
from ehrmind_k8s.evaluation.generate import Answer, Questions, Subject
from ehrmind_k8s.evaluation.report import Report, RunInfo, headline
from ehrmind_k8s.records import Example
from ehrmind_k8s.rollout import Policy, Sampling, connect
from ehrmind_k8s.settings import Settings
from ehrmind_k8s.spec import POLICIES, RunSpec
from ehrmind_k8s.tasks import registry
from ehrmind_k8s.tokenization import Tokenizer

TEST = "test.parquet"
STAGE_OF: Mapping[str, str] = {"base": "sft", "sft": "sft", "rlvr": "rlvr"}


def run(context: Context) -> Output:
    """Ask every policy, measure, report. What was answered before a kill is not asked again."""
    started, spec = time.monotonic(), context.spec
    manifests = {stage: _complete(context, stage) for stage in plan.reads(spec, context.stage)}
    folder = context.work / "prepare"
    artifacts.fetch(context.inputs["prepare"], "", folder, _needed(spec, manifests["prepare"]))
    tokenizer = Tokenizer(folder / "model")
    test = examples.read_split(folder / TEST)
    questions = _questions(spec, test, tokenizer)
    subjects = _subjects(context, manifests)
    found = _answers(context, questions, subjects, tokenizer, folder / "model", bool(manifests["sft"].meta.get("skipped")))
    measured = measure.measure(questions, {s.label: s.policy for s in subjects}, found, spec.evaluate.bootstrap, spec.seed)
    start_uri = storage.join(context.inputs["prepare"].uri, "model")
    model = export.publish(spec, context.run_uri, subjects[-1], folder / "model", start_uri, context.claim, context.work)
    policies = collect.with_skipped(measured.policies, manifests["sft"])
    data = collect.audit(manifests["prepare"], spec, measured, len(questions.examples), len(test))
    lines: dict[str, list[dict[str, Any]]] = {
        s: collect.curves(context.inputs[s], manifests[s], context.work / f"curves-{s}") for s in ("sft", "rlvr") if s in manifests
    }
    made = collect.sampled_tokens(found)
    stores = {**context.inputs, "evaluate": context.out}
    report = Report(
        run=_run_info(context),
        headline=headline(questions.task.primary_metric, policies, measured.differences),
        primary_metric=questions.task.primary_metric,
        policies=policies,
        differences=measured.differences,
        tables=measured.tables,
        curves=lines,
        data=data,
        ledger=collect.ledger(manifests.get("rlvr")),
        costs=collect.costs(stores, manifests, time.monotonic() - started, lines["sft"], lines.get("rlvr", ()), made),
        model=model,
        settings=spec.model_dump(mode="json"),
        versions=collect.software(manifests),
        limits=(),
        samples=spec.evaluate.samples,
        resamples=spec.evaluate.bootstrap,
    )
    return _output(replace(report, limits=collect.limits(report, spec)), context.work / "report")


def _complete(context: Context, stage: str) -> Manifest:
    manifest = artifacts.load(context.inputs[stage])
    if manifest is None:
        raise IntegrityError(f"{context.inputs[stage].uri}: stage {stage} is not complete; run it before evaluate")
    return manifest


def _needed(spec: RunSpec, prepare: Manifest) -> list[str]:
    """Files of prepare to fetch: the test split and the model's folder, without its weights where servers hold them."""
    served = spec.rollout.engine == "vllm"
    return [f.name for f in prepare.files if f.name == TEST or (f.name.startswith("model/") and not (served and f.name.endswith(".safetensors")))]


def _questions(spec: RunSpec, test: list[Example], tokenizer: Tokenizer) -> Questions:
    chosen = generate.stratify(test, spec.evaluate.limit, spec.seed)
    longest = spec.evaluate.max_completion_tokens or spec.rlvr.max_completion_tokens
    greedy = Sampling(1, longest, seed=spec.seed, greedy=True, stop_token_ids=tokenizer.stop_ids)
    sampled = Sampling(spec.evaluate.samples, longest, spec.rlvr.temperature, spec.rlvr.top_p, spec.seed, stop_token_ids=tokenizer.stop_ids)
    prompts = tuple(tokenizer.prompt(e) for e in chosen)
    return Questions(registry.get(spec.task), tuple(chosen), prompts, greedy, sampled if spec.evaluate.samples else None)


def _subjects(context: Context, manifests: Mapping[str, Manifest]) -> list[Subject]:
    """The policies to compare, oldest first, wherever the document lists them."""
    found = []
    for label in [p for p in POLICIES if p in context.spec.evaluate.policies]:
        stage = STAGE_OF[label]
        uri = collect.policy_uri(context.inputs[stage], manifests[stage], label)
        weights = artifacts.load(storage.open(uri)) if uri else None
        if uri is None or weights is None:
            raise IntegrityError(f"{context.inputs[stage].uri}: no complete policy {label!r}; run stage {stage} again")
        found.append(Subject(label, Policy(weights.meta["name"], uri), weights))
    return found


def _answers(
    context: Context, questions: Questions, subjects: list[Subject], tokenizer: Tokenizer, model: Path, skipped: bool
) -> dict[str, list[Answer]]:
    found: dict[str, list[Answer]] = {}
    total = len(questions.examples) * len(subjects)
    generator = connect(context.spec, context.uid, tokenizer, model, Settings())
    try:
        for i, subject in enumerate(subjects):
            if skipped and subject.label == "sft" and "base" in found:
                found["sft"] = found["base"]
                continue
            before = i * len(questions.examples)

            def report_progress(done: int, before: int = before, label: str = subject.label) -> None:
                logs.progress(before + done, total, "prompts", policy=label)

            found[subject.label] = generate.answers(subject, questions, generator, context.claim, context.work, report_progress)
            if not any(a.greedy for a in found[subject.label]):
                raise ModelError(f"policy {subject.policy.name}: no answer with finite log-probs to any of {len(questions.examples)} test rows")
    finally:
        generator.close()
    return found


def _run_info(context: Context) -> RunInfo:
    spec, document = context.spec, RunDocument.read(storage.open(context.run_uri))
    title = registry.get(spec.task).title
    return RunInfo(
        spec.name, context.uid, context.run_uri, spec.task, title, spec.preset, spec.recipe, document.recipe_hash, spec.seed, spec.model.uri
    )


def _output(report: Report, folder: Path) -> Output:
    folder.mkdir()
    (folder / artifacts.REPORT).write_text(report.to_json(), encoding="utf-8")
    (folder / "report.md").write_text(markdown.render(report), encoding="utf-8")
    (folder / "report.html").write_text(page.render(report), encoding="utf-8")
    score = list(report.policies.values())[-1].metrics[report.primary_metric].value
    return Output(folder, {"primary_metric": report.primary_metric}, score, message=report.headline)
