"""What the start model knows, and what SFT does about it: the pilot study of EHRMIND (arXiv 2505.24105, section 4.3) on judged samples.

A model fails in two ways. Knowledge that is *misapplied* shows: some of k samples are right, and RLVR alone makes them all right. Knowledge
that is *missing* does not: RLVR has nothing to reinforce, and SFT must bring it first. One right sample of few classes may be a guess, so a
row counts as known only when it passes *reliably*: at least r of 12 samples are right, and where the answer is one of C classes, the
entropy of the sampled answers is below 0.8 ln C. The task says r and C. For another k than 12, r is taken in proportion, at least 1.

Per category, in this order:

    mean@k > 0.9                                  solved        nothing to repair, whatever the threshold
    share of reliable rows < `threshold`          missing       SFT on it, then RLVR
    else                                          misapplied    RLVR alone

Departures from the reference code: whether a sample is right is the scorer's verdict, not equality of strings; a sample without a readable
answer is no class of its own in the entropy, since it says nothing of what the model believes.
"""

import json
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from ehrmind_k8s.evaluation.generate import Answer, Questions
from ehrmind_k8s.evaluation.measure import effective, wilson
from ehrmind_k8s.evaluation.report import Diagnosis, Estimate, Finding, percent
from ehrmind_k8s.records import Example, Verdict
from ehrmind_k8s.rollout.base import Sampling
from ehrmind_k8s.spec import RunSpec, SftSpec
from ehrmind_k8s.tasks.base import Reliability, Task
from ehrmind_k8s.tokenization import Tokenizer

SOLVED = 0.9  # mean@k above it leaves RLVR less than a tenth to gain
CERTAIN = 0.8  # of ln C, the entropy of answers drawn at random
OF = 12  # samples that `Reliability.at_least` counts among
UNREADABLE = 0.5  # share of samples without a readable answer that is worth a clause


FINDINGS = ("solved", "misapplied", "missing")


@dataclass(frozen=True, slots=True)
class Choice:
    """What SFT does: `train` or publish the start model; on `categories` (empty: all), and why."""

    train: bool
    categories: tuple[str, ...]
    why: str


def questions(spec: RunSpec, task: Task, rows: Sequence[Example], tokenizer: Tokenizer, samples: int, place: str = "results") -> Questions:
    """k samples on each row, drawn as RLVR draws them: what is diagnosed is whether its groups would hold a right one."""
    drawn = Sampling(samples, spec.rlvr.max_completion_tokens, spec.rlvr.temperature, spec.rlvr.top_p, spec.seed, stop_token_ids=tokenizer.stop_ids)
    return Questions(task, tuple(rows), tuple(tokenizer.prompt(e) for e in rows), None, drawn, place)


def needed(rule: Reliability, k: int) -> int:
    """Right samples of k that `rule` asks for, at least 1: 3 of 12 are 1 of 4."""
    return max(1, math.ceil(rule.at_least * k / OF))


def entropy(verdicts: Iterable[Verdict]) -> float:
    """Entropy (nats) of the answers that could be read; 0 where there is none."""
    counts = Counter(v.parsed for v in verdicts if v.parsed is not None)
    total = counts.total()
    return -sum(n / total * math.log(n / total) for n in counts.values()) + 0.0


def reliable(rule: Reliability, verdicts: Sequence[Verdict]) -> bool:
    """Whether the samples of one row show that its answer is known. No sample shows nothing."""
    if sum(v.correct for v in verdicts) < needed(rule, len(verdicts)):
        return False
    return rule.classes is None or entropy(verdicts) < CERTAIN * math.log(rule.classes)


def judge(task: Task, examples: Sequence[Example], answers: Iterable[Answer], policy: str, samples: int, threshold: float) -> Diagnosis:
    """The findings about `policy` on `examples`. Rows without a sample (no finite log-prob) are left out and counted."""
    by_id: dict[str, list[Verdict]] = defaultdict(list)
    for answer in answers:
        by_id[answer.id].append(answer.verdict)
    rows: dict[str, list[Example]] = defaultdict(list)
    for example in examples:
        if by_id[example.id]:
            rows[example.category].append(example)
    findings = [_finding(c, task.reliability(c), rows[c], [by_id[e.id] for e in rows[c]], samples, threshold) for c in sorted(rows)]
    return Diagnosis(policy, samples, threshold, len(examples), len(examples) - sum(f.n for f in findings), tuple(findings))


