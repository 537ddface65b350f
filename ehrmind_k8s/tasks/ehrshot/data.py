"""From records and labels to examples: one prompt per label, made while the timelines pass by.

Labels are small and are held whole; records are not: they pass through buckets on disk, in the folder that a stage works in. The timelines of a
source come subject by subject, each once, and all labels of a subject are answered from it in order of time. Nothing after a label's time reaches
its prompt: `Timeline.until` is the only cut, and what it returns is looked at again here.
"""

import hmac
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from shutil import rmtree
from tempfile import mkdtemp
from typing import Any, Literal
from weakref import finalize

import numpy as np

from ehrmind_k8s import settings
from ehrmind_k8s.errors import DataError, SpecError, nearest
from ehrmind_k8s.records import SPLITS, Drop, Example
from ehrmind_k8s.spec import DataSpec
from ehrmind_k8s.tasks import sources
from ehrmind_k8s.tasks.base import Count, TaskData
from ehrmind_k8s.tasks.ehrshot import cohort, concepts, labelling, labels, outcomes, prompt, readers, splits, subtasks, terms
from ehrmind_k8s.tasks.ehrshot.buckets import PERSON
from ehrmind_k8s.tasks.ehrshot.cohort import Cohort
from ehrmind_k8s.tasks.ehrshot.labels import Key, Labels
from ehrmind_k8s.tasks.ehrshot.outcomes import Vocabulary
from ehrmind_k8s.tasks.ehrshot.sampling import Asked
from ehrmind_k8s.tasks.ehrshot.serialise import Serialiser, Text
from ehrmind_k8s.tasks.ehrshot.subtasks import Subtask
from ehrmind_k8s.tasks.ehrshot.timeline import Timeline

ORIGINAL, COMPUTED = "original", "computed"
LABEL_SETS = (ORIGINAL, COMPUTED)
DESCRIPTIONS = "subtasks.json"
LEAST_RECORD = 32  # tokens that a prompt must leave for the record
COMPARED = 200  # subjects whose given labels are compared with labels computed from their events
PIECES = 4096  # of labels, before they are joined to one
OLDEST = np.timedelta64(120 * 365, "D")
LAST_SECOND = np.timedelta64(59, "s")  # of a minute


def read(source: Path, data: DataSpec, seed: int, count: Count) -> TaskData:
    """Examples of all splits, made as they are asked for. Raises DataError (files, labels) or SpecError (settings)."""
    _check_settings(data)
    if not source.exists():
        raise DataError(f"{source}: no such file or folder")
    files = labels.find(source) if data.labels == ORIGINAL else {}
    told = subtasks.describe(source / DESCRIPTIONS) if (source / DESCRIPTIONS).exists() else {}
    chosen = subtasks.choose(data.subtasks, set(files) or None, told)
    room = _room(chosen, data.max_prompt_tokens, count)
    work = Path(mkdtemp(prefix="ehrmind-ehrshot-", dir=settings.load().work_dir))  # a clear copy of the records: where a stage works, nowhere else
    try:
        records = readers.open(source, work)
        vocabulary = _vocabulary(source, records, chosen)
        to_the_minute = _to_the_minute(chosen, records.layout, bool(files))
        given = _given(files, chosen, records, vocabulary, data, to_the_minute)
        found = cohort.build(chosen, given, records.splits.of, cohort.shot_files(source), data, seed)
        traces = labels.traces(source, dict.fromkeys(_keys(found.asked, chosen)), to_the_minute)
        inputs = dict(records.inputs) | _inputs(source, files, chosen, data.shots is not None)
    except BaseException:
        rmtree(work, ignore_errors=True)
        raise
    audit: dict[str, Any] = {
        "layout": records.layout,
        "labels_from": "files" if files else "events",
        "split_from": _split_from(source, records, data),
    }
    audit |= {**records.report, **found.audit}
    if codes := {s.name: vocabulary.source(s.name) for s in chosen if s.name in outcomes.ROOTS}:
        audit["outcome_codes"] = codes
    if records.splits.warnings:
        audit["warnings"] = [*audit.get("warnings", ()), *records.splits.warnings]
    if unasked := [s.name for s in chosen if s.name not in subtasks.BENCHMARK and "question" not in told.get(s.name, {})]:
        audit["warnings"] = [*audit.get("warnings", ()), *(f"{name} has no question in {DESCRIPTIONS}; its name is asked" for name in unasked)]
    walk = _Walk(records.key, found, chosen, to_the_minute, traces, vocabulary if files else None, Serialiser(room, count), audit)
    finalize(walk, rmtree, work, ignore_errors=True)  # when the examples are all read, or nobody wants them any more
    return TaskData(walk.examples(records), walk.drops, inputs, audit, len(found.asked), terms.of(records.layout))


