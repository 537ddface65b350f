"""From judged answers to figures: metrics with clustered intervals, paired differences, tables, outcome counts.

All policies answer the same N rows, so one bootstrap resamples the groups once for all of them: a difference between two policies is
taken inside each resample (paired), which is what makes small gains visible. The greedy answer is the headline; k samples beside it are
votes for a class, and give `mean_at_<k>` (the share of right samples) and `pass_at_<j>` (Chen et al. 2021, arXiv 2107.03374, eq. 1, unbiased).
"""

import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np

from ehrmind_k8s.evaluation.generate import Answer, Questions
from ehrmind_k8s.evaluation.report import OUTCOMES, Bin, Confusion, Cut, Difference, Estimate, PolicyResult, Row, Table
from ehrmind_k8s.records import Example
from ehrmind_k8s.rollout.base import Policy
from ehrmind_k8s.statistics import bootstrap, calibration, classification, comparison, ranking
from ehrmind_k8s.statistics.bootstrap import Interval
from ehrmind_k8s.tasks.base import Sampled, Task

Columns = Mapping[str, np.ndarray]
PART = "of/"  # tasks/base.py, columns
Z95 = 1.959964  # standard normal quantile of a 95 % interval


@dataclass(frozen=True)
class Measured:
    """What was measured on the rows that every policy answered; `unscored` counts the rows left out (no finite log-prob, no verdict)."""

    policies: dict[str, PolicyResult]
    differences: tuple[Difference, ...]
    tables: tuple[Table, ...]
    rows: int
    groups: int
    unscored: int


@dataclass(frozen=True)
class _Answered:
    greedy: Answer
    samples: tuple[Answer, ...]


def measure(questions: Questions, policies: Mapping[str, Policy], found: Mapping[str, Sequence[Answer]], resamples: int, seed: int) -> Measured:
    """Compare `policies` (label -> policy, oldest first) by what they answered."""
    answered = {label: _by_id(found[label]) for label in policies}
    k = questions.sampled.n if questions.sampled else 0
    examples = [e for e in questions.examples if all(_complete(by_id.get(e.id), k) for by_id in answered.values())]
    rows = {label: [by_id[e.id] for e in examples] for label, by_id in answered.items()}
    statistic = _Statistic(questions.task, tuple(policies), k)
    groups = [e.group for e in examples]
    columns = statistic.columns(examples, rows)
    intervals = _intervals(statistic, columns, groups, resamples, seed)
    estimates = {
        of: {m: Estimate(i.value, i.low, i.high, len(groups), len(set(groups))) for m, i in found.items()} for of, found in intervals.items()
    }
    own = {label: _chosen(f"{label}/task/", columns) for label in policies}
    results = {
        label: replace(
            _result(policy, estimates[label], rows[label]),
            calibration=_calibration(own[label]),
            calibration_of=_calibration_of(own[label]),
            roc=_roc(own[label]),
            confusion=_confusion(questions.task.classes, own[label]),
        )
        for label, policy in policies.items()
    }
    pairs = [(b, a) for a, b in combinations(policies, 2)]
    chances = [intervals[f"{b}-{a}"][questions.task.primary_metric].p for b, a in pairs]
    differences = [Difference(b, a, estimates[f"{b}-{a}"], *both) for (b, a), *both in zip(pairs, chances, comparison.holm(chances), strict=True)]
    tables = _tables(questions.task, examples, rows)
    return Measured(results, tuple(differences), tables, len(examples), len(set(groups)), len(questions.examples) - len(examples))


def pass_at(n: int, correct: int, k: int) -> float:
    """Probability that k of n samples, of which `correct` are right, hold a right one: 1 - C(n-c, k) / C(n, k). k above n counts as n."""
    k = min(k, n)
    return 1.0 - math.comb(n - correct, k) / math.comb(n, k)


def wilson(correct: int, n: int, independent: float | None = None, groups: int = 0) -> Estimate:
    """A share with its Wilson score interval (Wilson 1927): for the few rows of a table line, where a bootstrap has nothing to resample.

    `independent` is what the n rows are worth where some share one of `groups` groups (see `effective`).
    """
    if n == 0:
        return Estimate(math.nan, math.nan, math.nan, 0)
    share, z2, m = correct / n, Z95**2, n if independent is None else independent
    centre = (share + z2 / (2 * m)) / (1 + z2 / m)
    half = Z95 / (1 + z2 / m) * math.sqrt(share * (1 - share) / m + z2 / (4 * m * m))
    return Estimate(share, max(0.0, centre - half), min(1.0, centre + half), n, groups)


