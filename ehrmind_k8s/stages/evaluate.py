"""evaluate: base, SFT and RLVR answer the test split side by side through the same generator; the report and the run's model come out.

reads   prepare (test split, tokenizer), diagnose (policy base, its findings), sft (policy sft), rlvr (the newest policy)
writes  results/<policy>/, report.json, report.md, report.html, and <run>/model/
"""

import math
import time
from collections.abc import Mapping
from contextlib import closing
from functools import partial
from pathlib import Path

from ehrmind_k8s import artifacts, examples, logs, plan, settings, storage
from ehrmind_k8s.artifacts import Manifest
from ehrmind_k8s.context import Context, Output
from ehrmind_k8s.errors import IntegrityError, ModelError
from ehrmind_k8s.evaluation import collect, diagnose, export, generate, markdown, measure, page
from ehrmind_k8s.evaluation.collect import Found
from ehrmind_k8s.evaluation.generate import Answer, Questions, Subject
from ehrmind_k8s.evaluation.report import Diagnosis, Report
from ehrmind_k8s.records import Example
from ehrmind_k8s.rollout import Generator, Policy, Sampling, connect
from ehrmind_k8s.spec import POLICIES, RunSpec
from ehrmind_k8s.tasks import registry
from ehrmind_k8s.tokenization import Tokenizer

TEST = "test.parquet"


def run(context: Context) -> Output:
    """Ask every policy, measure, report, publish the newest policy as the run's model. What was answered before a kill is not asked again."""
    started, spec = time.monotonic(), context.spec
    manifests = {stage: _complete(context, stage) for stage in plan.reads(spec, context.stage)}
    folder, prepared = context.work / "prepare", context.inputs["prepare"]
    artifacts.fetch(prepared, "", folder, _needed(spec, manifests["prepare"]))
    tokenizer = Tokenizer(folder / artifacts.MODEL)
    test = examples.read_split(folder / TEST)
    questions = _questions(spec, test, tokenizer)
    subjects = _subjects(context, manifests)
    with closing(connect(spec, context.run_uri, context.uid, tokenizer, folder / artifacts.MODEL, settings.load())) as generator:
        skipped = bool(manifests["sft"].meta.get("skipped"))
        answers = _answers(context, questions, subjects, generator, skipped)
        diagnoses = _diagnoses(context, subjects, generator, tokenizer, skipped)
    measured = measure.measure(questions, {s.label: s.policy for s in subjects}, answers, spec.evaluate.bootstrap, spec.seed)
    start_uri = storage.join(prepared.uri, artifacts.MODEL)
    model = export.publish(spec, context.run_uri, subjects[-1], folder / artifacts.MODEL, start_uri, context.claim, context.work)
    tokens = sum(a.n_tokens for found in answers.values() for a in found)
    told = Found(questions.task, measured, model, len(questions.examples), len(test), tokens, time.monotonic() - started, *diagnoses)
    return _output(collect.report(context, manifests, told), context.work / "report")


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
        stage = plan.base_stage(context.spec) if label == "base" else label
        if label not in manifests[stage].meta["policies"]:
            raise IntegrityError(f"{context.inputs[stage].uri}: no policy {label!r} here; that run diagnosed it: set inputs.diagnose to its output")
        uri = storage.join(context.inputs[stage].uri, manifests[stage].meta["policies"][label])
        weights = artifacts.load(storage.open(uri))
        if weights is None:
            raise IntegrityError(f"{uri}: policy {label!r} is not complete; run stage {stage} again")
        found.append(Subject(label, Policy(weights.meta["name"], uri), weights))
    return found


def _answers(context: Context, questions: Questions, subjects: list[Subject], generator: Generator, skipped: bool) -> dict[str, list[Answer]]:
    """Label -> answers. A skipped SFT has the start model's weights, so it has its answers."""
    found: dict[str, list[Answer]] = {}
    rows = len(questions.examples)
    for i, subject in enumerate(subjects):
        if skipped and subject.label == "sft" and "base" in found:
            found["sft"] = found["base"]
            continue
        progress = partial(_progress, i * rows, len(subjects) * rows, subject.label)
        found[subject.label] = generate.answers(subject, questions, generator, context.claim, context.work, progress)
        if not any(a.greedy for a in found[subject.label]):
            raise ModelError(f"policy {subject.policy.name}: no answer with finite log-probs to any of {rows} test rows; its weights are broken")
    return found


def _diagnoses(
    context: Context, subjects: list[Subject], generator: Generator, tokenizer: Tokenizer, skipped: bool
) -> tuple[Diagnosis | None, Diagnosis | None]:
    """What stage diagnose found, and the same rows asked of the SFT policy in the same way; None where there is none to ask."""
    spec, store = context.spec, context.inputs.get("diagnose")
    if store is None:
        return None, None
    folder = context.work / "diagnosis-before"
    artifacts.fetch(store, "", folder, [artifacts.DIAGNOSIS, artifacts.ASKED])
    before = diagnose.from_json((folder / artifacts.DIAGNOSIS).read_text(encoding="utf-8"))
    sft = next((s for s in subjects if s.label == "sft"), None)
    if skipped or sft is None:
        return before, None
    task, rows = registry.get(spec.task), examples.read_split(folder / artifacts.ASKED)
    questions = diagnose.questions(spec, task, rows, tokenizer, before.samples, place="diagnosis")
    progress = partial(_progress, 0, len(rows), "sft, train rows")
    answers = generate.answers(sft, questions, generator, context.claim, context.work, progress)
    return before, diagnose.judge(task, rows, answers, sft.policy.name, before.samples, before.threshold)


def _progress(before: int, total: int, label: str, done: int) -> None:
    logs.progress(before + done, total, "prompts", policy=label)


def _output(report: Report, folder: Path) -> Output:
    folder.mkdir()
    (folder / artifacts.REPORT).write_text(report.to_json(), encoding="utf-8")
    (folder / "report.md").write_text(markdown.render(report), encoding="utf-8")
    (folder / "report.html").write_text(page.render(report), encoding="utf-8")
    values = {label: policy.metrics[report.primary_metric].value for label, policy in report.policies.items()}
    headline = {f"{report.primary_metric}@{label}": round(value, 6) for label, value in values.items() if math.isfinite(value)}
    score = list(values.values())[-1]
    meta = {"primary_metric": report.primary_metric}
    return Output(folder, meta, score if math.isfinite(score) else None, message=report.headline, headline=headline)
