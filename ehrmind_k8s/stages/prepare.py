"""prepare: source files and a start model become immutable splits and a checked model.

Reads the task's data, resolves the start model once, counts every prompt's tokens with its tokenizer, and refuses what later stages could
not mend: a gold answer the scorer does not accept, a group in two splits, an empty split, a test prompt over the budget. Nothing is ever
cut: what does not fit is dropped, listed in `drops.jsonl` with its reason, and counted. The same inputs give the same bytes.
"""

import dataclasses
import itertools
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ehrmind_k8s import artifacts, examples, logs, startmodel, storage
from ehrmind_k8s.errors import DataError, SpecError
from ehrmind_k8s.records import SPLITS, Drop, Example
from ehrmind_k8s.spec import RunSpec
from ehrmind_k8s.stages import Context, Output
from ehrmind_k8s.tasks import registry
from ehrmind_k8s.tasks.base import Task
from ehrmind_k8s.tokenization import Tokenizer

PROGRESS_EVERY = 500


def run(context: Context) -> Output:
    """Publish `train|validation|test.parquet`, `drops.jsonl` and `model/`. Raises DataError, ModelError or SpecError."""
    spec, task = context.spec, registry.get(context.spec.task)
    folder = context.work / "out"
    source, about = _source(spec, task, context.work)
    found = task.read(source, spec.data, spec.seed)
    train = [e for e in found.examples if e.split == "train"]
    model = startmodel.resolve(spec.model, folder / artifacts.MODEL, train or found.examples, spec.seed)
    tokenizer = Tokenizer(folder / artifacts.MODEL)

    counted = _count_tokens(found.examples, tokenizer)
    kept, too_long = _within_budget(counted, spec)
    kept, traces = _check_traces(kept, task, tokenizer, spec)
    drops = [*found.drops, *too_long]
    splits: dict[str, list[Example]] = {s: [e for e in kept if e.split == s] for s in SPLITS}
    _check_sizes(splits, drops, spec)
    checks = {
        "gold": _check_gold(kept, task),
        "groups": _check_groups(splits, spec),
        "sft_text": traces,
        "prompt_tokens": {s: _spread([e.n_tokens for e in rows]) for s, rows in splits.items()},
    }
    for split, rows in splits.items():
        examples.write_split(folder / f"{split}.parquet", rows)
    (folder / "drops.jsonl").write_text("".join(json.dumps(dataclasses.asdict(d)) + "\n" for d in drops), encoding="utf-8")
    sizes = {s: len(rows) for s, rows in splits.items()}
    meta = {
        "task": task.name,
        "source": about,
        "inputs": dict(found.inputs),
        "audit": dict(found.audit),
        "counts": {s: _counts(rows, task) for s, rows in splits.items()},
        "drops": {s: dict(Counter(d.reason for d in drops if d.split == s)) for s in SPLITS},
        "checks": checks,
        "tokenizer": tokenizer.fingerprint,
        "model": {"uri": spec.model.uri, "revision": spec.model.revision, **dataclasses.asdict(model)},
    }
    logs.event("prepared", rows=sizes, dropped=len(drops))
    return Output(folder, meta, message=", ".join(f"{n} {split}" for split, n in sizes.items()))


def _source(spec: RunSpec, task: Task, work: Path) -> tuple[Path, dict[str, Any]]:
    """A local path that the task can read, and what the manifest says about it."""
    uri = spec.data.uri
    if uri is None:
        if spec.preset != "tiny":
            raise SpecError(f"data.uri is missing: preset {spec.preset} trains on your data (tiny would make a synthetic twin). {task.layouts}")
        twin = work / "twin"
        task.synthesize(twin, spec.seed, "quickstart")
        return twin, {"kind": "synthetic", "about": (twin / "README.md").read_text(encoding="utf-8")}
    path = storage.path(uri)
    if path is None:
        return _download(uri, work / "source"), {"kind": urlsplit(uri).scheme, "uri": uri}
    if not path.exists():
        raise DataError(f"data.uri {uri}: no such file or folder. {task.layouts}")
    return path, {"kind": "local", "uri": uri}


def _download(uri: str, folder: Path) -> Path:
    """The objects at `uri`: one file, or all below it. What `ehrmind data put` brought is verified against its manifest."""
    store = storage.open(uri)
    if artifacts.load(store) is not None:
        files = artifacts.fetch(store, "", folder).files
        return folder / files[0].name if len(files) == 1 else folder
    parent, _, name = uri.rstrip("/").rpartition("/")
    if urlsplit(parent).netloc and storage.open(parent).head(name) is not None:
        storage.open(parent).get_file(name, folder / name)
        return folder / name
    items = list(store.list())
    for done, item in enumerate(items, 1):
        store.get_file(item.key, folder / item.key)
        logs.progress(done, len(items), "files")
    if not items:
        raise DataError(f"data.uri {uri}: nothing there; bring the data with `ehrmind data put PATH {uri}`")
    return folder


def _count_tokens(rows: Sequence[Example], tokenizer: Tokenizer) -> list[Example]:
    counted = []
    for done, example in enumerate(rows, 1):
        counted.append(dataclasses.replace(example, n_tokens=len(tokenizer.prompt(example).token_ids)))
        if done % PROGRESS_EVERY == 0 or done == len(rows):
            logs.progress(done, len(rows), "rows")
    return counted


