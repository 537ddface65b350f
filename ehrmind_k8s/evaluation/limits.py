"""What a reader must not conclude from a report, one sentence each."""

from collections.abc import Iterable, Mapping
from urllib.parse import urlsplit

from ehrmind_k8s.evaluation.report import TITLES, Report
from ehrmind_k8s.spec import RunSpec


def sentences(report: Report, spec: RunSpec) -> tuple[str, ...]:
    """The limits of what `report` shows, those of its inputs first."""
    return tuple([*_of_inputs(report, spec), *_of_answers(report)])


def _of_inputs(report: Report, spec: RunSpec) -> Iterable[str]:
    data, traces = report.data, report.data.checks.get("sft_text", {}).get("train", {})
    if spec.model.uri == "toy":
        yield "The start model is a toy of about a million random parameters: these figures show that the recipe works, nothing about real models."
    if spec.data.uri is None:
        trained = data.counts.get("train", {})
        covered = ", ".join(f"{len(rows)} {name}" for name, rows in trained.items() if isinstance(rows, Mapping))
        yield f"The data is the task's synthetic twin, not a benchmark. Its train rows cover: {covered}. Nothing else of the task was trained."
    if traces.get("wrong") and spec.sft.traces == "source" and spec.sft.mode != "never" and not (report.warm_up and not report.warm_up.trained):
        judged = sum(n for name, n in traces.items() if name != "absent")
        yield f"SFT had an imperfect teacher: {traces['wrong']} of {judged} explanations end in another answer than the gold one."
    if spec.sft.traces == "teacher" and spec.sft.teacher.external and report.warm_up and report.warm_up.trained:
        yield f"Prompts, which hold records, went to a teacher outside: {urlsplit(spec.sft.teacher.url or '').hostname} (sft.teacher.external)."
    if report.after_sft:
        yield "The diagnosis after SFT is of train rows, some of which SFT learned from: it shows what moved, not what will hold on new rows."
    recomputed = data.audit.get("recomputed", {}).get("test", {})
    if recomputed.get("disagrees"):
        n, of = recomputed["disagrees"], sum(recomputed.values())
        yield f"{n} of {of} test labels disagree with the task's own recomputation, which may be wrong itself: accuracy against them has a ceiling."
    if warnings := data.audit.get("warnings"):
        yield f"The preparation warns: {'; '.join(warnings)}."
    if meaning := data.audit.get("protocol", {}).get("meaning"):
        yield f"Protocol: {meaning}"
    if data.asked < data.total:
        yield f"{data.asked} of {data.total} test rows were asked, chosen by seed {spec.seed} and stratified by category (evaluate.limit)."
    dropped = sum(data.drops.get("test", {}).values())
    if dropped:
        yield f"{dropped} test rows were dropped by the preparation, for the reasons under Data; no figure counts them."
    yield "One training run, one seed: an interval covers the choice of test rows, not the luck of another training run."


def _of_answers(report: Report) -> Iterable[str]:
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
