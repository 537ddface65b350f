"""Sample a policy on the test split and judge every text, in chunks that survive a kill.

A chunk is one object below `results/<policy>/`; a finished policy is an artifact of the same prefix. Both are keyed by what was asked
(weights, rows, sampling), not by the attempt: greedy answers and seeded samples are the same whoever draws them, so the next attempt
continues where this one died. Texts stay in the store. A failed server raises; it never becomes a wrong answer.
"""

import hashlib
import json
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from ehrmind_k8s import artifacts
from ehrmind_k8s.artifacts import Claim
from ehrmind_k8s.records import Completion, Example, Prompt, Verdict
from ehrmind_k8s.rollout.base import Generator, Policy, Sampling
from ehrmind_k8s.tasks.base import Task

CHUNK = 64  # prompts per object: seconds of work on a laptop, and enough sequences in flight to fill a server


@dataclass(frozen=True, slots=True)
class Answer:
    """One judged completion; one line of `completions-<policy>.jsonl`. `greedy` tells the headline answer from the k samples."""

    id: str
    greedy: bool
    text: str
    n_tokens: int
    finish_reason: Literal["stop", "length"]
    correct: bool
    parsed: str | None
    outcome: Literal["malformed", "unparseable", "scored"]

    @property
    def verdict(self) -> Verdict:
        return Verdict(self.correct, self.parsed, self.outcome)


@dataclass(frozen=True, slots=True)
class Subject:
    """A policy under evaluation: what the report calls it (`base`, `sft`, `rlvr`), where it is, and the manifest of its weights."""

    label: str
    policy: Policy
    weights: artifacts.Manifest


@dataclass(frozen=True)
class Questions:
    """What every policy is asked: N examples with their prompts, one greedy answer each and `sampled.n` samples (None: without).

    `place` is the folder of a stage's output that answers are kept in.
    """

    task: Task
    examples: tuple[Example, ...]
    prompts: tuple[Prompt, ...]
    greedy: Sampling | None
    sampled: Sampling | None
    place: str = "results"

    def digest(self, weights: artifacts.Manifest) -> str:
        """SHA-256 over everything that decides the answers of one policy."""
        asked = [[e.id, e.target] for e in self.examples]
        files = sorted((f.name, f.sha256) for f in weights.files)
        greedy, sampled = (asdict(s) if s else None for s in (self.greedy, self.sampled))
        document = [self.task.name, files, asked, [p.token_ids for p in self.prompts], greedy, sampled]
        return hashlib.sha256(json.dumps(document, sort_keys=True, default=str).encode()).hexdigest()


def stratify(examples: Sequence[Example], limit: int | None, seed: int) -> list[Example]:
    """At most `limit` examples, each category in proportion (largest remainder) and at least once where the limit allows; in their old order.

    Within a category the choice is by a hash of seed and id, so it does not depend on the order of the rows.
    """
    if limit is None or limit >= len(examples):
        return list(examples)
    strata = _strata(examples, seed)
    chosen = {e.id for category, n in _quotas({c: len(rows) for c, rows in strata.items()}, limit).items() for e in strata[category][:n]}
    return [e for e in examples if e.id in chosen]


def of_each(examples: Sequence[Example], limit: int | None, seed: int) -> list[Example]:
    """At most `limit` examples of each category, chosen as `stratify` does; in their old order."""
    chosen = {e.id for rows in _strata(examples, seed).values() for e in rows[:limit]}
    return [e for e in examples if e.id in chosen]


def _strata(examples: Sequence[Example], seed: int) -> dict[str, list[Example]]:
    """Category -> its examples in the order in which they are chosen."""
    strata: dict[str, list[Example]] = defaultdict(list)
    for example in sorted(examples, key=lambda e: hashlib.sha256(f"{seed}:{e.id}".encode()).digest()):
        strata[example.category].append(example)
    return strata


