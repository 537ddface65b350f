"""The form of an answer, shared by all tasks: one think block, then one answer block that holds one JSON object.

    <think>any reasoning</think>
    <answer>{"answer": "25.2"}</answer>

Model text is data: nothing here raises for a text, evaluates it, or takes more than linear time. Numbers stay text until a
task asks for one, so that a thousand digits cost nothing.
"""

import json
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

TAGS = ("<think>", "</think>", "<answer>", "</answer>")
# End-of-turn markers of common chat templates, for texts that were decoded with their special tokens.
STOP_TOKENS = ("<|eot_id|>", "<|im_end|>", "<|end_of_text|>", "<|endoftext|>", "<|end|>", "<end_of_turn>", "</s>", "<eos>")

# Sign, digits (thousands grouped correctly or not at all), fraction, exponent; ASCII digits; no two ways to match, so linear time.
_NUMBER = re.compile(r"[-+\u2212]?(?:(?:[1-9][0-9]{0,2}(?:,[0-9]{3})++|[0-9]++)(?:\.[0-9]*+)?|\.[0-9]++)(?:[eE][-+\u2212]?[0-9]++)?")


class Number(str):
    """A JSON number as it was written."""


def parse(text: str, keys: Sequence[str]) -> Mapping[str, Any] | None:
    """The answer object of a whole completion, or None where it is malformed.

    Well-formed: each tag exactly once and in order; only white space before `<think>` and between the blocks; after the answer
    block only white space, at most one full stop and at most one stop token; the block is one JSON object (RFC 8259) with all
    `keys`. Extra keys are allowed and the last duplicate wins. Numbers come back as `Number`.
    """
    if any(text.count(tag) != 1 for tag in TAGS):
        return None
    before, _, rest = text.partition("<think>")
    _, closed, rest = rest.partition("</think>")
    between, opened, rest = rest.partition("<answer>")
    block, ended, tail = rest.partition("</answer>")
    if not (closed and opened and ended) or before.strip() or between.strip() or not _is_end(tail):
        return None
    answer = _json(block.strip())
    return answer if isinstance(answer, dict) and all(key in answer for key in keys) else None


def number(value: Any) -> float | None:
    """A finite number from a JSON number or its text, white space around it allowed; None for anything else.

    No unit, percent, arithmetic, NaN, infinity or bool.
    """
    if not isinstance(value, str):
        return None
    text = value.strip()
    if not _NUMBER.fullmatch(text):
        return None
    found = float(plain(text))
    return found if math.isfinite(found) else None


def plain(number: str) -> str:
    """The text of a number that `number` reads, as `float` reads it too: no thousands commas, an ASCII minus."""
    return number.replace(",", "").replace("\u2212", "-")


def canonical(value: float) -> str:
    """One spelling per number, so that equal answers are equal texts: `4` for 4.0, `0` for -0."""
    return str(int(value)) if value.is_integer() and abs(value) < 1e15 else repr(value)


def loose_block(text: str) -> str:
    """What stands in the last answer block, closed or not; the whole text where there is none."""
    return text.rpartition("<answer>")[2].partition("</answer>")[0]


def _is_end(tail: str) -> bool:
    rest = tail.strip().removeprefix(".").lstrip()
    return not rest or rest in STOP_TOKENS


def _json(block: str) -> Any:
    try:
        return json.loads(block, parse_int=Number, parse_float=Number, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return None


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")
