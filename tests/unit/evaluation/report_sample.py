"""A report as a finished quickstart would leave it: all 55 calculators, 30 RLVR steps, resumed once. Figures are drawn, seeded, and add up.

python tests/unit/evaluation/report_sample.py tests/golden/report      writes report.json and report.md, and report.html to look at
"""

import math
import random
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from ehrmind_k8s import artifacts, spec
from ehrmind_k8s.evaluation import diagnose, export, limits, markdown, measure, page
from ehrmind_k8s.evaluation.generate import Answer
from ehrmind_k8s.evaluation.report import (
    Costs,
    DataAudit,
    Diagnosis,
    Difference,
    Estimate,
    PolicyResult,
    Report,
    Row,
    RunInfo,
    Served,
    StageCost,
    Table,
    WarmUp,
    headline,
)
from ehrmind_k8s.records import Example, Verdict
from ehrmind_k8s.tasks.medcalc import MedCalc, calculators

CORRECT = {"base": 0.0, "sft": 0.3, "rlvr": 0.55}
# A few lines of a resolved document; the real one has every field of spec.py, and this report should not change with it.
SETTINGS: dict[str, Any] = {
    "task": "medcalc",
    "preset": "tiny",
    "seed": 42,
    "sft": {"percent": 100.0, "epochs": 5.0, "learning_rate": 0.003, "loss_on": "completion", "categories": []},
    "rlvr": {"steps": 30, "kl": 0.0, "clip_high": None, "reward": {"malformed": -2.0, "correct": 1.1}},
}
RUN_URI = "file:///data/runs/quickstart"


def build(seed: int = 7) -> Report:
    """The sample."""
    draw = random.Random(seed)
    document = spec.load({"task": "medcalc", "preset": "tiny", "name": "quickstart", "data": {"uri": "/data/medcalc/v1.0"}})
    known = sorted(calculators.BY_ID.values(), key=lambda c: c.id)
    rows = {c.name: 4 if i < 35 else 3 for i, c in enumerate(known)}
    right = {p: {name: sum(draw.random() < share for _ in range(n)) for name, n in rows.items()} for p, share in CORRECT.items()}
    policies = {p: _policy(p, sum(right[p].values()), sum(rows.values())) for p in CORRECT}
    differences = (_difference("sft", "base", policies), _difference("rlvr", "base", policies), _difference("rlvr", "sft", policies))
    category = {c.name: c.category for c in known}
    sums = {c: sum(n for name, n in rows.items() if category[name] == c) for c in sorted(set(category.values()))}
    tables = (
        Table(
            "category",
            tuple(_row(c, n, {p: sum(k for name, k in right[p].items() if category[name] == c) for p in CORRECT}) for c, n in sums.items()),
        ),
        Table("calculator", tuple(_row(name, n, {p: right[p][name] for p in CORRECT}) for name, n in sorted(rows.items()))),
    )
    data = _data(sums)
    served = Served(f"{RUN_URI}/{artifacts.MODEL}", "v30-a2", "full", export.command(document, RUN_URI, "full", f"{RUN_URI}/prepare/model"))
    software = {"python": "3.11.9", "torch": "2.13.0", "transformers": "5.19.0", "ehrmind_k8s": "0.1.0"}
    report = Report(
        run=RunInfo("quickstart", "3f2a9c1d77e0", RUN_URI, "medcalc", "MedCalc-Bench", "tiny", "corrected", "ab" * 32, 42, "toy"),
        headline=headline("accuracy", policies, differences),
        primary_metric="accuracy",
        policies=policies,
        differences=differences,
        tables=tables,
        curves={"sft": _sft_curve(draw), "rlvr": _rlvr_curve(draw)},
        data=data,
        ledger={"issued": 512, "scored": 512, "trained": 478, "dropped": 2, "failed": 0, "voided": 32, "open": 0},
        costs=Costs(
            (StageCost("prepare", 3.2, 1), StageCost("sft", 64.0, 1), StageCost("rlvr", 211.5, 2), StageCost("evaluate", 38.4, 1)),
            {"sft_trained": 184_320, "rlvr_prompt": 1_204_992, "rlvr_sampled": 153_880, "evaluate_sampled": 118_400},
            200.1,
            9.6,
            0.048,
        ),
        model=served,
        settings=SETTINGS,
        versions={"sft": software, "rlvr": software, "evaluate": {**software, "vllm": "0.32.0", "revision": "0123456789ab-dirty"}},
        limits=(),
        samples=4,
        resamples=2000,
        diagnosis=_diagnosis("base", sorted(sums), 0.0),
        warm_up=WarmUp(
            True,
            (),
            "SFT on all categories, as sft.mode always asks",
            "source",
            {"correct": 760, "wrong": 40, "malformed": 0, "too_long": 0, "absent": 0},
            800,
        ),
        after_sft=_diagnosis("sft", sorted(sums), 0.4),
    )
    return replace(report, limits=limits.sentences(report, document))


