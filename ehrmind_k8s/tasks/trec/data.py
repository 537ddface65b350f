"""From judgments, topics and trials to examples: which pairs, which split, and what was left out and why.

A row is a judged pair of a topic (a patient) and a trial. The group is the topic. Splits:

    by_topic            topics are dealt to the splits; a trial may be judged for topics of two splits (default: new patients, known trials)
    by_topic_and_trial  the same, and no trial of a later split occurs in an earlier one (new patients, new trials)
    by_year             the last year is the test (the TREC habit: tune on 2021, report on 2022)

Train rows are balanced: of each grade as many as the rarest has, chosen by seed. Validation and test keep their proportions.
"""

import hashlib
import os
import random
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from ehrmind_k8s.errors import DataError, SpecError, nearest
from ehrmind_k8s.records import SPLITS, Drop, Example, Split
from ehrmind_k8s.spec import DataSpec
from ehrmind_k8s.tasks.base import TaskData
from ehrmind_k8s.tasks.trec import layouts, prompt, qrels, topics, traces, trials
from ehrmind_k8s.tasks.trec.qrels import GRADES, Judgment
from ehrmind_k8s.tasks.trec.trials import Trial

LABEL_SETS = ("original",)
PROTOCOLS: Mapping[str, str] = {
    "by_topic": "Topics of test are new; their trials may have been judged for train topics too.",
    "by_topic_and_trial": "Topics and trials of test are both new.",
    "by_year": "The last year's topics are the test; their trials may have been judged for earlier topics too.",
}
POOL = (
    "Judged pairs only, with their grades in proportion: rankings are of what was asked of a topic, not of a search over the corpus, and the paper's"
    " test pairs were balanced."
)
SPLIT_WAYS = tuple(PROTOCOLS)
Pairs = dict[Split, list[Judgment]]


def read(source: Path, data: DataSpec, seed: int) -> TaskData:
    """Examples of all splits. Raises DataError (files, judged trials without a text) or SpecError (an unknown split or label set)."""
    way = data.split or SPLIT_WAYS[0]
    if way not in PROTOCOLS:
        raise SpecError(f"data.split {way!r} is unknown; {nearest(way, SPLIT_WAYS)}")
    if data.labels not in LABEL_SETS:
        raise SpecError(f"data.labels {data.labels!r} is unknown; {nearest(data.labels, LABEL_SETS)}")
    layout = layouts.find(source, data)
    patients, judged = topics.read(layout.topics), qrels.read(layout.qrels)
    if unknown := {j.topic for j in judged} - patients.keys():
        raise DataError(f"{len(unknown)} judged topics have no text, first {min(unknown, key=qrels.order)}; add their topics file (data.topics)")
    found = trials.read(layout.trials, {j.trial for j in judged}, _cores())
    _check_missing(judged, found, data.max_missing_trials)
    splits = _split(judged, way, data, seed)
    drops = _drop_without_text(splits, found)
    drops += _drop_shared_trials(splits) if way == "by_topic_and_trial" else []
    _assert_disjoint(splits, way)
    before = _grades(splits["train"])
    splits["train"] = _balanced(splits["train"], seed)
    audit = {
        "protocol": {"split": way, "meaning": f"{PROTOCOLS[way]} {POOL}"},
        "judged": {"topics": len({j.topic for j in judged}), "pairs": len(judged), "trials": len({j.trial for j in judged}), **_grades(judged)},
        "without_text": {"trials": len({j.trial for j in judged} - found.trials.keys()), "withheld": len(found.withheld)},
        "trials": {"used": len(found.trials), "unsplit": sum(t.unsplit for t in found.trials.values()), "repeated": found.repeated},
        "shared": _shared(splits),
        "balance": {"train_before": before, "train_kept": _grades(splits["train"])},
    }
    written = traces.read(source)
    made = _examples(splits, patients, found.trials, written)
    return TaskData(made, drops, layouts.digests(source, layout, {j.trial for j in judged}), audit, sum(map(len, splits.values())))


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _check_missing(judged: Sequence[Judgment], found: trials.Found, most: float) -> None:
    """Judged trials whose text is not there are normal in a processed corpus, a few in ten thousand; many mean that a file is missing."""
    ids = {j.trial for j in judged}
    missing = sorted(ids - found.trials.keys())
    if len(missing) > most * len(ids):
        few = ", ".join(missing[:3])
        raise DataError(
            f"{len(missing)} of {len(ids)} judged trials have no text (first {few}), over data.max_missing_trials {most}; add the corpus files that"
            " hold them (data.trials), or raise data.max_missing_trials to go on with the pairs that have one"
        )
    if len(missing) == len(ids):
        raise DataError(f"none of the {len(ids)} judged trials has a text; add the corpus files that hold them (data.trials)")