def _split_from(source: Path, records: readers.Source, data: DataSpec) -> str:
    """The file that decides the splits, or that lots do."""
    file = records.splits.file
    return splits.BY_LOT if file is None or data.split == cohort.BY_SUBJECT else file.relative_to(source).as_posix()


def _check_settings(data: DataSpec) -> None:
    if data.labels not in LABEL_SETS:
        raise SpecError(f"data.labels {data.labels!r} is unknown; {nearest(data.labels, LABEL_SETS)}")
    if data.split is not None and data.split not in cohort.SPLIT_WAYS:
        raise SpecError(f"data.split {data.split!r} is unknown; {nearest(data.split, cohort.SPLIT_WAYS)}")


def _room(chosen: Sequence[Subtask], budget: int, count: Count) -> int:
    """Tokens that the record may take beside the longest question, so that all subtasks read the same text. Raises SpecError where it is none."""
    room = min(prompt.room(s, budget, count) for s in chosen)
    if room < LEAST_RECORD:
        raise SpecError(
            f"data.max_prompt_tokens {budget} leaves no room for a record beside the question; set it to {budget - room + LEAST_RECORD} at least"
        )
    return room


def _vocabulary(source: Path, records: readers.Source, chosen: Sequence[Subtask]) -> Vocabulary:
    """What the source's codes mean; a hierarchy is a large file, and is read where a subtask asks what is below a concept."""
    asked = any(s.name in outcomes.ROOTS for s in chosen)
    descendants = outcomes.hierarchy(source) if asked else {}
    return Vocabulary(records.names.codes, records.names.described, descendants, standard=records.layout == readers.OMOP)


def _refusal(subtask: Subtask, vocabulary: Vocabulary, visits_end: bool) -> str | None:
    """Why a subtask's labels cannot be computed from a source's events; None where they can."""
    return labelling.refusal(subtask.name, vocabulary, visits_end) or vocabulary.refusal(subtask.name)


def _to_the_minute(chosen: Sequence[Subtask], layout: str, from_files: bool) -> frozenset[str]:
    """Subtasks whose label times stand for a whole minute; what comes after the very second of all others is unknown.

    The benchmark cuts seconds off its labels. Labels that we compute at 23:59 mean the end of the day, when what has but a date is known too.
    """
    if layout in readers.BENCHMARK:
        return frozenset(s.name for s in chosen if s.name in subtasks.BENCHMARK)
    return frozenset() if from_files else frozenset(s.name for s in chosen if s.name in labelling.IN_THE_EVENING)


def _given(
    files: Mapping[str, Path],
    chosen: Sequence[Subtask],
    records: readers.Source,
    vocabulary: Vocabulary,
    data: DataSpec,
    to_the_minute: Collection[str],
) -> dict[str, Labels]:
    """Subtask -> its labels, from files, or from a walk through all events."""
    if files:
        return {s.name: labels.read(files[s.folder], s, s.name in to_the_minute) for s in chosen}
    for s in chosen:
        if why := _refusal(s, vocabulary, records.names.visits_end):
            files_too = "" if data.labels == COMPUTED else ", and the source has no label files"
            raise DataError(f"{s.name} cannot be computed from events{files_too}: {why}; choose other data.subtasks")
    return computed(records.timelines(None), [s.name for s in chosen], vocabulary)


