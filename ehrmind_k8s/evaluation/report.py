"""The report of a run: one typed tree. `report.json` is the tree itself; `markdown` and `page` are views of it.

A stranger should be able to rerun the run from it: the resolved document, hashes of every input, versions, what was dropped and why,
and what the figures do not show. It holds counts, ids of policies and names of categories, never text of a record or a completion.
"""

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

FORMAT = 1
LEVEL = 0.05  # of the p-values; the intervals are of 95 %
OUTCOMES: tuple[str, ...] = ("correct", "wrong", "unparseable", "malformed")
TITLES: Mapping[str, str] = {"base": "Start model", "sft": "SFT", "rlvr": "RLVR"}
SUBJECTS: Mapping[str, str] = {**TITLES, "base": "the start model"}  # inside a sentence


@dataclass(frozen=True, slots=True)
class Estimate:
    """A metric on `n` rows of so many `groups` with its 95 % interval, from a bootstrap that resamples whole groups (notes, patients, topics)."""

    value: float
    low: float
    high: float
    n: int
    groups: int = 0


@dataclass(frozen=True, slots=True)
class Bin:
    """One point of a calibration curve: `n` rows, their mean predicted probability, and the share of them that is positive."""

    predicted: float
    observed: float
    n: int


@dataclass(frozen=True, slots=True)
class Cut:
    """One point of a ROC curve: rows with a probability of at least `threshold` called positive."""

    threshold: float
    false_positive_rate: float
    recall: float


@dataclass(frozen=True, slots=True)
class Confusion:
    """`counts[i][j]`: greedy answers to rows of class i that say class j; the last column is answers that say none of the C classes."""

    classes: tuple[str, ...]
    counts: tuple[tuple[int, ...], ...]


@dataclass(frozen=True, slots=True)
class PolicyResult:
    """One policy on the test rows. `metrics` are of the greedy answers except `mean_at_<k>` and `pass_at_<k>`, which are of k samples.

    A metric named `<metric>/<part>` is that metric over one part of the rows (a subtask), where the task judges its parts apart.
    `calibration` and `roc` are curves over all rows, where the task predicts probabilities, `calibration_of` those of each part; `confusion`
    where an answer is one of a few. `outcomes` counts greedy answers; `cut` those that reached the token limit; `tokens` is their mean length;
    `same_as` names another policy whose weights these are (a skipped SFT).
    """

    name: str
    uri: str
    metrics: Mapping[str, Estimate]
    outcomes: Mapping[str, int]
    tokens: float
    cut: int
    same_as: str | None = None
    calibration: tuple[Bin, ...] = ()
    calibration_of: Mapping[str, tuple[Bin, ...]] = field(default_factory=dict)
    roc: tuple[Cut, ...] = ()
    confusion: Confusion | None = None


@dataclass(frozen=True, slots=True)
class Difference:
    """`metrics[m]` is `policy` minus `baseline` on the same rows, resampled together (paired).

    `p` is the probability of such a difference of the primary metric by chance (two-sided, from the same resamples), `p_holm` the same after
    Holm's correction for all comparisons of policies; NaN where there was nothing to resample.
    """

    policy: str
    baseline: str
    metrics: Mapping[str, Estimate]
    p: float = math.nan
    p_holm: float = math.nan


@dataclass(frozen=True, slots=True)
class Row:
    """One calculator, category or class: correct greedy answers of each policy among its `n` rows, Wilson intervals that count shared `groups`."""

    label: str
    n: int
    groups: int
    correct: Mapping[str, Estimate]


@dataclass(frozen=True, slots=True)
class Table:
    """Correct answers by one property of the questions (`calculator`, `category`)."""

    name: str
    rows: tuple[Row, ...]


@dataclass(frozen=True, slots=True)
class Finding:
    """What k samples on each of a category's `n` train rows show of a policy; `diagnose` defines each figure.

    `reliable` is the share of rows known beyond guessing, by right samples `at_least` and, where there are `classes`, by entropy. `mean` is
    mean@k, `passed` pass@k, `entropy` the mean over rows (nats), `unreadable` the share of samples without a readable answer.
    """

    category: str
    n: int
    groups: int
    reliable: Estimate
    mean: float
    passed: float
    entropy: float
    unreadable: float
    at_least: int
    classes: int | None
    finding: Literal["solved", "misapplied", "missing"]
    why: str


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """What a policy knows, by category of the train rows; `unscored` of the `asked` rows had no sample with finite log-probs."""

    policy: str
    samples: int
    threshold: float
    asked: int
    unscored: int
    findings: tuple[Finding, ...]

    def found(self, finding: str) -> tuple[str, ...]:
        """The categories with this finding."""
        return tuple(f.category for f in self.findings if f.finding == finding)


@dataclass(frozen=True, slots=True)
class WarmUp:
    """What SFT did and why. `categories` empty: all. `traces`: who wrote what it learned from; `judged` counts texts by what became of them."""

    trained: bool
    categories: tuple[str, ...]
    why: str
    traces: str
    judged: Mapping[str, int]
    rows: int


@dataclass(frozen=True, slots=True)
class RunInfo:
    """Which run this is."""

    name: str
    uid: str
    uri: str
    task: str
    title: str
    preset: str
    recipe: str
    recipe_hash: str
    seed: int
    model: str