def _split(pairs: Sequence[Judgment], way: str, data: DataSpec, seed: int) -> Pairs:
    names = sorted({j.topic for j in pairs}, key=qrels.order)
    if way == "by_year":
        years = sorted({n.partition("-")[0] for n in names})
        if len(years) < 2:
            raise DataError(f"data.split by_year: all topics are of {years[0]}; add another year's topics and judgments, or use by_topic")
        test = [n for n in names if n.startswith(f"{years[-1]}-")]
    else:
        test = _drawn(names, data.test_fraction, seed, "test")
    rest = [n for n in names if n not in {*test}]
    held = {*_drawn(rest, data.validation_fraction, seed, "validation")}
    members: dict[Split, set[str]] = {"train": {*rest} - held, "validation": held, "test": {*test}}
    return {split: [j for j in pairs if j.topic in members[split]] for split in SPLITS}


def _drawn(names: Sequence[str], share: float, seed: int, label: str) -> list[str]:
    """A share of the names, at least one where the share is not 0 and there are two."""
    count = round(share * len(names)) or int(share > 0 and len(names) > 1)
    return random.Random(f"{seed}:{label}").sample(list(names), count)


def _drop_without_text(splits: Pairs, found: trials.Found) -> list[Drop]:
    """Keep the pairs whose trial can be shown. `trial_withheld` has a record without criteria, `no_trial_text` has none."""
    drops: list[Drop] = []
    for split, pairs in splits.items():
        reason = {j.trial: "trial_withheld" if j.trial in found.withheld else "no_trial_text" for j in pairs}
        drops += [Drop(_id(j), split, reason[j.trial]) for j in pairs if j.trial not in found.trials]
        splits[split] = [j for j in pairs if j.trial in found.trials]
    return drops


def _drop_shared_trials(splits: Pairs) -> list[Drop]:
    """Let no split keep a trial of a later one."""
    drops: list[Drop] = []
    for i, split in enumerate(SPLITS):
        for later in SPLITS[:i:-1]:
            taken = {j.trial for j in splits[later]}
            drops += [Drop(_id(j), split, f"trial_in_{later}") for j in splits[split] if j.trial in taken]
            splits[split] = [j for j in splits[split] if j.trial not in taken]
    return drops


def _assert_disjoint(splits: Pairs, way: str) -> None:
    for a, b in (("train", "validation"), ("train", "test"), ("validation", "test")):
        one, other = splits[a], splits[b]  # type: ignore[index]
        assert not {j.topic for j in one} & {j.topic for j in other}, f"topics are in {a} and in {b}"
        assert not {j[:2] for j in one} & {j[:2] for j in other}, f"pairs are in {a} and in {b}"
        assert way != "by_topic_and_trial" or not {j.trial for j in one} & {j.trial for j in other}, f"trials are in {a} and in {b}"


def _shared(splits: Pairs) -> dict[str, int]:
    """How many trials of test and validation have been judged for train topics too."""
    of = {split: {j.trial for j in pairs} for split, pairs in splits.items()}
    return {"trials_train_test": len(of["train"] & of["test"]), "trials_train_validation": len(of["train"] & of["validation"])}


def _balanced(pairs: Sequence[Judgment], seed: int) -> list[Judgment]:
    """Of each grade as many as the rarest has, chosen by a hash of seed and pair, in the old order."""
    by_grade: dict[int, list[Judgment]] = defaultdict(list)
    for pair in sorted(pairs, key=lambda j: hashlib.sha256(f"{seed}:{_id(j)}".encode()).digest()):
        by_grade[pair.grade].append(pair)
    fewest = min(map(len, by_grade.values()), default=0)
    kept = {pair for rows in by_grade.values() for pair in rows[:fewest]}
    return [pair for pair in pairs if pair in kept]


def _grades(pairs: Sequence[Judgment]) -> dict[str, int]:
    counts = Counter(j.grade for j in pairs)
    return {name.lower().replace(" ", "_"): counts[grade] for grade, name in enumerate(GRADES)}


def _examples(splits: Pairs, patients: Mapping[str, str], found: Mapping[str, Trial], written: Mapping[tuple[str, str], str]) -> Iterator[Example]:
    for split, pairs in splits.items():
        for pair in pairs:
            yield _example(split, pair, patients[pair.topic], found[pair.trial], written.get(pair[:2]))


def _example(split: Split, pair: Judgment, patient: str, trial: Trial, trace: str | None) -> Example:
    target = {"grade": pair.grade, "trial": pair.trial}
    messages = tuple(prompt.messages(patient, trial))
    meta = {"unsplit": trial.unsplit}
    return Example(_id(pair), "trec", split, pair.topic, GRADES[pair.grade], messages, target, trace if split == "train" else None, meta=meta)


def _id(pair: Judgment) -> str:
    return f"trec-{pair.topic}-{pair.trial}"