def computed(timelines: Iterable[Timeline], names: Sequence[str], vocabulary: Vocabulary) -> dict[str, Labels]:
    """Labels of each subtask from all timelines, in few pieces: most subjects have none, and an object for each would outweigh the labels."""
    parts: dict[str, list[Labels]] = {name: [] for name in names}
    for timeline in timelines:
        for name, found in parts.items():
            if len(mine := labelling.compute(timeline, name, vocabulary)):
                found.append(mine)
            if len(found) > PIECES:
                found[:] = [labels.joined(found)]
    return {name: labels.joined(found) for name, found in parts.items()}


def _keys(asked: Asked, chosen: Sequence[Subtask]) -> Iterator[Key]:
    for subject, second, code in zip(asked.subject.tolist(), labels.seconds(asked.time), asked.subtask.tolist(), strict=True):
        yield subject, second, chosen[code].name


def _inputs(source: Path, files: Mapping[str, Path], chosen: Sequence[Subtask], shots: bool) -> dict[str, str]:
    """Files of labels, samples, traces, descriptions and the hierarchy -> SHA-256."""
    used = [files[name] for name in sorted({s.folder for s in chosen} & set(files))]
    paths = [file for path in used for file in labels.shards(path)]
    if source.is_dir():
        paths += [p for name in (labels.TRACES_NAME, DESCRIPTIONS) for p in sorted(source.rglob(name))]
        paths += concepts.files(source, "concept_ancestor")
    if shots:
        paths += [path for name, path in sorted(cohort.shot_files(source).items()) if name in {s.folder for s in chosen}]
    return {p.relative_to(source).as_posix(): sources.sha256(p) for p in paths}