@dataclass(frozen=True, slots=True)
class DataAudit:
    """What prepare found, as its manifest says; and which test rows were asked. `terms` are the licence of the data, "" for a synthetic twin."""

    source: Mapping[str, Any]
    terms: str
    labels: str
    inputs: Mapping[str, str]
    counts: Mapping[str, Any]
    drops: Mapping[str, Any]
    checks: Mapping[str, Any]
    audit: Mapping[str, Any]
    asked: int
    groups: int
    total: int
    unscored: int


@dataclass(frozen=True, slots=True)
class StageCost:
    """Time of the attempt that completed a stage (seconds), and how many attempts were claimed."""

    stage: str
    seconds: float
    attempts: int


@dataclass(frozen=True, slots=True)
class Costs:
    """What the run took. Tokens are counted where they were made; `sync_seconds` is publishing plus loading weights, over all steps."""

    stages: tuple[StageCost, ...]
    tokens: Mapping[str, int]
    step_seconds: float | None = None
    sync_seconds: float | None = None
    sync_share: float | None = None


@dataclass(frozen=True, slots=True)
class Served:
    """The model the run ends with: where it is and the line that serves it."""

    uri: str
    policy: str
    kind: str
    command: str


@dataclass(frozen=True, slots=True)
class Report:
    """Everything that a run has to say for itself."""

    run: RunInfo
    headline: str
    primary_metric: str
    policies: Mapping[str, PolicyResult]
    differences: tuple[Difference, ...]
    tables: tuple[Table, ...]
    curves: Mapping[str, Sequence[Mapping[str, Any]]]
    data: DataAudit
    ledger: Mapping[str, int]
    costs: Costs
    model: Served
    settings: Mapping[str, Any]
    versions: Mapping[str, Mapping[str, str]]
    limits: tuple[str, ...]
    samples: int
    resamples: int
    diagnosis: Diagnosis | None = None
    warm_up: WarmUp | None = None
    after_sft: Diagnosis | None = None
    format: int = field(default=FORMAT)

    def to_json(self) -> str:
        """The tree as JSON; an undefined figure (NaN) is null."""
        return json.dumps(_finite(dataclasses.asdict(self)), indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def headline(metric: str, policies: Mapping[str, PolicyResult], differences: Sequence[Difference]) -> str:
    """The result in one sentence: the newest policy's primary metric, and what it gained over the others on the same rows."""
    newest = list(policies)[-1]
    estimate = policies[newest].metrics[metric]
    reached = f"{SUBJECTS[newest]} reaches {words(metric)} {percent(estimate.value)}"
    first = f"{reached} on {estimate.n} test rows{_of(estimate)} (95 % interval {interval(estimate)})"
    gains = [_gain(d.metrics[metric], d.p_holm, SUBJECTS[d.baseline]) for d in differences if d.policy == newest]
    sentence = f"{first}: {' and '.join(gains)}." if gains else f"{first}."
    return sentence[0].upper() + sentence[1:]


def words(metric: str) -> str:
    """A metric's name as people write it: `accuracy_any_format` -> `accuracy any format`, `pass_at_4` -> `pass@4`."""
    return metric.replace("_at_", "@").replace("_", " ")


def percent(value: float | None) -> str:
    """A share as `43.5 %`; `n/a` where it is undefined."""
    return "n/a" if _undefined(value) else f"{100 * value:.1f} %"  # type: ignore[operator]


def interval(estimate: Estimate) -> str:
    """`36.0 to 51.0`, in percent."""
    if _undefined(estimate.low) or _undefined(estimate.high):
        return "n/a"
    return f"{100 * estimate.low:.1f} to {100 * estimate.high:.1f}"


def points(value: float | None) -> str:
    """A difference of shares in percentage points, with its sign (a true minus)."""
    if _undefined(value):
        return "n/a"
    text = f"{100 * value:+.1f}".replace("-", "−")  # type: ignore[operator]
    return text.removeprefix("+").removeprefix("−") if text[1:] == "0.0" else text


def _of(estimate: Estimate) -> str:
    return f" of {estimate.groups} groups" if estimate.groups else ""


def chance(p: float | None) -> str:
    """A p-value: `0.03`, `0.0012`, `n/a`."""
    return "n/a" if _undefined(p) else f"{p:.2g}"


def _gain(estimate: Estimate, p_holm: float, baseline: str) -> str:
    """What was gained, called better or worse only where interval and corrected p-value agree that it is not chance."""
    if _undefined(estimate.value):
        return f"not comparable with {baseline}"
    amount = f"{points(estimate.value)} points"
    if not _undefined(estimate.low) and not _undefined(estimate.high):
        amount += f", {points(estimate.low)} to {points(estimate.high)}"
    clear = (estimate.low > 0 or estimate.high < 0) and not p_holm >= LEVEL
    return (
        f"{'better' if estimate.value > 0 else 'worse'} than {baseline} ({amount})" if clear else f"not clearly different from {baseline} ({amount})"
    )


def _undefined(value: float | None) -> bool:
    return value is None or not math.isfinite(value)


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(k): _finite(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