def _within_budget(rows: Sequence[Example], spec: RunSpec) -> tuple[list[Example], list[Drop]]:
    """Rows whose prompt fits `data.max_prompt_tokens`. A test row over it stops the run unless `data.long_test` is drop."""
    budget = spec.data.max_prompt_tokens
    over = [e for e in rows if e.n_tokens > budget]
    test = [e.n_tokens for e in over if e.split == "test"]
    if test and spec.data.long_test == "stop":
        longest = max(test)
        raise DataError(
            f"{len(test)} test rows are over data.max_prompt_tokens {budget}: the longest has {longest} tokens. Set data.max_prompt_tokens={longest}"
            f" (model.context at least {longest + spec.completion_tokens}), or data.long_test=drop to leave them out and state n beside every metric"
        )
    return [e for e in rows if e.n_tokens <= budget], [Drop(e.id, e.split, "prompt_too_long") for e in over]


def _check_traces(rows: Sequence[Example], task: Task, tokenizer: Tokenizer, spec: RunSpec) -> tuple[list[Example], dict[str, dict[str, int]]]:
    """Judge every SFT text and count the verdicts per split.

    One that is malformed, or longer than a completion may be, teaches what RLVR punishes: the row stays without it. One that ends in another
    answer than the gold stays (an imperfect teacher is the user's choice) and is counted as `wrong`.
    """
    kept, verdicts = [], {s: Counter[str](correct=0, wrong=0, malformed=0, too_long=0, absent=0) for s in SPLITS}
    for example in rows:
        verdict = _judge_trace(example, task, tokenizer, spec.completion_tokens)
        verdicts[example.split][verdict] += 1
        kept.append(dataclasses.replace(example, sft_text=None) if verdict in ("malformed", "too_long") else example)
    train = verdicts["train"]
    if train.total() and spec.sft.mode != "never" and not train["correct"] + train["wrong"]:
        raise DataError(
            f"no train row has an SFT text of at most {spec.completion_tokens} tokens (longer: {train['too_long']}, malformed: {train['malformed']},"
            f" absent: {train['absent']}); raise rlvr.max_completion_tokens, or set sft.mode=never"
        )
    return kept, {split: dict(counts) for split, counts in verdicts.items()}


def _judge_trace(example: Example, task: Task, tokenizer: Tokenizer, longest: int) -> str:
    if example.sft_text is None:
        return "absent"
    if len(tokenizer.completion(example.sft_text)) > longest:
        return "too_long"
    verdict = task.score(example, example.sft_text)
    if verdict.outcome == "malformed":
        return "malformed"
    return "correct" if verdict.correct else "wrong"


def _check_gold(rows: Sequence[Example], task: Task) -> dict[str, int]:
    """The right answer, written as the prompt asks, scores correct; else no policy could be judged on that row."""
    failed = [e.id for e in rows if not task.score(e, task.gold(e)).correct]
    if failed:
        few = ", ".join(failed[:5])
        raise DataError(f"{len(failed)} rows have a gold answer that the scorer of {task.name} does not accept, first {few}; check answer and limits")
    return {"rows": len(rows), "correct": len(rows)}


def _check_groups(splits: Mapping[str, Sequence[Example]], spec: RunSpec) -> dict[str, int]:
    """No group is in two splits (train and test may share some where `data.note_overlap` is keep; validation never shares any); no id twice."""
    groups = {s: {e.group for e in rows} for s, rows in splits.items()}
    shared = {f"{a}_{b}": len(groups[a] & groups[b]) for a, b in itertools.combinations(SPLITS, 2)}
    allowed = ("train_test",) if spec.data.note_overlap == "keep" else ()
    if bad := {pair: n for pair, n in shared.items() if n and pair not in allowed}:
        raise DataError(f"groups occur in two splits ({bad}): the reader of task {spec.task} leaks; report it")
    if twice := [i for i, n in Counter(e.id for rows in splits.values() for e in rows).items() if n > 1]:
        raise DataError(f"{len(twice)} row ids occur twice, first {twice[0]}; ids must be unique over all splits")
    return shared


def _check_sizes(splits: Mapping[str, Sequence[Example]], drops: Sequence[Drop], spec: RunSpec) -> None:
    for split, rows in splits.items():
        if rows or (split == "validation" and spec.data.validation_fraction == 0):
            continue
        reasons = Counter(d.reason for d in drops if d.split == split)
        if not reasons and spec.stages == ("prepare",):
            continue  # the source has no such split, and nothing in this run reads it
        why = ", ".join(f"{reason}: {n}" for reason, n in reasons.items()) or "none was read"
        key = "test" if split == "test" else "train"
        raise DataError(f"split {split} is empty after filtering ({why}); check data.uri, data.{key} and the data settings")


def _counts(rows: Sequence[Example], task: Task) -> dict[str, Any]:
    """Rows of one split: all, and by each of the task's tables (category, calculator, ...)."""
    tables: dict[str, Counter[str]] = {}
    for example in rows:
        for table, label in task.breakdown(example).items():
            tables.setdefault(table, Counter())[label] += 1
    return {"rows": len(rows), "groups": len({e.group for e in rows}), **{t: dict(sorted(c.items())) for t, c in tables.items()}}


def _spread(lengths: Sequence[int]) -> dict[str, int]:
    ordered = sorted(lengths)
    return {"median": ordered[len(ordered) // 2], "p90": ordered[int(len(ordered) * 0.9)], "max": ordered[-1]} if ordered else {}
