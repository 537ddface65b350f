"""The trials: what a prompt needs of each, from every form in which their texts are published.

    ClinicalTrials.gov legacy XML, one a file or in zips (the TREC corpus: five zips, 375,580 trials; only judged ones are unpacked)
    ClinicalTrials.gov v2 JSON, one study a file or in a list
    TrialGPT's `trial_info.json` (an object by NCT id), its one-trial JSON files, and its `corpus.jsonl`

Nothing is unpacked to disk. A trial that several files hold is taken from the first, in the order of names or of `data.trials`.
"""

import json
import multiprocessing
import re
import zipfile
from collections.abc import Collection, Iterable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple
from xml.parsers import expat

from ehrmind_k8s.errors import DataError, TryAgain
from ehrmind_k8s.tasks import sources
from ehrmind_k8s.tasks.trec import eligibility, topics

MEMBER_LIMIT_BYTES = 64 << 20  # of one record; the largest of the registry, with results, have a few MB
COLLECTION_LIMIT_BYTES = 1 << 30  # of a file with many trials; those of the judged ones have some hundred MB
MOST_COMPRESSED = 100  # text shrinks to a tenth
_WORTH_TRIALS = 10_000  # judged; with fewer, more processes cost more time than they save
SUFFIXES = (".xml", ".json", ".jsonl", ".zip")
_NCT = re.compile(r"NCT[0-9]{8}")
_END = b"</eligibility>"
_CHUNK_BYTES = 16 << 10  # most of the registry's records end their eligibility within it
_TEXTS: Mapping[tuple[str, ...], str] = {
    ("id_info", "nct_id"): "nct",
    ("brief_title",): "title",
    ("official_title",): "official_title",
    ("condition",): "condition",
    ("eligibility", "criteria", "textblock"): "criteria",
    ("eligibility", "gender"): "sex",
    ("eligibility", "minimum_age"): "youngest",
    ("eligibility", "maximum_age"): "oldest",
}


_DEEPEST = 1 + max(map(len, _TEXTS))


@dataclass(frozen=True, slots=True)
class Trial:
    """One trial. Ages as the registry writes them (`18 Years`), "" where it has none; `unsplit` as in `eligibility.Criteria`."""

    nct: str
    title: str
    conditions: tuple[str, ...]
    sex: str
    youngest: str
    oldest: str
    inclusion: str
    exclusion: str
    unsplit: bool = False

    @property
    def has_text(self) -> bool:
        return bool(self.inclusion or self.exclusion)


@dataclass(frozen=True, slots=True)
class Found:
    """The wanted trials that have criteria, and what was left aside: `withheld` have a record without any, `repeated` were in several files."""

    trials: Mapping[str, Trial]
    withheld: frozenset[str]
    repeated: int


def read(files: Iterable[Path], wanted: Collection[str], workers: int) -> Found:
    """The trials of `wanted` in files on disk. Raises DataError for one that is none of the forms above, or an archive that is not safe."""
    ids = frozenset(wanted)
    workers = workers if len(ids) >= _WORTH_TRIALS else 1
    parts = [part for path in files if path.suffix.lower() == ".zip" or is_wanted(path.name, ids) for part in _parts(path, workers)]
    trials: dict[str, Trial] = {}
    withheld: set[str] = set()
    repeated = 0
    for found in _spread(parts, ids, workers):
        for trial in found:
            repeated += trial.nct in trials
            if not trial.has_text:
                withheld.add(trial.nct)
            elif trial.nct not in trials:
                trials[trial.nct] = trial
    return Found(trials, frozenset(withheld - trials.keys()), repeated)


def is_wanted(name: str, wanted: Collection[str]) -> bool:
    """Whether to open a file: one that is named after a trial is only opened for that trial."""
    match = _NCT.match(name)
    return match is None or match[0] in wanted


class _Part(NamedTuple):
    """A share of a file's trials: of those of a zip every `of`-th by number, beginning with `share`; else all (0 of 1)."""

    path: Path
    share: int
    of: int


def _parts(path: Path, workers: int) -> list[_Part]:
    return [_Part(path, i, workers) for i in range(workers)] if path.suffix.lower() == ".zip" else [_Part(path, 0, 1)]