def effective(correct: Sequence[bool], groups: Sequence[str]) -> float:
    """How many independent rows would give a share as certain: n over the design effect of whole groups (Kish 1965), at most n.

    The design effect is the variance of the share by the sums of groups over that of independent rows. Where all rows are right or all
    are wrong it cannot be seen, and a group is worth one row.
    """
    n, share = len(correct), sum(correct) / len(correct)
    sums: dict[str, float] = defaultdict(float)
    for right, group in zip(correct, groups, strict=True):
        sums[group] += right - share
    if len(sums) in (1, n) or share in (0, 1):
        return len(sums)
    clustered = len(sums) / (len(sums) - 1) * sum(s * s for s in sums.values())
    return min(n, n * n * share * (1 - share) / clustered) if clustered else n


@dataclass(frozen=True)
class _Statistic:
    """Every figure of every policy from (resampled) columns, so that one bootstrap serves all and differences are paired."""

    task: Task
    labels: tuple[str, ...]
    k: int

    @property
    def ks(self) -> list[int]:
        """The j of pass_at_j: powers of two up to k, and k itself. pass_at_1 is what one sample is worth on average, shown as mean_at_k."""
        return sorted({j for j in (1, 2, 4, 8, 16, 32) if j < self.k} | ({self.k} if self.k else set()))

    def columns(self, examples: Sequence[Example], rows: Mapping[str, Sequence[_Answered]]) -> dict[str, np.ndarray]:
        found: dict[str, np.ndarray] = {}
        for label in self.labels:
            answers = [[_sampled(r.greedy)] for r in rows[label]]
            votes = [[_sampled(s) for s in r.samples] for r in rows[label]] if self.k else answers
            found |= _prefixed(f"{label}/task/", self.task.columns(examples, answers, votes))
            counts = [(len(r.samples), sum(s.correct for s in r.samples)) for r in rows[label]]
            for j in self.ks:
                found[f"{label}/pass/{j}"] = np.array([pass_at(n, correct, j) for n, correct in counts])
        return found

    def __call__(self, columns: Columns, weights: np.ndarray) -> dict[str, float]:
        found: dict[str, dict[str, float]] = {}
        for label in self.labels:
            found[label] = dict(self.task.metrics(_chosen(f"{label}/task/", columns), weights))
            for j in self.ks:
                name = f"mean_at_{self.k}" if j == 1 else f"pass_at_{j}"
                found[label][name] = classification.mean(columns[f"{label}/pass/{j}"], weights)
        for a, b in combinations(self.labels, 2):
            found[f"{b}-{a}"] = {m: value - found[a][m] for m, value in found[b].items()}
        return {f"{subject}/{metric}": value for subject, metrics in found.items() for metric, value in metrics.items()}


def _intervals(statistic: _Statistic, columns: Columns, groups: Sequence[str], resamples: int, seed: int) -> dict[str, dict[str, Interval]]:
    """Subject (a policy or `b-a`) -> metric -> interval."""
    found: dict[str, dict[str, Interval]] = defaultdict(dict)
    for name, interval in bootstrap.intervals(statistic, columns, groups, resamples=resamples, seed=seed).items():
        subject, _, metric = name.partition("/")
        found[subject][metric] = interval
    return found


def _calibration(columns: Columns) -> tuple[Bin, ...]:
    """The curve of a task whose columns hold `probability` and `positive`; its filled bins only."""
    if not {"probability", "positive"} <= set(columns):
        return ()
    p, positive = columns["probability"], columns["positive"]
    found = calibration.curve(calibration.bins(p), p, positive, np.zeros(len(p), dtype=int), np.ones(len(p)), 1)
    points = zip(found.predicted[0], found.observed[0], found.weight[0], strict=True)
    return tuple(Bin(float(predicted), float(observed), int(n)) for predicted, observed, n in points if n)


