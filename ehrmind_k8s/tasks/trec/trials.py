"""The trials: what a prompt needs of each, from every form in which their texts are published.

    ClinicalTrials.gov legacy XML, one a file or in zips (the TREC corpus: five zips, 375,580 trials; only judged ones are unpacked)
    ClinicalTrials.gov v2 JSON, one study a file or in a list
    TrialGPT's `trial_info.json` (an object by NCT id), its one-trial JSON files, and its `corpus.jsonl`

Nothing is unpacked to disk. A trial that several files hold is taken from the first, in the order of names or of `data.trials`.
"""

import json
import re
import zipfile
import zlib
from collections.abc import Collection, Iterable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any
from xml.parsers import expat

from ehrmind_k8s.errors import DataError
from ehrmind_k8s.tasks import sources
from ehrmind_k8s.tasks.trec import eligibility, topics

MEMBER_LIMIT_BYTES = 64 << 20  # of one record; the largest of the registry, with results, have a few MB
SUFFIXES = (".xml", ".json", ".jsonl", ".zip")
_NCT = re.compile(r"NCT[0-9]{8}")
_END = b"</eligibility>"
_CHUNK_BYTES = 16 << 10  # half of the registry's records end their eligibility within it
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
    jobs = [(path, frozenset(part)) for path in files for part in _parts(path, wanted, workers)]
    trials: dict[str, Trial] = {}
    withheld: set[str] = set()
    repeated = 0
    for found in _spread(jobs, workers):
        for trial in found:
            repeated += trial.nct in trials
            if not trial.has_text:
                withheld.add(trial.nct)
            elif trial.nct not in trials:
                trials[trial.nct] = trial
    return Found(trials, frozenset(withheld - trials.keys()), repeated)


def _parts(path: Path, wanted: Collection[str], workers: int) -> list[Collection[str]]:
    """What of `wanted` each worker looks for in a file: a share of each in a large zip, all of it elsewhere."""
    if path.suffix.lower() != ".zip" or path.stat().st_size < 10 << 20 or workers == 1:
        return [wanted]
    ordered = sorted(wanted)
    return [ordered[i::workers] for i in range(workers)]


def _spread(jobs: list[tuple[Path, frozenset[str]]], workers: int) -> Iterator[list[Trial]]:
    """Results of the jobs in their order, on all cores where there is enough to do."""
    if workers == 1 or sum(path.stat().st_size for path, _ in jobs) < 10 << 20:
        yield from map(_file, jobs)
        return
    with ProcessPoolExecutor(workers) as pool:
        yield from pool.map(_file, jobs)


def _file(job: tuple[Path, frozenset[str]]) -> list[Trial]:
    path, wanted = job
    if path.suffix.lower() == ".zip":
        return list(_zip(path, wanted))
    if not _is_wanted(path.name, wanted):
        return []
    return list(_record(path.name, path.read_bytes(), wanted))


def _zip(path: Path, wanted: frozenset[str]) -> Iterator[Trial]:
    try:
        with zipfile.ZipFile(path) as archive:
            for member in archive.infolist():
                name = sources.checked_member(path, member)
                if not member.is_dir() and not sources.is_litter(str(name)) and name.suffix.lower() in SUFFIXES[:3] and _is_wanted(name.name, wanted):
                    yield from _record(name.name, _unpacked(path, archive, member), wanted)
    except (zipfile.BadZipFile, NotImplementedError, zlib.error, EOFError) as error:
        raise DataError(f"{path}: not a whole zip file ({type(error).__name__}); copy it again") from None


def _is_wanted(name: str, wanted: Collection[str]) -> bool:
    """Whether to open a file: one that is named after a trial is only opened for that trial."""
    match = _NCT.match(name)
    return match is None or match[0] in wanted


def _unpacked(path: Path, archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> bytes:
    """A member's bytes, of an XML record up to the end of its eligibility. Its size is what comes out, whatever the archive says."""
    name = PurePosixPath(member.filename).name
    limit, is_record = (MEMBER_LIMIT_BYTES, name.lower().endswith(".xml")) if _NCT.match(name) else (sources.ARCHIVE_LIMIT_BYTES, False)
    body = bytearray()
    with archive.open(member) as stream:
        while chunk := stream.read(_CHUNK_BYTES if is_record else limit + 1 - len(body)):
            body += chunk
            if len(body) > limit:
                raise DataError(f"{path}: member {name} unpacks to more than {limit} bytes; no trial is that long")
            if is_record and body.find(_END, max(0, len(body) - len(chunk) - len(_END))) >= 0:
                break
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
        if (field := _TEXTS.get(tuple(path[1:]))) is not None:
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
            yield _study(record) if "protocolSection" in record else _processed(nct, record)


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
            f"{name}: no trial in it; expected ClinicalTrials.gov v2 JSON (protocolSection), or TrialGPT's trial_info.json or corpus.jsonl"
        )


def _own_id(document: Mapping[str, Any], name: str) -> str | None:
    """The NCT id of a document that is one trial; a file of TrialGPT may have it in its name alone."""
    protocol = document.get("protocolSection")
    module = protocol.get("identificationModule", {}) if isinstance(protocol, dict) else {}
    given = [module.get("nctId"), *(document.get(key) for key in ("NCTID", "NCT_ID", "nct_id", "_id"))]
    if found := next((id for id in given if isinstance(id, str) and _NCT.fullmatch(id)), None):
        return found
    named = _NCT.match(name)
    return named[0] if named and "brief_title" in document else None


def _study(record: Mapping[str, Any]) -> Trial:
    protocol = record["protocolSection"]
    named, asked = protocol.get("identificationModule", {}), protocol.get("eligibilityModule", {})
    conditions = tuple(topics.text(c) for c in protocol.get("conditionsModule", {}).get("conditions", ()))
    title = topics.text(named.get("briefTitle") or named.get("officialTitle") or "")
    youngest, oldest = _age(asked.get("minimumAge", "")), _age(asked.get("maximumAge", ""))
    criteria = eligibility.split(asked.get("eligibilityCriteria", "").replace("\\>", ">").replace("\\<", "<"))
    return Trial(named["nctId"], title, conditions, topics.text(asked.get("sex", "")).capitalize(), youngest, oldest, *criteria)


def _processed(nct: str, record: Mapping[str, Any]) -> Trial:
    """TrialGPT's form: criteria are split already; `corpus.jsonl` has the same fields under `metadata`, or all of it in one text."""
    inner = record.get("metadata")
    fields = {**record, **inner} if isinstance(inner, dict) else record
    title = topics.text(str(fields.get("brief_title") or fields.get("title") or ""))
    conditions = tuple(topics.text(str(d)) for d in fields.get("diseases_list") or ())
    if "inclusion_criteria" not in fields and "exclusion_criteria" not in fields:
        return Trial(nct, title, conditions, "", "", "", *eligibility.split(str(fields.get("text") or "")))
    inclusion, exclusion = (eligibility.trimmed(str(fields.get(f"{kind}_criteria") or ""), kind) for kind in ("inclusion", "exclusion"))
    return Trial(
        nct, title, conditions, "", "", "", inclusion, exclusion, unsplit=bool(inclusion) and not exclusion and "exclusion" in inclusion.lower()
    )


def _age(text: Any) -> str:
    words = topics.text(str(text or ""))
    return "" if words.upper() in ("N/A", "NONE") else words
