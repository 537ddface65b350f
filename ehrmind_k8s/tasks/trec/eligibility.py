"""Free text of eligibility into inclusion and exclusion criteria.

The registry's text is hard-wrapped and indented; headings stand on lines of their own (121 of 130 real texts), inside the first criterion
("Inclusion Criteria: adults"), several times (arms, cohorts), or nowhere (old trials of the National Cancer Institute).
"""

import re
from typing import NamedTuple

_BULLET = re.compile(r"(?:[-*•·◦▪o]|\(?[0-9]{1,2}[.)]|\(?[a-zA-Z][.)])\s+(?=\S)")
_KIND = r"(?P<kind>inclusion|exclusion)"
# `Key Inclusion Criteria (cohort A):`, `EXCLUSION CRITERIA`, `Exclusion:`; words may stand before, and little but brackets after.
_ALONE = re.compile(
    rf"\W*(?:[\w/&,()-]+\s+){{0,5}}?{_KIND}(?:\s+criteri(?:a|on))?(?:\s*\([^)]*\)|\s+(?:for|in|of)\s+[\w /-]{{1,40}})?\s*[:.;-]*", re.IGNORECASE
)
# `Inclusion Criteria: adults with asthma`.
_INLINE = re.compile(rf"\W*(?:[\w/&-]+\s+){{0,3}}?{_KIND}(?:\s+criteri(?:a|on))?\s*:\s*(?=\S)", re.IGNORECASE)
_LONGEST_HEADING = 90  # characters, so that no line costs more than these to look at


class Criteria(NamedTuple):
    """Criteria one a line. `unsplit`: no heading told the two apart, and all of it is under inclusion."""

    inclusion: str
    exclusion: str
    unsplit: bool


def split(text: str) -> Criteria:
    """The two lists of a criteria text; several headings of a kind add up. Text before the first heading belongs to inclusion."""
    found: dict[str, list[str]] = {"inclusion": [], "exclusion": []}
    kind, headed = "inclusion", False
    for line in unwrap(text):
        if (match := _heading(line)) is None:
            found[kind].append(line)
            continue
        kind, headed = match["kind"].lower(), True
        if rest := line[match.end() :]:
            found[kind].append(rest)
    return Criteria("\n".join(found["inclusion"]), "\n".join(found["exclusion"]), not headed and any(found.values()))


def unwrap(text: str) -> list[str]:
    """Lines as they were meant: a bullet, a blank line and a heading begin a new one, anything else goes on with the one before."""
    lines: list[str] = []
    fresh = True
    for raw in text.replace("\r\n", "\n").replace("\r", "\n").split("\n"):
        line = " ".join(raw.split())
        if not line:
            fresh = True
        elif fresh or not lines or _BULLET.match(line) or _heading(line) or _heading(lines[-1]):
            lines.append(line)
            fresh = False
        else:
            lines[-1] += f" {line}"
    return lines


def trimmed(text: str, kind: str) -> str:
    """Criteria that a processed corpus has split already, without what its splitter left of the heading (`inclusion criteria:`, `:`)."""
    rest = re.sub(rf"^\W*(?:{kind}\s+criteri(?:a|on)\W*|:)", "", text.strip(), count=1, flags=re.IGNORECASE)
    return "\n".join(unwrap(rest))


def _heading(line: str) -> re.Match[str] | None:
    """What of a line is a heading: all of it, or its beginning."""
    return (_ALONE.fullmatch(line) if len(line) <= _LONGEST_HEADING else None) or _INLINE.match(line[:_LONGEST_HEADING])