def choose(sft: SftSpec, diagnosis: Diagnosis | None) -> Choice:
    """What SFT is to do: as its mode and categories say, or else as the diagnosis says. A choice against the diagnosis says so."""
    if sft.mode == "never":
        return _overruling(Choice(False, (), "the start model is published as it is, as sft.mode never asks"), diagnosis)
    if sft.categories:
        return _overruling(Choice(True, sft.categories, f"SFT on {', '.join(sft.categories)}, as sft.categories asks"), diagnosis)
    if sft.mode == "always":
        return _overruling(Choice(True, (), "SFT on all categories, as sft.mode always asks"), diagnosis)
    assert diagnosis is not None  # spec.py refuses auto without one
    missing = diagnosis.found("missing")
    if not missing:
        return Choice(False, (), f"no category lacks knowledge ({_told(diagnosis)}): RLVR alone, from the start model")
    return Choice(True, missing, f"knowledge is missing in {', '.join(missing)}: SFT on {'it' if len(missing) == 1 else 'them'}, then RLVR")


def to_json(diagnosis: Diagnosis) -> str:
    """`diagnosis.json`. A mean over nothing does not occur: a category without a row is not listed."""
    return json.dumps(asdict(diagnosis), indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def from_json(text: str) -> Diagnosis:
    """The diagnosis that `to_json` wrote."""
    raw: dict[str, Any] = json.loads(text)
    findings = [Finding(**(f | {"reliable": Estimate(**f["reliable"])})) for f in raw["findings"]]
    return Diagnosis(**(raw | {"findings": tuple(findings)}))


def _finding(
    category: str, rule: Reliability, examples: Sequence[Example], rows: Sequence[Sequence[Verdict]], samples: int, threshold: float
) -> Finding:
    passed = [reliable(rule, verdicts) for verdicts in rows]
    groups = [e.group for e in examples]
    share = wilson(sum(passed), len(passed), effective(passed, groups), len(set(groups)))
    figures = {
        "mean": _mean(sum(v.correct for v in verdicts) / len(verdicts) for verdicts in rows),
        "passed": _mean(float(any(v.correct for v in verdicts)) for verdicts in rows),
        "entropy": _mean(map(entropy, rows)),
        "unreadable": _mean(sum(v.parsed is None for v in verdicts) / len(verdicts) for verdicts in rows),
    }
    found, why = _verdict(share, figures, threshold)
    return Finding(
        category=category,
        n=len(rows),
        groups=share.groups,
        reliable=share,
        at_least=needed(rule, samples),
        classes=rule.classes,
        finding=found,
        why=why,
        **figures,
    )


def _verdict(share: Estimate, figures: Mapping[str, float], threshold: float) -> tuple[Literal["solved", "missing", "misapplied"], str]:
    """The finding of a category and its reason, a clause."""
    right = f"right in {percent(figures['mean'])} of samples"
    if figures["mean"] > SOLVED:
        return "solved", f"{right}, over {percent(SOLVED)}"
    rows = f"reliably right on {percent(share.value)} of {share.n} rows"
    unsure = f"; the interval holds {percent(threshold)}, so {share.n} rows do not settle it" if share.low < threshold < share.high else ""
    if share.value >= threshold:
        return "misapplied", f"{rows}, but {right}{unsure}"
    form = f"; {percent(figures['unreadable'])} of samples have no readable answer: the form is missing too"
    return "missing", f"{rows}, below {percent(threshold)}{form if figures['unreadable'] > UNREADABLE else ''}{unsure}"


def _overruling(choice: Choice, diagnosis: Diagnosis | None) -> Choice:
    """`choice` with a clause where the diagnosis would have chosen otherwise."""
    if diagnosis is None:
        return choice
    missing, known = diagnosis.found("missing"), {f.category for f in diagnosis.findings}
    taken = (set(choice.categories) or known) if choice.train else set()
    if taken == set(missing):
        return choice
    otherwise = f"SFT on {', '.join(missing)}" if missing else "no SFT"
    return Choice(choice.train, choice.categories, f"{choice.why}; the diagnosis alone would have led to {otherwise}")


def _told(diagnosis: Diagnosis) -> str:
    groups = [(word, diagnosis.found(word)) for word in ("solved", "misapplied")]
    return "; ".join(f"{word}: {', '.join(names)}" for word, names in groups if names)


def _mean(values: Iterable[float]) -> float:
    found = list(values)
    return sum(found) / len(found)