def _spread(parts: list[_Part], wanted: frozenset[str], workers: int) -> Iterator[list[Trial]]:
    """Results of the parts in their order."""
    if workers == 1:
        for part in parts:
            yield _read(part, wanted)
        return
    # Not forked: whoever calls may have threads.
    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), _remember, (wanted,)) as pool:
        try:
            yield from pool.map(_read_remembered, parts, chunksize=max(1, min(200, len(parts) // (4 * workers))))
        except BrokenProcessPool:
            raise TryAgain("a process that read trials was killed; is memory short?") from None


_wanted: frozenset[str] = frozenset()


def _remember(wanted: frozenset[str]) -> None:
    global _wanted  # of a worker process: sent once, not with every file
    _wanted = wanted


def _read_remembered(part: _Part) -> list[Trial]:
    return _read(part, _wanted)


def _read(part: _Part, wanted: frozenset[str]) -> list[Trial]:
    if part.path.suffix.lower() == ".zip":
        return list(_zip(part, wanted))
    return list(_record(part.path.name, part.path.read_bytes(), wanted))


def _zip(part: _Part, wanted: frozenset[str]) -> Iterator[Trial]:
    with sources.opened(part.path) as archive:
        for member in archive.infolist():  # hundreds of thousands, so what is not read is not looked at closely
            name = member.filename.replace("\\", "/").rpartition("/")[2]
            if _is_mine(name, part, wanted) and not sources.is_litter(member.filename):
                sources.checked_member(part.path, member)
                yield from _record(name, _unpacked(part.path, archive, member, name), wanted)


def _is_mine(name: str, part: _Part, wanted: frozenset[str]) -> bool:
    """Whether a part reads a member: its share of the trials, and of what holds many trials the first part all."""
    if not name.lower().endswith(SUFFIXES[:3]) or not is_wanted(name, wanted):
        return False
    match = _NCT.match(name)
    return (int(match[0][3:]) if match else 0) % part.of == part.share


def _unpacked(path: Path, archive: zipfile.ZipFile, member: zipfile.ZipInfo, name: str) -> bytes:
    """A member's bytes, of an XML record up to the end of its eligibility. Its size is what comes out, whatever the archive says."""
    is_record = bool(_NCT.match(name))
    limit = MEMBER_LIMIT_BYTES if is_record else COLLECTION_LIMIT_BYTES
    bomb = member.file_size > MEMBER_LIMIT_BYTES and member.file_size > MOST_COMPRESSED * member.compress_size
    is_xml = is_record and name.lower().endswith(".xml")
    body = bytearray()
    if member.file_size <= limit and not bomb:
        with archive.open(member) as stream:
            while len(body) <= limit and (chunk := stream.read(_CHUNK_BYTES if is_xml else limit + 1 - len(body))):
                body += chunk
                if is_xml and body.find(_END, max(0, len(body) - len(chunk) - len(_END))) >= 0:
                    break
    if member.file_size > limit or bomb or len(body) > limit:
        raise DataError(f"{path}: member {name} unpacks to more than {limit} bytes, or from too few; no file of trials is like that")
    return bytes(body)


def _record(name: str, body: bytes, wanted: Collection[str]) -> Iterator[Trial]:
    if name.lower().endswith(".xml"):
        yield from (t for t in [xml(name, body)] if t.nct in wanted)
    elif name.lower().endswith(".jsonl"):
        yield from (t for line in body.splitlines() if line.strip() for t in _json(name, line, wanted))
    else:
        yield from _json(name, body, wanted)


def xml(name: str, body: bytes) -> Trial:
    """A legacy XML record. Only what stands before the end of its eligibility is parsed: results may follow, a hundred times as long."""
    end = body.find(_END)
    texts: dict[str, list[str]] = {field: [] for field in _TEXTS.values()}
    path: list[str] = []
    parts: list[str] = []

    def start(tag: str, _: dict[str, str]) -> None:
        path.append(tag)
        parts.clear()

    def finish(_: str) -> None:
        if len(path) <= _DEEPEST and (field := _TEXTS.get(tuple(path[1:]))) is not None:
            texts[field].append("".join(parts))
        path.pop()

    parser = expat.ParserCreate()
    parser.buffer_text = True
    parser.StartElementHandler, parser.EndElementHandler, parser.CharacterDataHandler = start, finish, parts.append
    topics.parse(parser, body if end < 0 else body[: end + len(_END)], name, final=end < 0)
    first = {field: topics.text(found[0]) if found else "" for field, found in texts.items()}
    if not _NCT.fullmatch(first["nct"]):
        raise DataError(f"{name}: no <nct_id> in it; expected a record of ClinicalTrials.gov (legacy XML)")
    title = first["title"] or first["official_title"]
    conditions = tuple(topics.text(c) for c in texts["condition"])
    criteria = eligibility.split(texts["criteria"][0] if texts["criteria"] else "")
    return Trial(first["nct"], title, conditions, first["sex"], _age(first["youngest"]), _age(first["oldest"]), *criteria)


def _json(name: str, body: bytes, wanted: Collection[str]) -> Iterator[Trial]:
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        raise DataError(f"{name}: not whole JSON; copy it again") from None
    for nct, record in _records(name, document):
        if nct in wanted:
            yield _study(record) if _inner(record, "protocolSection") else _processed(nct, record)


def _records(name: str, document: Any) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """NCT id and record of each trial in a JSON document, whichever of the forms it has."""
    if isinstance(document, list) or (isinstance(document, dict) and isinstance(document.get("studies"), list)):
        for each in document if isinstance(document, list) else document["studies"]:
            yield from _records(name, each)
    elif isinstance(document, dict) and (own := _own_id(document, name)):
        yield own, document
    elif isinstance(document, dict) and document and all(_NCT.fullmatch(key) and isinstance(value, dict) for key, value in document.items()):
        yield from document.items()
    else:
        raise DataError(
            f"{name}: no trial in it; expected ClinicalTrials.gov v2 JSON (protocolSection), or TrialGPT's trial_info.json or corpus.jsonl; if it is"
            " something else, let data.trials name the files with trials"
        )


def _own_id(document: Mapping[str, Any], name: str) -> str | None:
    """The NCT id of a document that is one trial; a file of TrialGPT may have it in its name alone."""
    module = _inner(_inner(document, "protocolSection"), "identificationModule")
    given = [module.get("nctId"), *(document.get(key) for key in ("NCTID", "NCT_ID", "nct_id", "_id"))]
    if found := next((id for id in given if isinstance(id, str) and _NCT.fullmatch(id)), None):
        return found
    named = _NCT.match(name)
    return named[0] if named and "brief_title" in document else None


def _study(record: Mapping[str, Any]) -> Trial:
    """A v2 record. What is missing in it, or null, is empty."""
    protocol = _inner(record, "protocolSection")
    named, asked = _inner(protocol, "identificationModule"), _inner(protocol, "eligibilityModule")
    listed = _inner(protocol, "conditionsModule").get("conditions")
    conditions = tuple(topics.text(str(c)) for c in listed) if isinstance(listed, list) else ()
    title = topics.text(str(named.get("briefTitle") or named.get("officialTitle") or ""))
    criteria = eligibility.split(str(asked.get("eligibilityCriteria") or "").replace("\\>", ">").replace("\\<", "<"))
    sex, youngest, oldest = (_age(asked.get(key)) for key in ("sex", "minimumAge", "maximumAge"))
    return Trial(str(named["nctId"]), title, conditions, sex.capitalize(), youngest, oldest, *criteria)


def _inner(document: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    found = document.get(key)
    return found if isinstance(found, dict) else {}


def _processed(nct: str, record: Mapping[str, Any]) -> Trial:
    """TrialGPT's form: criteria are split already; `corpus.jsonl` has the same fields under `metadata`, or all of it in one text."""
    inner = record.get("metadata")
    fields = {**record, **inner} if isinstance(inner, dict) else record
    title = topics.text(str(fields.get("brief_title") or fields.get("title") or ""))
    listed = fields.get("diseases_list")
    conditions = tuple(topics.text(str(d)) for d in listed) if isinstance(listed, list) else ()
    if "inclusion_criteria" not in fields and "exclusion_criteria" not in fields:
        return Trial(nct, title, conditions, "", "", "", *eligibility.split(str(fields.get("text") or "")))
    inclusion, exclusion = (eligibility.trimmed(str(fields.get(f"{kind}_criteria") or ""), kind) for kind in ("inclusion", "exclusion"))
    return Trial(
        nct, title, conditions, "", "", "", inclusion, exclusion, unsplit=bool(inclusion) and not exclusion and "exclusion" in inclusion.lower()
    )


def _age(text: Any) -> str:
    words = topics.text(str(text or ""))
    return "" if words.upper() in ("N/A", "NONE") else words
