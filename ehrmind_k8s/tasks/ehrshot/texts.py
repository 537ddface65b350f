"""What of a source's own words may stand in a prompt: short ones, on one line, without a calendar date.

Whoever types into a record may type anything into any field: a note into a code, a date into a unit. What is longer than LONGEST is prose, and is
left out where it is read, so that nobody's notes are held in memory; everything else is made `plain` where it is shown.
"""

import re
from functools import lru_cache

import pyarrow as pa
import pyarrow.compute

LONGEST = 80  # characters
_MONTH = r"(?:jan(?:uary)?|feb(?:ruary)?|mar(?:ch)?|apr(?:il)?|may|june?|july?|aug(?:ust)?|sept?(?:ember)?|oct(?:ober)?|nov(?:ember)?|dec(?:ember)?)"
_BETWEEN = r"\s?[-/.\u2010-\u2015]\s?"
_DATE = re.compile(
    rf"""
    (?<![\d.]) (?:1[89]|20)\d\d (?P<a>{_BETWEEN}) \d\d? (?P=a) \d\d? (?!\d) (?:[T\s]\d\d?:\d\d(?::\d\d(?:\.\d+)?)?)?        # 2020-03-04 12:00
  | (?<![\d.]) \d\d? (?P<b>{_BETWEEN}) \d\d? (?P=b) (?:\d{{4}}|\d\d) (?!\d|\.\d)                                            # 4.3.20, 3/4/2020
  | (?<!\d) (?:19|20)\d\d (?:0[1-9]|1[0-2]) (?:0[1-9]|[12]\d|3[01]) (?:[T_\s]?\d\d:?\d\d(?::?\d\d)?)? (?!\d)                # 20200304T1200
  | (?<![\w.]) \d\d? (?:st|nd|rd|th)? [\s.,/-]* (?:of\s)? {_MONTH} (?![a-z]) (?:[\s.,'/-]{{0,2}} (?:\d{{4}}|\d\d) (?!\d))?  # 4 Mar 2020, 04-MAR-20
  | \b {_MONTH} (?![a-z]) [\s.,'/-]{{0,2}} \d\d? (?:st|nd|rd|th)? (?!\d) (?:[\s,.'/-]{{1,2}} (?:\d{{4}}|\d\d) (?!\d))?      # March 4th, 2020
  | \b {_MONTH} (?![a-z]) [\s.,'/-]{{0,2}} (?:19|20)\d\d (?!\d)                                                             # Mar 2020
  | (?<![\d.]) (?<!\d[/-]) (?:0?[1-9]|1[0-2]) \s?/\s? (?:19|20)\d\d (?!\d)                                                  # 03/2020
  | (?<![\d.]) (?<!\d[/-]) (?:19|20)\d\d \s?[-/]\s? (?:(?:0[1-9]|1[0-2])|(?:19|20)\d\d) (?![\d./-])                         # 2020-03, 2019-2020
  | \b (?:in|from|since|until|during|year|dated|born) \s (?:19|20)\d\d (?!\d|[.,]\d|\s?(?:m?l|[mu]?g|cc|units?)\b)          # since 2020
    """,
    re.VERBOSE | re.IGNORECASE,
)


@lru_cache(maxsize=1 << 16)
def plain(text: str) -> str:
    """A text on one line, `(date)` in place of every date that is recognised."""
    return _DATE.sub("(date)", line(text))


def line(text: str) -> str:
    """A text on one line: with one of its own it could pass for a section of the record."""
    return " ".join(text.split())


def has_date(text: str) -> bool:
    """Whether `plain` would hide something."""
    return _DATE.search(line(text)) is not None


def short(column: pa.Array) -> tuple[pa.Array, int]:
    """The texts of a column without the long ones (null), and how many these were."""
    long = pa.compute.greater(pa.compute.utf8_length(column), LONGEST).fill_null(False)
    count = pa.compute.sum(long).as_py() or 0
    return (pa.compute.if_else(long, pa.scalar(None, pa.string()), column) if count else column), count