@dataclass
class _Walk:
    """Goes once through the timelines of all subjects with labels, and answers each label from what was known at its time.

    `vocabulary` is there where given labels are to be compared with labels computed from events (a sample of subjects).
    """

    key: bytes
    found: Cohort
    chosen: Sequence[Subtask]
    to_the_minute: Collection[str]
    traces: Mapping[Key, str]
    vocabulary: Vocabulary | None
    serialiser: Serialiser
    audit: dict[str, Any]
    drops: list[Drop] = field(default_factory=list)

    def examples(self, records: readers.Source) -> Iterator[Example]:
        """Every example, by subject as the records come and by time within a subject. Fills drops and audit."""
        asked = self.found.asked
        subjects, starts = np.unique(asked.subject, return_index=True)
        lines = dict(zip(subjects.tolist(), np.split(np.arange(len(asked)), starts[1:]), strict=True))
        compared = set(subjects[:: -(-len(subjects) // COMPARED)].tolist())
        self.counts: dict[str, Counter[str]] = {"events_kept": Counter(), "events_dropped": Counter(), "checks": Counter()}
        self.agreement: dict[str, Counter[str]] = {}
        for timeline in records.timelines(frozenset(lines)):
            if timeline.subject in compared:
                self._compare(timeline)
            yield from self._of_subject(timeline, lines.pop(timeline.subject))
        if len(lines) == len(subjects):
            raise DataError(f"none of the {len(subjects)} subjects with labels has a record: the labels are of another source")
        for i in (i for rows in lines.values() for i in rows):
            self._drop(i, "unknown_subject")
        self.audit |= {name: dict(counts) for name, counts in self.counts.items()}
        if self.agreement:
            self.audit["labels_recomputed"] = {name: dict(sorted(counts.items())) for name, counts in sorted(self.agreement.items())}

    def _of_subject(self, timeline: Timeline, rows: np.ndarray) -> Iterator[Example]:
        """Examples of one subject. Labels with one cut share its text."""
        last: tuple[np.datetime64, Text] | None = None
        for i in rows:
            time = self.found.asked.time[i]
            if timeline.birth is not None and time < timeline.birth:
                self._drop(i, "label_before_birth")
                continue
            minute = self.chosen[self.found.asked.subtask[i]].name in self.to_the_minute
            until = time + LAST_SECOND if minute else time
            if last is None or last[0] != until:
                past = timeline.until(until)
                if not (~np.isnat(past.time) & (past.time != past.birth)).any():
                    self._drop(i, "no_event_before_label")
                    continue
                self._check(past, time, "m" if minute else "s")
                last = (until, self.serialiser.text(past, time))
            yield self._example(i, last[1])

    def _check(self, past: Timeline, time: np.datetime64, unit: Literal["s", "m"]) -> None:
        """No event starts, and none ends, after the label's second or minute (`unit`), or at no time; the age can be one."""
        starts, ends, now = (at.astype(f"datetime64[{unit}]") for at in (past.time, past.end, time))
        timeless = past.table[np.isnat(starts)] != PERSON
        assert not (starts > now).any() and not (ends > now).any() and not timeless.any(), (
            f"subject with {len(past.time)} events: the record was not cut at the label"
        )
        self.counts["checks"]["records_cut_at_label"] += 1
        self.counts["checks"]["age_over_120"] += int(past.birth is not None and time - past.birth > OLDEST)
        self.counts["checks"]["birth_unknown"] += int(past.birth is None)

    def _example(self, i: int, text: Text) -> Example:
        asked, subtask = self.found.asked, self.chosen[self.found.asked.subtask[i]]
        subject, second = int(asked.subject[i]), labels.seconds(asked.time[i : i + 1])[0]
        target = {"subtask": subtask.name, "label": int(asked.value[i]), "positive": subtask.positive, "negative": subtask.negative}
        self.counts["events_kept"].update(text.kept)
        self.counts["events_dropped"].update(text.dropped)
        return Example(
            id=row_id(self.key, subject, asked.time[i], subtask.name),
            task="ehrshot",
            split=SPLITS[asked.split[i]],
            group=group_of(self.key, subject),
            category=subtask.name,
            messages=prompt.messages(text.text, subtask),
            target=target,
            sft_text=self.traces.get((subject, second, subtask.name)),
            meta={"events_kept": dict(text.kept), "events_dropped": dict(text.dropped)},
        )

    def _drop(self, i: int, reason: str) -> None:
        asked = self.found.asked
        name = self.chosen[asked.subtask[i]].name
        self.drops.append(Drop(row_id(self.key, int(asked.subject[i]), asked.time[i], name), SPLITS[asked.split[i]], reason))

    def _compare(self, timeline: Timeline) -> None:
        """Given labels of a subject beside those that its events give: the same time and value, another value, or a time that only one has."""
        if self.vocabulary is None:
            return
        for subtask in self.chosen:
            if _refusal(subtask, self.vocabulary, timeline.names.visits_end):
                continue
            computed, _, _ = labels.unique(labelling.compute(timeline, subtask.name, self.vocabulary))
            mine, theirs = _by_minute(self.found.given[subtask.name], timeline.subject), _by_minute(computed, timeline.subject)
            both = mine.keys() & theirs.keys()
            counts = self.agreement.setdefault(subtask.name, Counter(agree=0, differ=0, only_given=0, only_computed=0))
            counts["agree"] += sum(mine[m] == theirs[m] for m in both)
            counts["differ"] += sum(mine[m] != theirs[m] for m in both)
            counts["only_given"] += len(mine) - len(both)
            counts["only_computed"] += len(theirs) - len(both)


def _by_minute(found: Labels, subject: int) -> dict[int, int]:
    """Labels of a subject, out of labels sorted by subject."""
    start, end = np.searchsorted(found.subject, [subject, subject + 1])
    return dict(zip(labels.minutes(found.time[start:end]), found.value[start:end].tolist(), strict=True))


def row_id(key: bytes, subject: int, time: np.datetime64, subtask: str) -> str:
    """A name for a row, which those who have the source can make again, and nobody else."""
    second = time.astype("datetime64[s]").astype(np.int64)
    return f"ehrshot-{_digest(key, f'{subject}:{second}:{subtask}')}"


def group_of(key: bytes, subject: int) -> str:
    """A name for a subject. A bare hash would tell the subject to anybody who tries all ids."""
    return _digest(key, f"subject:{subject}")


def _digest(key: bytes, text: str) -> str:
    return hmac.digest(key, text.encode(), "sha256").hex()[:16]