def _calibration_of(columns: Columns) -> dict[str, tuple[Bin, ...]]:
    """The curves of the parts that a task judges apart: its columns `of/<part>` are their rows."""
    parts = {name.removeprefix(PART): column.astype(bool) for name, column in columns.items() if name.startswith(PART)}
    found = {part: _calibration({k: columns[k][rows] for k in ("probability", "positive") if k in columns}) for part, rows in parts.items()}
    return {part: curve for part, curve in found.items() if curve} if len(parts) > 1 else {}


def _roc(columns: Columns) -> tuple[Cut, ...]:
    """The curve of a task whose columns hold `probability` and `positive`, from the highest probability down; none where one class has no row."""
    if not {"probability", "positive"} <= set(columns):
        return ()
    p, positive, one = columns["probability"], columns["positive"].astype(int), np.zeros(len(columns["positive"]), dtype=int)
    if not 0 < positive.sum() < len(positive):
        return ()
    false, recall = ranking.roc(ranking.histogram(ranking.dense_ranks(p, one), positive, one, np.ones(len(p)), 1))
    points = zip(np.unique(p)[::-1], false[0], recall[0], strict=True)
    return tuple(Cut(float(threshold), float(f), float(r)) for threshold, f, r in points)


def _confusion(classes: tuple[str, ...], columns: Columns) -> Confusion | None:
    """The matrix of a task whose answers are one of `classes`."""
    if not classes:
        return None
    said = np.column_stack([columns[f"said_{i}"] for i in range(len(classes) + 1)])
    table = classification.confusion(columns["truth"], said, np.ones(len(said)), len(classes))
    return Confusion(classes, tuple(tuple(int(n) for n in row) for row in table.round()))


def _result(policy: Policy, metrics: Mapping[str, Estimate], rows: Sequence[_Answered]) -> PolicyResult:
    counts = Counter(outcome(r.greedy) for r in rows)
    tokens = float(np.mean([r.greedy.n_tokens for r in rows])) if rows else math.nan
    cut = sum(r.greedy.finish_reason == "length" for r in rows)
    return PolicyResult(policy.name, policy.uri, metrics, {o: counts[o] for o in OUTCOMES}, tokens, cut)


def outcome(answer: Answer) -> str:
    """One of OUTCOMES: the scorer's outcome, with `scored` told apart into correct and wrong."""
    if answer.outcome != "scored":
        return answer.outcome
    return "correct" if answer.correct else "wrong"


def _tables(task: Task, examples: Sequence[Example], rows: Mapping[str, Sequence[_Answered]]) -> tuple[Table, ...]:
    """The task's tables, the shortest first."""
    members: dict[str, dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
    for i, example in enumerate(examples):
        for table, label in task.breakdown(example).items():
            members[table][label].append(i)
    tables = [
        Table(name, tuple(_row(label, lines, examples, rows) for label, lines in sorted(by_label.items()))) for name, by_label in members.items()
    ]
    return tuple(sorted(tables, key=lambda t: len(t.rows)))


def _row(label: str, lines: Sequence[int], examples: Sequence[Example], rows: Mapping[str, Sequence[_Answered]]) -> Row:
    groups = [examples[i].group for i in lines]
    found = {policy: [answered[i].greedy.correct for i in lines] for policy, answered in rows.items()}
    n, several = len(lines), len(set(groups))
    return Row(label, n, several, {policy: wilson(sum(right), n, effective(right, groups), several) for policy, right in found.items()})


def _by_id(found: Sequence[Answer]) -> dict[str, _Answered]:
    greedy = {a.id: a for a in found if a.greedy}
    samples: dict[str, list[Answer]] = defaultdict(list)
    for answer in found:
        if not answer.greedy:
            samples[answer.id].append(answer)
    return {id_: _Answered(answer, tuple(samples[id_])) for id_, answer in greedy.items()}


def _complete(answered: _Answered | None, k: int) -> bool:
    return answered is not None and (not k or bool(answered.samples))


def _sampled(answer: Answer) -> Sampled:
    return Sampled(answer.text, answer.verdict)


def _prefixed(prefix: str, columns: Columns) -> dict[str, np.ndarray]:
    return {prefix + name: column for name, column in columns.items()}


def _chosen(prefix: str, columns: Columns) -> dict[str, np.ndarray]:
    return {name.removeprefix(prefix): column for name, column in columns.items() if name.startswith(prefix)}
