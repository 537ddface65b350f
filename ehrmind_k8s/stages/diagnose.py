"""diagnose: what the start model knows, before anything is trained; and the traces that SFT will learn from where somebody must write them.

reads   prepare (train split, model)
writes  policy/base, results/base/, diagnosis.json, asked.parquet (the rows), and with `sft.traces` own or teacher: traces.jsonl
"""

from contextlib import closing
from pathlib import Path
from typing import Any

from ehrmind_k8s import artifacts, examples, logs, settings, storage
from ehrmind_k8s.context import Context, Output
from ehrmind_k8s.errors import ModelError
from ehrmind_k8s.evaluation import diagnose, generate
from ehrmind_k8s.evaluation.diagnose import Choice
from ehrmind_k8s.evaluation.generate import Answer, Subject
from ehrmind_k8s.evaluation.report import Diagnosis
from ehrmind_k8s.records import Example
from ehrmind_k8s.rollout import Policy, connect
from ehrmind_k8s.tasks import registry
from ehrmind_k8s.tokenization import Tokenizer
from ehrmind_k8s.training import loading, policies, teacher, traces
from ehrmind_k8s.training.traces import Gathered


def run(context: Context) -> Output:
    """Publish the start model, sample it, decide. What was answered before a kill is not asked again.

    Raises RolloutUnavailable, TeacherUnavailable, ModelError, SpecError, Fenced.
    """
    spec, task, out = context.spec, registry.get(context.spec.task), context.work / "out"
    folder = loading.prepared(context.inputs["prepare"], context.work / "prepare", "train.parquet", artifacts.MODEL)
    tokenizer = Tokenizer(folder / artifacts.MODEL)
    base = _base(context, tokenizer, folder / artifacts.MODEL)
    train = examples.read_split(folder / "train.parquet")
    rows = generate.of_each(train, spec.diagnose.limit, spec.seed)
    questions = diagnose.questions(spec, task, rows, tokenizer, spec.diagnose.samples)
    with closing(connect(spec, context.run_uri, context.uid, tokenizer, folder / artifacts.MODEL, settings.load())) as generator:
        answers = generate.answers(base, questions, generator, context.claim, context.work, lambda done: logs.progress(done, len(rows), "prompts"))
    diagnosis = diagnose.judge(task, rows, answers, base.policy.name, spec.diagnose.samples, spec.diagnose.threshold)
    if not diagnosis.findings:
        raise ModelError(f"policy {base.policy.name}: no sample with finite log-probs on any of {len(rows)} train rows; its weights are broken")
    choice = diagnose.choose(spec.sft, diagnosis)
    gathered = _gather(context, choice, train, rows, answers, tokenizer)
    _write(out, diagnosis, rows, gathered)
    logs.event("diagnosed", sft=choice.train, **{finding: len(diagnosis.found(finding)) for finding in diagnose.FINDINGS})
    meta: dict[str, Any] = {
        "policies": {"base": artifacts.policy_key("base")},
        "choice": {"train": choice.train, "categories": list(choice.categories), "why": choice.why},
        "traces": dict(gathered.judged) if gathered else {},
        "sampled_tokens": sum(a.n_tokens for a in answers),
    }
    return Output(out, meta, message=choice.why, headline={f: float(len(diagnosis.found(f))) for f in diagnose.FINDINGS})


def _base(context: Context, tokenizer: Tokenizer, folder: Path) -> Subject:
    """The start model as policy `base`; its weights leave memory once they are published, since whoever samples holds its own."""
    key = artifacts.policy_key("base")
    if artifacts.load(context.out, key) is None:
        policies.publish_model(context, "base", loading.start_model(context.spec.model, folder, context.spec.seed), tokenizer)
    manifest = artifacts.load(context.out, key)
    assert manifest is not None
    return Subject("base", Policy("base", storage.join(context.out.uri, key)), manifest)


def _gather(
    context: Context, choice: Choice, train: list[Example], rows: list[Example], answers: list[Answer], tokenizer: Tokenizer
) -> Gathered | None:
    """The texts that SFT asks for and that neither the source nor a file holds."""
    spec, task = context.spec, registry.get(context.spec.task)
    if not choice.train or spec.sft.traces not in traces.GATHERED:
        return None
    if spec.sft.traces == "own":
        return traces.own(task, tokenizer, traces.wanted(rows, choice.categories), answers, spec.completion_tokens)
    key = settings.load().teacher_key
    asked = teacher.Teacher.connect(spec.sft.teacher, key.get_secret_value() if key else None)
    return teacher.gather(spec, task, tokenizer, traces.to_ask(spec.sft, train, choice.categories, spec.seed), asked, context.claim)


def _write(out: Path, diagnosis: Diagnosis, rows: list[Example], gathered: Gathered | None) -> None:
    out.mkdir()
    (out / artifacts.DIAGNOSIS).write_text(diagnose.to_json(diagnosis), encoding="utf-8")
    examples.write_split(out / artifacts.ASKED, rows)
    if gathered:
        traces.write(out / artifacts.TRACES, gathered.texts)