def write(report: Report, folder: Path) -> None:
    """All three forms."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "report.json").write_text(report.to_json(), encoding="utf-8")
    (folder / "report.md").write_text(markdown.render(report), encoding="utf-8")
    (folder / "report.html").write_text(page.render(report), encoding="utf-8")


def _share(correct: float, n: int) -> Estimate:
    return measure.wilson(round(correct), n)


def _policy(name: str, correct: int, n: int) -> PolicyResult:
    metrics = {
        "accuracy": _share(correct, n),
        "accuracy_macro": _share(0.98 * correct, n),
        "accuracy_any_format": _share(min(n, 1.1 * correct + 4), n),
        "mean_at_4": _share(0.95 * correct, n),
        "pass_at_2": _share(min(n, 1.2 * correct), n),
        "pass_at_4": _share(min(n, 1.4 * correct), n),
    }
    rest = n - correct
    malformed = {"base": rest, "sft": rest // 6, "rlvr": 1}[name]
    unparseable = min(rest - malformed, 3)
    outcomes = {"correct": correct, "wrong": rest - malformed - unparseable, "unparseable": unparseable, "malformed": malformed}
    artifact = "v30-a2" if name == "rlvr" else name
    return PolicyResult(artifact, f"{RUN_URI}/policy/{artifact}", metrics, outcomes, {"base": 64.0, "sft": 27.4, "rlvr": 24.9}[name], malformed)


def _difference(policy: str, baseline: str, policies: dict[str, PolicyResult]) -> Difference:
    found = {}
    for metric, estimate in policies[policy].metrics.items():
        gain = estimate.value - policies[baseline].metrics[metric].value
        half = 1.96 * math.sqrt(0.4 / estimate.n)
        found[metric] = Estimate(gain, gain - half, gain + half, estimate.n)
    return Difference(policy, baseline, found, 0.001, {"base": 0.003, "sft": 0.002}[baseline])


def _diagnosis(policy: str, categories: list[str], known: float) -> Diagnosis:
    """Findings of 12 samples on 12 rows of each category, of which the share `known`, a little less in each further category, is right."""
    task = MedCalc()
    findings = []
    for i, category in enumerate(categories):
        right = max(0, round(12 * known) - i)
        rows = [[Verdict(sample < right, "1", "scored") if right else Verdict(False, None, "malformed") for sample in range(12)]] * 12
        examples = [Example(f"{category}/{j}", "medcalc", "train", f"note {j}", category, (), {}) for j in range(12)]
        answers = [
            Answer(e.id, False, "", 9, "stop", v.correct, v.parsed, v.outcome) for e, verdicts in zip(examples, rows, strict=True) for v in verdicts
        ]
        findings += diagnose.judge(task, examples, answers, policy, 12, 0.5).findings
    return Diagnosis(policy, 12, 0.5, 12 * len(categories), 0, tuple(findings))


def _row(label: str, n: int, right: dict[str, int]) -> Row:
    return Row(label, n, n, {policy: measure.wilson(k, n) for policy, k in right.items()})


def _data(sums: dict[str, int]) -> DataAudit:
    counts = {
        split: {"rows": k * sum(sums.values()), "groups": k * sum(sums.values()) - 9, "category": {c: k * n for c, n in sums.items()}}
        for split, k in (("train", 4), ("validation", 1), ("test", 2))
    }
    return DataAudit(
        source={"kind": "local", "uri": "/data/medcalc/v1.0"},
        terms="MedCalc-Bench, licence CC-BY-SA 4.0.",
        labels="original",
        inputs={"train_subset.csv": "5e" * 32, "test_data.csv": "c0" * 32},
        counts=counts,
        drops={"train": {"note_in_test": 64, "prompt_too_long": 2}, "validation": {}, "test": {}},
        checks={
            "gold": {"rows": 1400, "correct": 1400},
            "sft_text": {"train": {"absent": 0, "correct": 760, "wrong": 40}},
            "groups": {"train_validation": 0, "train_test": 0, "validation_test": 0},
        },
        audit={"recomputed": {"train": {"agrees": 772, "disagrees": 28}, "test": {"agrees": 350, "disagrees": 42, "not_computable": 8}}},
        asked=200,
        groups=187,
        total=400,
        unscored=0,
    )


def _sft_curve(draw: random.Random) -> list[dict[str, Any]]:
    losses = [3.6 * math.exp(-i / 16) + 0.22 + 0.06 * draw.random() for i in range(1, 91)]
    return [{"step": i, "epoch": round(i / 18, 3), "loss": round(loss, 4), "tokens": 2048, "seconds": 0.7} for i, loss in enumerate(losses, 1)]


def _rlvr_curve(draw: random.Random) -> list[dict[str, Any]]:
    lines = []
    for i in range(1, 31):
        accuracy = 0.3 + 0.3 * (1 - math.exp(-i / 10)) + 0.08 * (draw.random() - 0.5)
        malformed, unparseable, correct = int(128 * 0.1 * math.exp(-i / 6)), 2, int(128 * accuracy)
        seconds = {"generate": 2.9 + 0.3 * draw.random(), "publish": 0.12, "sync": 0.2 + 0.05 * draw.random(), "train": 2.4 + 0.2 * draw.random()}
        line: dict[str, Any] = {
            "step": i,
            "reward": 1.1 * accuracy - 2 * malformed / 128,
            "accuracy": accuracy,
            "kl": 0.0015 * i * (0.8 + 0.4 * draw.random()),
            "entropy": 0.45 * math.exp(-i / 25) + 0.02 * draw.random(),
            "grad_norm": 0.8 + 0.2 * draw.random(),
            "completion_tokens": 27.5 - 0.09 * i + 0.8 * draw.random(),
        }
        line = {key: round(value, 4) for key, value in line.items()} | {
            "outcomes": {"malformed": malformed, "unparseable": unparseable, "wrong": 128 - malformed - unparseable - correct, "correct": correct},
            "seconds": {name: round(s, 3) for name, s in (seconds | {"total": sum(seconds.values()) + 0.35}).items()},
            "attempt": 1 if i <= 10 else 2,
        }
        if i % 10 == 0:
            line["validation_accuracy"] = round(accuracy - 0.02, 4)
        lines.append(line)
    return lines


if __name__ == "__main__":
    write(build(), Path(sys.argv[1]))
