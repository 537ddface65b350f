"""prepare: source files and a start model become immutable splits and a checked model.

Resolves the start model once, reads the task's data row by row (memory does not grow with it), counts every prompt's tokens, and refuses
what later stages could not mend: a gold answer the scorer does not accept, a group in two splits, an empty split, a test prompt over the
budget. Nothing is ever cut: what does not fit is dropped, listed in `drops.jsonl` with its reason, and counted. The same inputs give the
same bytes.
"""

import dataclasses
import hashlib
import io
import itertools
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from ehrmind_k8s import artifacts, examples, logs, startmodel, storage
from ehrmind_k8s.errors import DataError, EhrmindError, SpecError
from ehrmind_k8s.records import SPLITS, Drop, Example
from ehrmind_k8s.spec import RunSpec
from ehrmind_k8s.stages import Context, Output
from ehrmind_k8s.statistics import overlap
from ehrmind_k8s.tasks import registry
from ehrmind_k8s.tasks.base import Task
from ehrmind_k8s.tokenization import Tokenizer
from ehrmind_k8s.training import traces

PROGRESS_EVERY = 500


def run(context: Context) -> Output:
    """Publish `train|validation|test.parquet`, `drops.jsonl` and `model/`. Raises DataError, ModelError or SpecError."""
    spec, task = context.spec, registry.get(context.spec.task)
    folder = context.work / "out"
    source, about = _source(spec, task, context.work)
    model = startmodel.resolve(spec.model, folder / artifacts.MODEL, _corpus(task, source, spec), spec.seed)
    tokenizer = Tokenizer(folder / artifacts.MODEL)
    found = task.read(source, spec.data, spec.seed, lambda text: len(tokenizer.encode(text)))
    written, author = _written(spec, context.work)
    census = Census(spec, task, tokenizer, written)
    with ExitStack() as stack:
        writers = {s: stack.enter_context(examples.SplitWriter(folder / f"{s}.parquet")) for s in SPLITS}
        for done, example in enumerate(found.examples, 1):
            if (kept := census.admit(example)) is not None:
                writers[kept.split].write(kept)
            if done % PROGRESS_EVERY == 0 or done == found.total:
                logs.progress(done, max(done, found.total), "rows")
    drops = [*found.drops, *census.drops]
    checks = census.checks(drops)
    before = _learned(spec.model.uri)
    warnings = [*found.audit.get("warnings", ()), *(census.overlaps(before) if about["kind"] != "synthetic" else ())]
    np.save(folder / artifacts.RECORDS, overlap.rows(census.splits["train"].sketches, before[1] if before else None))
    (folder / "drops.jsonl").write_text("".join(json.dumps(dataclasses.asdict(d)) + "\n" for d in drops), encoding="utf-8")
    sizes = {s: census.splits[s].rows for s in SPLITS}
    meta = {
        "task": task.name,
        "terms": "" if about["kind"] == "synthetic" else found.terms or task.terms,
        "source": about,
        "inputs": dict(found.inputs),
        "audit": {**found.audit, **({"warnings": warnings} if warnings else {})},
        "counts": {s: census.splits[s].counts() for s in SPLITS},
        "drops": {s: dict(Counter(d.reason for d in drops if d.split == s)) for s in SPLITS},
        "checks": checks,
        "traces": author,
        "tokenizer": tokenizer.fingerprint,
        "model": {"uri": spec.model.uri, "revision": spec.model.revision, **dataclasses.asdict(model)},
    }
    logs.event("prepared", rows=sizes, dropped=len(drops))
    return Output(folder, meta, message=", ".join(f"{n} {split}" for split, n in sizes.items()))


def _corpus(task: Task, source: Path, spec: RunSpec) -> Iterator[Example]:
    """What the toy's tokenizer is trained on: the train rows, or all where there are none. No other model asks for them."""
    none = True
    for example in task.read(source, spec.data, spec.seed).examples:
        if example.split == "train":
            none = False
            yield example
    if none:
        yield from task.read(source, spec.data, spec.seed).examples


def _learned(model_uri: str) -> tuple[str, np.ndarray] | None:
    """Where the records are that a run's model has learned from, and their sketches; None for a model that no run has made, or that is gone."""
    try:
        manifest = artifacts.load(storage.open(model_uri))
        prepared = str(manifest.meta.get("prepared") or "") if manifest else ""
        store = storage.open(prepared) if prepared else None
        if store is None or store.head(artifacts.RECORDS) is None:
            return None
        body = store.get_bytes(artifacts.RECORDS)
    except EhrmindError:  # a name of a hub, a folder of files
        return None
    return prepared, np.load(io.BytesIO(body), allow_pickle=False)


