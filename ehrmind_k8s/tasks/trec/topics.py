"""The patients: topic files of TREC (XML) and of TrialGPT / BEIR (`queries.jsonl`).

A topic is known by year and number, `2021-38`. The root of the official 2022 file says 2021, so a year in the file's name wins.
"""

import json
import re
from collections.abc import Iterable
from xml.parsers import expat

from ehrmind_k8s.errors import DataError
from ehrmind_k8s.tasks.sources import File

_YEAR = re.compile(r"(?<![0-9])20[0-9]{2}(?![0-9])")
_BEIR_ID = re.compile(r"trec-(20[0-9]{2})([0-9]+)")


def read(files: Iterable[File]) -> dict[str, str]:
    """Topic id -> text of the patient. Raises DataError for a file that is none, or for a topic with two texts."""
    found: dict[str, str] = {}
    origin: dict[str, str] = {}
    for file in files:
        for key, text in (_json_lines(file) if file.suffix == ".jsonl" else _xml(file)).items():
            if found.setdefault(key, text) != text:
                raise DataError(
                    f"topic {key} has one text in {origin[key]} and another in {file.name}; keep one of the two files, or set data.topics"
                )
            origin.setdefault(key, file.name)
    return found


def year(name: str) -> str | None:
    """The year that a file's name holds, or else the folder nearest to it that holds one (`topics2022.xml`, `trec_2021/qrels/test.tsv`)."""
    for part in reversed(name.split("/")):
        years = {*_YEAR.findall(part)}
        if years:
            return years.pop() if len(years) == 1 else None
    return None


def identify(query: str, file: str) -> str:
    """Topic id of a query id as BEIR files have it. Raises DataError where it names no year and neither does the file."""
    if match := _BEIR_ID.fullmatch(query):
        return f"{match[1]}-{int(match[2])}"
    return f"{_needed_year(file, None)}-{query}"


def _xml(file: File) -> dict[str, str]:
    found: dict[str, str] = {}
    where: list[str] = []
    root: dict[str, str] = {}
    parts: list[str] = []

    def start(tag: str, attributes: dict[str, str]) -> None:
        if not where and tag != "topics":
            raise DataError(f"{file.name}: the root is <{tag}>; expected <topics>, as in topics2021.xml")
        if not where:
            root.update(attributes)
        where.append(attributes.get("number", "").strip())
        if tag == "topic":
            parts.clear()

    def end(tag: str) -> None:
        number = where.pop()
        if tag == "topic":
            if not number:
                raise DataError(f'{file.name}: a topic has no number; expected <topic number="1">')
            key, words = f"{int(number)}" if number.isdecimal() else number, text("".join(parts))
            if found.setdefault(key, words) != words:
                raise DataError(f"{file.name}: topic {number} is there twice, with two texts; keep one")

    parser = expat.ParserCreate()
    parser.StartElementHandler, parser.EndElementHandler, parser.CharacterDataHandler = start, end, parts.append
    parse(parser, file.read(), file.name, final=True)
    named = _needed_year(file.name, root.get("task"))
    if empty := [n for n, words in found.items() if not words]:
        raise DataError(f"{file.name}: topic {empty[0]} has no text")
    return {f"{named}-{number}": words for number, words in found.items()}


def _json_lines(file: File) -> dict[str, str]:
    found = {}
    for number, line in enumerate(file.read().splitlines(), 1):
        try:
            row = json.loads(line)
            found[identify(row["_id"], file.name)] = text(row["text"])
        except (ValueError, KeyError, TypeError, AttributeError):
            raise DataError(f'{file.name}, line {number}: expected {{"_id": "trec-20211", "text": ...}}') from None
    return found


def _needed_year(file: str, task: str | None) -> str:
    found = year(file) or year(task or "")
    if found is None:
        raise DataError(f"{file}: no year says which topics these are; put one into the file's name, as in topics2021.xml")
    return found


def parse(parser: expat.XMLParserType, body: bytes, name: str, *, final: bool) -> None:
    """Feed XML of unknown origin to a parser. Raises DataError for what is not XML, and for any entity that a document declares."""

    def refuse(entity: str, *_: object) -> None:
        raise DataError(f"{name}: declares the entity {entity[:40]!r}; documents that expand entities are refused")

    parser.EntityDeclHandler = refuse
    try:
        parser.Parse(body, final)
    except expat.ExpatError as error:
        raise DataError(f"{name}: not whole XML (line {error.lineno}): {expat.errors.messages[error.code]}; copy it again") from None
    except (LookupError, ValueError):
        raise DataError(f"{name}: declares an encoding that is not read; convert it to UTF-8") from None


def text(raw: str) -> str:
    """One line of words."""
    return " ".join(raw.split())
