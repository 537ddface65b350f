"""Which file of a source is what: topics, judgments or trials."""

import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from ehrmind_k8s.errors import DataError, nearest
from ehrmind_k8s.spec import DataSpec
from ehrmind_k8s.tasks import sources
from ehrmind_k8s.tasks.sources import File
from ehrmind_k8s.tasks.trec import traces, trials

LAYOUTS = (
    "A folder with topics (topics2021.xml, or TrialGPT's queries.jsonl), judgments (qrels2021.txt, or qrels/test.tsv) and the trials' texts"
    " (the corpus zips of ClinicalTrials.gov XML as they are, its v2 JSON, or TrialGPT's trial_info.json or corpus.jsonl); the reference code's"
    " parquet counts as judgments. Names decide, else set data.topics, data.qrels and data.trials."
)
# Names of files with trials: `NCT00000102.xml`, `trial_info.json`, `corpus.jsonl`, `ctg-studies.json`; and zips, whatever they are called.
_TRIALS = re.compile(r"^NCT[0-9]{8}|trial|corpus|stud", re.IGNORECASE)
# No trials: of TrialGPT's release keywords by a language model and a copy of the judgments.
IGNORED = ("id2queries.json", "retrieved_trials.json")


@dataclass(frozen=True, slots=True)
class Layout:
    """The files of a source by what they are; `trials` are paths, since archives are not to be listed member by member."""

    topics: list[File]
    qrels: list[File]
    trials: list[Path]


def find(source: Path, data: DataSpec) -> Layout:
    """Sort the files of a folder. Raises DataError where there is none of a kind that is needed, naming the key that would say which it is."""
    if not source.exists():
        raise DataError(f"{source}: no such file or folder. {LAYOUTS}")
    if not source.is_dir():
        raise DataError(f"{source}: a file; expected a folder. {LAYOUTS}")
    paths = sorted(p for p in source.rglob("*") if p.is_file() and not any(part.startswith(".") for part in p.relative_to(source).parts))
    topics = _chosen(source, paths, data.topics, "topics", _is_topics)
    qrels = _chosen(source, paths, data.qrels, "qrels", _is_qrels)
    texts = [p for p in _chosen(source, paths, data.trials, "trials", _is_trials) if p not in {*topics, *qrels}]
    found = Layout([_file(source, p) for p in topics], [_file(source, p) for p in qrels], texts)
    needed = {"topics": found.topics, "qrels": found.qrels, "trials": found.trials}
    if missing := [key for key, files in needed.items() if not files]:
        raise DataError(f"{source}: no {missing[0]} file among {len(paths)}; set data.{missing[0]} to it. {LAYOUTS}")
    return found


def _chosen(source: Path, paths: Sequence[Path], wanted: Sequence[str], key: str, fits: Callable[[PurePosixPath], bool]) -> list[Path]:
    """The files that a key names (a folder means all trials below it), or those whose names fit."""
    if not wanted:
        return [p for p in paths if fits(PurePosixPath(p.relative_to(source).as_posix()))]
    chosen = []
    for name in wanted:
        path = source / name
        if not path.resolve().is_relative_to(source.resolve()) or not path.exists():
            known = [p.relative_to(source).as_posix() for p in paths]
            raise DataError(f"data.{key}: no file {name!r} in {source}; {nearest(name, known)}")
        chosen += sorted(p for p in path.rglob("*") if p.is_file() and p.suffix.lower() in trials.SUFFIXES) if path.is_dir() else [path]
    return chosen


def _is_topics(name: PurePosixPath) -> bool:
    lower = name.name.lower()
    return (lower.startswith("topics") and name.suffix.lower() == ".xml") or lower == "queries.jsonl"


def _is_qrels(name: PurePosixPath) -> bool:
    wanted = {".txt": "qrels", ".tsv": "qrels", ".parquet": "matching"}.get(name.suffix.lower())
    return wanted is not None and (wanted in str(name).lower() or "qrels" in str(name).lower())


def _is_trials(name: PurePosixPath) -> bool:
    suffix = name.suffix.lower()
    if suffix not in trials.SUFFIXES or _is_topics(name) or name.name in IGNORED:
        return False
    return suffix == ".zip" or bool(_TRIALS.search(name.name))


def _file(source: Path, path: Path) -> File:
    return File(path.relative_to(source).as_posix(), path, path.read_bytes)


def digests(source: Path, layout: Layout, judged: Collection[str]) -> dict[str, str]:
    """Name -> SHA-256 of every file that is read; of files that are one trial only the judged ones are."""
    texts = {p for p in layout.trials if p.suffix.lower() == ".zip" or trials.is_wanted(p.name, judged)}
    paths = {f.path for f in [*layout.topics, *layout.qrels]} | texts | {p for p in [source / traces.NAME] if p.is_file()}
    return {p.relative_to(source).as_posix(): sources.sha256(p) for p in sorted(paths)}