def _written(spec: RunSpec, work: Path) -> tuple[dict[str, str] | None, dict[str, str]]:
    """The texts of `sft.traces_file` by row (None: the source's own count), and what the manifest says about it."""
    uri = spec.sft.traces_file
    if uri is None:
        return None, {}
    path = storage.path(uri) or _download(uri, work / "traces")
    if not path.is_file():
        raise DataError(f"sft.traces_file {uri}: {'a folder; one file is expected' if path.is_dir() else 'no such file'}")
    return traces.read(path), {"uri": uri, "sha256": artifacts.sha256(path)}


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


@dataclass
class Tally:
    """What is remembered of the rows of one split: counts and hashes, never the rows."""

    rows: int = 0
    lengths: list[int] = field(default_factory=list)
    sketches: dict[str, np.ndarray] = field(default_factory=dict)  # by group, of its first record
    tables: dict[str, Counter[str]] = field(default_factory=dict)
    traces: Counter[str] = field(default_factory=lambda: Counter(correct=0, wrong=0, malformed=0, too_long=0, absent=0))

    def counts(self) -> dict[str, Any]:
        """Rows of the split: all, and by each of the task's tables (category, calculator, ...)."""
        return {"rows": self.rows, "groups": len(self.sketches), **{t: dict(sorted(c.items())) for t, c in self.tables.items()}}


