"""Free text of eligibility into inclusion and exclusion criteria.

The registry's text is hard-wrapped and indented. Headings stand on lines of their own, in front of the first criterion ("Inclusion Criteria:
adults"), in the middle of one long paragraph, several times (arms, cohorts), or nowhere (old trials of the National Cancer Institute). A
criterion may speak of criteria itself ("does not meet inclusion criteria"), so a heading is only what has the form of one.
"""

import re
from typing import NamedTuple

_BULLET = re.compile(r"(?:[-*•·◦▪–]|\(?[0-9]{1,2}[.)]|\(?[a-zA-Z][.)])\s+(?=\S)")
# Words that stand before the kind in headings; anything else there makes a sentence of it.
_BEFORE = (
    r"(?:(?!non\b)(?:key|main|major|primary|general|additional|other|specific|common|study|trial|patients?|subjects?|participants?|eligibility|detailed|"
    r"clinical|basic|absolute|relative|pregnancy|cohort|group|arm|part|phase|stage|step|period|healthy|volunteers?|controls?|donors?|all|for|the|and|"
    r"[0-9a-z]{1,3}[.)]?)[\s:,/-]+){0,5}"
)
_KIND = r"(?P<non>non[\s-]*)?(?P<kind>inclusion|exclusion)"
_CRITERIA = r"\s+criteri(?:a|on|um)(?:\s*\([^)]*\))?"
_OPEN = re.compile(rf"{_BEFORE}{_KIND}(?:{_CRITERIA}(?:\s*[-–,]?\s*[\w/ -]{{1,40}})?|s?)", re.IGNORECASE)  # goes on with a colon
_ALONE = re.compile(rf"{_BEFORE}{_KIND}{_CRITERIA}(?:\s+(?:for\s+)?(?:stage|cohort|group|arm|part|phase)\s+\w{{1,4}})?", re.IGNORECASE)
_INLINE = re.compile(rf"\W*{_BEFORE}{_KIND}(?:{_CRITERIA}|s?)\s*:\s*(?=\S)", re.IGNORECASE)
# `Patients are excluded if:`, which opens a list.
_EXCLUDED = re.compile(
    r"(?:patients?|subjects?|participants?|individuals?|women|men|persons?)\b[^.:]{0,50}\b(?:excluded|ineligible|not eligible)\b[^.:]{0,40}:",
    re.IGNORECASE,
)
# A heading in the middle of a paragraph begins a line: after the end of a sentence, or in capitals.
_MIDDLE = re.compile(r"(?:INCLUSION|EXCLUSION)(?=\s+CRITERIA\s*:)|(?:Inclusion|Exclusion)(?=\s+Criteria\s*:)")
_SENTENCE_END = re.compile(r"[a-z)\]%][.;]\s")
_HINTS = ("clu", "eligible")  # in every heading, and in few other lines
_LONGEST_HEADING = 90  # characters, so that no line costs more than these to look at


class Criteria(NamedTuple):
    """Criteria one a line. `unsplit`: no heading told the two apart, and all of it is under inclusion."""

    inclusion: str
    exclusion: str
    unsplit: bool


class _Heading(NamedTuple):
    kind: str
    rest: str  # what the line goes on with


def split(text: str) -> Criteria:
    """The two lists of a criteria text; several headings of a kind add up. Text before the first heading belongs to inclusion."""
    found: dict[str, list[str]] = {"inclusion": [], "exclusion": []}
    kind, headed = "inclusion", False
    for line in unwrap(text):
        heading = _heading(line)
        if heading is None:
            found[kind].append(line)
            continue
        kind, headed = heading.kind, True
        if heading.rest:
            found[kind].append(heading.rest)
    return Criteria("\n".join(found["inclusion"]), "\n".join(found["exclusion"]), not headed and any(found.values()))


def unwrap(text: str) -> list[str]:
    """Lines as they were meant: a bullet, a blank line and a heading begin a new one, anything else goes on with the one before."""
    lines: list[str] = []
    fresh = True
    whole = _MIDDLE.sub(_broken, text.replace("\r\n", "\n").replace("\r", "\n"))
    for raw in whole.split("\n"):
        line = " ".join(raw.split())
        if not line:
            fresh = True
        elif fresh or not lines or _BULLET.match(line) or _heading(line) or _heading(lines[-1]):
            lines.append(line)
            fresh = False
        else:
            lines[-1] += f" {line}"
    return lines


def _broken(match: re.Match[str]) -> str:
    before = match.string[max(0, match.start() - 3) : match.start()]
    begins = before[-1:].isspace() if match[0].isupper() else _SENTENCE_END.fullmatch(before)
    return f"\n\n{match[0]}" if begins else match[0]


def trimmed(text: str, kind: str) -> str:
    """Criteria that a processed corpus has split already, without what its splitter left of the heading (`inclusion criteria:`, `:`)."""
    rest = re.sub(rf"^\W*(?:{kind}\s+criteri(?:a|on)\W*|:)", "", text.strip(), count=1, flags=re.IGNORECASE)
    return "\n".join(unwrap(rest))


def _heading(line: str) -> _Heading | None:
    """What of a line is a heading: all of it, or its beginning.

    A whole line is one only with a capital or a colon, since a wrapped sentence may go on with these very words; a bulleted line only with a
    colon at its end.
    """
    beginning = line[:_LONGEST_HEADING].lower()
    if not any(hint in beginning for hint in _HINTS):
        return None
    if len(line) <= _LONGEST_HEADING:
        bare = line.strip("*_[]#=<>~ ")
        words = _BULLET.sub("", bare, count=1)
        stem, colon = words.rstrip(" :;.-*_"), ":" in words[-3:]
        match = _OPEN.fullmatch(stem) if colon else _ALONE.fullmatch(stem) if words == bare and bare[:1].isupper() else None
        if match:
            return _Heading(_kind(match), "")
        if colon and _EXCLUDED.fullmatch(words):
            return _Heading("exclusion", "")
    match = _INLINE.match(line[:_LONGEST_HEADING])
    return _Heading(_kind(match), line[match.end() :]) if match else None


def _kind(match: re.Match[str]) -> str:
    """`non inclusion` is how some languages say exclusion."""
    said = match["kind"].lower()
    return said if not match["non"] else {"inclusion": "exclusion", "exclusion": "inclusion"}[said]