def answers(subject: Subject, questions: Questions, generator: Generator, claim: Claim, work: Path, progress: Callable[[int], None]) -> list[Answer]:
    """All answers of a policy, from the store where they are there already; otherwise sampled and published. `progress` hears of prompts done.

    Raises RolloutUnavailable when the servers are gone; what was answered until then is kept.
    """
    out, prefix = claim.store, artifacts.results_key(subject.label, questions.place)
    digest = questions.digest(subject.weights)
    folder, name = work / f"{questions.place}-{subject.label}", f"completions-{subject.label}.jsonl"
    finished = artifacts.load(out, prefix)
    if finished and finished.meta["digest"] == digest:
        artifacts.fetch(out, prefix, folder)
        progress(len(questions.examples))
        return _read((folder / name).read_bytes())
    if finished:
        artifacts.remove(out, prefix)
    parts = [*_parts(subject.policy, questions, generator, claim, f"{prefix}/part-{digest[:16]}", progress)]
    found = [answer for part in parts for answer in part]
    folder.mkdir()
    (folder / name).write_bytes(_lines(found))
    meta = {"digest": digest, "policy": subject.policy.name, "uri": subject.policy.uri, "rows": len(questions.examples), "answers": len(found)}
    artifacts.publish(out, prefix, folder, "results", meta, claim=claim)
    for item in list(out.list(f"{prefix}/part-")):
        out.delete(item.key)
    return found


def _parts(
    policy: Policy, questions: Questions, generator: Generator, claim: Claim, stem: str, progress: Callable[[int], None]
) -> Iterator[list[Answer]]:
    out, ready = claim.store, False
    for start in range(0, len(questions.examples), CHUNK):
        key, rows = f"{stem}-{start:06d}.jsonl", slice(start, start + CHUNK)
        try:
            part = _read(out.get_bytes(key))
        except KeyError:
            if not ready:
                generator.use(policy)
                ready = True
            part = _ask(questions, rows, generator)
            claim.check()
            out.put_bytes(key, _lines(part))
        progress(min(start + CHUNK, len(questions.examples)))
        yield part


def _ask(questions: Questions, rows: slice, generator: Generator) -> list[Answer]:
    examples, prompts = questions.examples[rows], questions.prompts[rows]
    found = []
    for sampling in (questions.greedy, questions.sampled):
        if sampling:
            groups = generator.generate(prompts, sampling)
            found += [_judge(questions.task, e, c, sampling.greedy) for e, group in zip(examples, groups, strict=True) for c in group]
    return found


def _judge(task: Task, example: Example, completion: Completion, greedy: bool) -> Answer:
    verdict = task.score(example, completion.text)
    n_tokens = len(completion.token_ids)
    return Answer(example.id, greedy, completion.text, n_tokens, completion.finish_reason, verdict.correct, verdict.parsed, verdict.outcome)


def _quotas(sizes: dict[str, int], limit: int) -> dict[str, int]:
    """Largest remainder over `sizes`; then categories that got nothing take one from the largest quotas while there is one above 1."""
    total = sum(sizes.values())
    quotas = {c: limit * n // total for c, n in sizes.items()}
    by_remainder = sorted(sizes, key=lambda c: (-(limit * sizes[c] % total), c))
    for category in by_remainder[: limit - sum(quotas.values())]:
        quotas[category] += 1
    for category in [c for c in sorted(sizes) if quotas[c] == 0]:
        largest = max(quotas, key=lambda c: (quotas[c], c))
        if quotas[largest] > 1:
            quotas[largest], quotas[category] = quotas[largest] - 1, 1
    return quotas


def _lines(found: Sequence[Answer]) -> bytes:
    return "".join(json.dumps(asdict(a), ensure_ascii=False) + "\n" for a in found).encode()


def _read(body: bytes) -> list[Answer]:
    return [Answer(**json.loads(line)) for line in body.decode().split("\n") if line]