class Census:
    """Admits rows one at a time, and then says what they were and whether later stages can work with them."""

    def __init__(self, spec: RunSpec, task: Task, tokenizer: Tokenizer, written: Mapping[str, str] | None = None) -> None:
        self.spec, self.task, self.tokenizer, self.written = spec, task, tokenizer, written
        self.splits: dict[str, Tally] = {s: Tally() for s in SPLITS}
        self.drops: list[Drop] = []
        self._ids: set[bytes] = set()
        self._twice: list[str] = []
        self._wrong_gold: list[str] = []
        self._long_test: list[int] = []

    def admit(self, example: Example) -> Example | None:
        """The row with its tokens counted and its SFT text judged, or None where its prompt is over the budget."""
        n_tokens = len(self.tokenizer.prompt(example).token_ids)
        if n_tokens > self.spec.data.max_prompt_tokens:
            self.drops.append(Drop(example.id, example.split, "prompt_too_long"))
            self._long_test += [n_tokens] * (example.split == "test")
            return None
        if self.written is not None:
            example = dataclasses.replace(example, sft_text=self.written.get(example.id) if example.split == "train" else None)
        verdict = self._judge_trace(example)
        if not self.task.score(example, self.task.gold(example)).correct:
            self._wrong_gold.append(example.id)
        self._note(example, n_tokens, verdict)
        refused = ("malformed", "too_long") if self.written is None else ("malformed", "too_long", "wrong")
        text = None if verdict in refused else example.sft_text
        return dataclasses.replace(example, n_tokens=n_tokens, sft_text=text)

    def checks(self, drops: Sequence[Drop]) -> dict[str, Any]:
        """What the manifest says of all rows together; `drops` are the reader's and ours. Raises DataError for what no later stage could mend."""
        self._check_lengths()
        self._check_traces()
        self._check_sizes(drops)
        rows = sum(tally.rows for tally in self.splits.values())
        return {
            "gold": self._check_gold(rows),
            "groups": self._check_groups(),
            "sft_text": {s: dict(tally.traces) for s, tally in self.splits.items()},
            "prompt_tokens": {s: _spread(tally.lengths) for s, tally in self.splits.items()},
        }

    def overlaps(self, learned: tuple[str, np.ndarray] | None) -> Iterator[str]:
        """Warnings about records that are nearly the same in two splits, or that the start model has `learned` from (by where those are)."""
        for a, b in itertools.combinations(SPLITS, 2):
            these, those = self.splits[a].sketches, self.splits[b].sketches
            pairs = [(x, y) for x, y in overlap.near(these, those) if x != y]
            if pairs:
                yield f"{len(pairs)} of {len(those)} records of {b} are nearly the same as one of {a}"
        if learned:
            uri, array = learned
            test = self.splits["test"].sketches
            if pairs := overlap.near(overlap.named(array), test):
                yield f"{len(pairs)} of {len(test)} records of test are nearly the same as ones that the start model learned from ({uri})"

    def _note(self, example: Example, n_tokens: int, verdict: str) -> None:
        tally, digest = self.splits[example.split], hashlib.blake2b(example.id.encode(), digest_size=12).digest()
        self._twice += [example.id] * (digest in self._ids)
        self._ids.add(digest)
        tally.rows += 1
        tally.lengths.append(n_tokens)
        if example.group not in tally.sketches:
            tally.sketches[example.group] = overlap.sketch(self.task.record(example))
        tally.traces[verdict] += 1
        for table, label in self.task.breakdown(example).items():
            tally.tables.setdefault(table, Counter())[label] += 1

    def _judge_trace(self, example: Example) -> str:
        """One that is malformed, or longer than a completion may be, teaches what RLVR punishes: the row stays without it.

        One that ends in another answer than the gold is counted as `wrong`. The source's own stays (its imperfect teacher is the user's choice);
        of a file of traces the row stays without it.
        """
        if example.sft_text is None:
            return "absent"
        return traces.judge(self.task, self.tokenizer, example, example.sft_text, self.spec.completion_tokens)

    def _check_lengths(self) -> None:
        """A test row over the budget stops the run unless `data.long_test` is drop."""
        if not self._long_test or self.spec.data.long_test == "drop":
            return
        longest, budget = max(self._long_test), self.spec.data.max_prompt_tokens
        raise DataError(
            f"{len(self._long_test)} test rows are over data.max_prompt_tokens {budget}: the longest has {longest} tokens. Set"
            f" data.max_prompt_tokens={longest} (model.context at least {longest + self.spec.completion_tokens}), or data.long_test=drop to leave"
            " them out and state n beside every metric"
        )

    def _check_traces(self) -> None:
        train, longest, sft = self.splits["train"].traces, self.spec.completion_tokens, self.spec.sft
        if not train.total() or sft.mode == "never" or sft.traces in traces.GATHERED:
            return
        if self.written is not None and train["absent"] == train.total():
            raise DataError(
                f"sft.traces_file {sft.traces_file}: none of its {len(self.written)} ids is a train row's; ids are those of train.parquet"
            )
        if sft.mode == "always" and not train["correct"] + (train["wrong"] if self.written is None else 0):
            raise DataError(
                f"no train row has an SFT text of at most {longest} tokens (longer: {train['too_long']}, malformed: {train['malformed']},"
                f" wrong: {train['wrong']}, absent: {train['absent']}); raise rlvr.max_completion_tokens, name another author in sft.traces,"
                " or set sft.mode=never"
            )

    def _check_gold(self, rows: int) -> dict[str, int]:
        """The right answer, written as the prompt asks, scores correct; else no policy could be judged on that row."""
        if self._wrong_gold:
            n, few = len(self._wrong_gold), ", ".join(self._wrong_gold[:5])
            raise DataError(f"{n} rows have a gold answer that the scorer of {self.task.name} does not accept, first {few}; check answer and limits")
        return {"rows": rows, "correct": rows}

    def _check_groups(self) -> dict[str, int]:
        """No group is in two splits (train and test may share some where `data.note_overlap` is keep; validation never shares any); no id twice."""
        shared = {f"{a}_{b}": len(self.splits[a].sketches.keys() & self.splits[b].sketches.keys()) for a, b in itertools.combinations(SPLITS, 2)}
        allowed = ("train_test",) if self.spec.data.note_overlap == "keep" else ()
        if bad := {pair: n for pair, n in shared.items() if n and pair not in allowed}:
            raise DataError(f"groups occur in two splits ({bad}): the reader of task {self.spec.task} leaks; report it")
        if self._twice:
            raise DataError(f"{len(self._twice)} row ids occur twice, first {self._twice[0]}; ids must be unique over all splits")
        return shared

    def _check_sizes(self, drops: Sequence[Drop]) -> None:
        for split, tally in self.splits.items():
            if tally.rows or (split == "validation" and self.spec.data.validation_fraction == 0):
                continue
            reasons = Counter(d.reason for d in drops if d.split == split)
            if not reasons and self.spec.stages == ("prepare",):
                continue  # the source has no such split, and nothing in this run reads it
            why = ", ".join(f"{reason}: {n}" for reason, n in reasons.items()) or "none was read"
            key = "test" if split == "test" else "train"
            raise DataError(f"split {split} is empty after filtering ({why}); check data.uri, data.{key} and the data settings")


def _spread(lengths: Sequence[int]) -> dict[str, int]:
    ordered = sorted(lengths)
    return {"median": ordered[len(ordered) // 2], "p90": ordered[int(len(ordered) * 0.9)], "max": ordered[-1]} if ordered else {}
