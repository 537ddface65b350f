"""How fast the scorer is: completions per second on valid answers, and the longest time that a hostile one takes.

    python benchmarks/scoring.py                      # the synthetic twin
    python benchmarks/scoring.py path/to/medcalc/v1.0/test_data.csv

The comparison runs the steps of the paper's reward as published: tags by regular expression and position, `json.loads`, and Python's
`eval` of the answer against the limits. It is a re-implementation for this benchmark alone, never imported by the package: it runs model
text as code. Rounds are interleaved, so that whatever else the machine does hits both.
"""

import argparse
import json
import re
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from ehrmind_k8s.records import Example
from ehrmind_k8s.spec import DataSpec
from ehrmind_k8s.tasks.medcalc import MedCalc, scoring

TASK = MedCalc()
ROUNDS = 7
BOUND_MS = 50.0
SIZE = 100_000  # characters of a hostile text
TAGS = ("<think>", "</think>", "<answer>", "</answer>")
Scorer = Callable[[Any, str], bool]


def ours(target: Any, text: str) -> bool:
    return scoring.score(target, text).correct


def reference(target: Any, text: str) -> bool:
    """The published reward's steps, as facts: header cut, last answer block, tag counts and order, JSON, `eval`."""
    for header in ("Assistant:", "<|im_start|>assistant", "<|start_header_id|>assistant<|end_header_id|>"):
        if header in text:
            text = text.split(header, 1)[1]
            break
    blocks = [m.group(1).strip() for m in re.finditer(r"<answer>(.*?)</answer>", text, re.DOTALL)]
    counts = [text.count(tag) for tag in TAGS]
    places = [text.find(tag) for tag in TAGS]
    if not blocks or counts != [1, 1, 1, 1] or places != sorted(places):
        return False
    try:
        answer = json.loads(blocks[-1])["answer"]
    except (ValueError, KeyError, TypeError):
        return False
    return _reference_value(target, answer)


def _reference_value(target: Any, answer: str) -> bool:
    match target["scoring"]:
        case "date":
            return datetime.strptime(answer, "%m/%d/%Y") == datetime.strptime(target["answer"], "%m/%d/%Y")
        case "weeks_days":
            pair = re.compile(r"\(?[\"\']?(\d+)\s*(?:weeks?)?[\"\']?,?\s*[\"\']?(\d+)\s*(?:days?)?[\"\']?\s*\)?")
            found, gold = pair.search(answer), pair.search(target["answer"])
            return bool(found and gold and found.groups() == gold.groups())
        case "integer":
            return bool(round(eval(answer)) == eval(target["answer"]))
    return bool(eval(target["lower"]) <= eval(answer) <= eval(target["upper"]))


def hostile() -> dict[str, str]:
    """Texts of about SIZE characters, each aimed at one way to be slow."""
    values = {
        "digits": "9" * SIZE,
        "digits, then a letter": "9" * SIZE + "x",
        "thousands groups, then a letter": "1" + ",111" * (SIZE // 4) + "x",
        "fraction": "0." + "1" * SIZE,
        "exponent": "1e" + "9" * SIZE,
        "blanks, then a letter": " " * SIZE + "x",
        "slashes": "1/" * (SIZE // 2),
        "pairs": "1," * (SIZE // 2),
        "quotes and digits": "'1" * (SIZE // 2),
        "power tower": "9**9**9",
        "N/A again and again": "N/A" * (SIZE // 3),
    }
    texts = {name: f'<think>x</think><answer>{{"answer": {json.dumps(value)}}}</answer>' for name, value in values.items()}
    blocks = {"deep list": "[" * SIZE, "deep object": '{"answer":' * (SIZE // 10), "bare digits": f'{{"answer": {"9" * SIZE}}}'}
    texts |= {name: f"<think>x</think><answer>{block}</answer>" for name, block in blocks.items()}
    return texts | {"tags": "<think>" * (SIZE // 7), "open answers": "<answer>" * (SIZE // 8), "duplicate keys": _duplicates()}


def _duplicates() -> str:
    return '<think>x</think><answer>{"answer": 0' + ',"answer":1' * (SIZE // 11) + "}</answer>"


def rate(scorer: Scorer, rows: Sequence[tuple[Any, str]]) -> float:
    """Completions per second of CPU time. Raises AssertionError if one of the right answers is judged wrong."""
    started = time.process_time()
    right = sum(scorer(target, text) for target, text in rows)
    seconds = time.process_time() - started
    assert right == len(rows), f"{scorer.__name__} accepts {right} of {len(rows)} right answers"
    return len(rows) / seconds


def worst(rows: Sequence[Example]) -> tuple[float, str]:
    """Longest CPU time of one hostile text over all scoring classes (ms, best of 3), and which it was."""
    targets = {e.target["scoring"]: e.target | {"abstain": True} for e in rows}
    longest = (0.0, "")
    for name, text in hostile().items():
        for kind, target in targets.items():
            for judge in (scoring.score, scoring.is_correct_in_any_format):
                took = min(_milliseconds(judge, target, text) for _ in range(3))
                longest = max(longest, (took, f"{name} as {kind}, {judge.__name__}"))
    return longest


def _milliseconds(judge: Callable[[Any, str], Any], target: Any, text: str) -> float:
    started = time.process_time()
    judge(target, text)
    return 1000 * (time.process_time() - started)


def main() -> int:
    parser = argparse.ArgumentParser(description="Measure the MedCalc scorer.")
    parser.add_argument("source", nargs="?", type=Path, help="a MedCalc file named test*; default: the synthetic twin")
    source = parser.parse_args().source
    with tempfile.TemporaryDirectory() as folder:
        if source is None:
            TASK.synthesize(Path(folder), 0, "unit")
        found = TASK.read(source or Path(folder), DataSpec(), 0)
    rows = [e for e in found.examples if e.sft_text and TASK.score(e, e.sft_text).correct]
    texts = [(e.target, str(e.sft_text)) for e in rows]
    texts *= max(1, 2000 // len(texts))
    rates: dict[str, list[float]] = {"ours": [], "reference": []}
    for _ in range(ROUNDS):
        rates["ours"].append(rate(ours, texts))
        rates["reference"].append(rate(reference, texts))
    median = {name: statistics.median(values) for name, values in rates.items()}
    ratio = median["ours"] / median["reference"]
    took, which = worst(rows)
    print(f"valid answers      {len(texts)} completions, median of {ROUNDS} interleaved rounds, CPU time")
    print(f"  ours             {median['ours']:>10,.0f} completions/s")
    print(f"  reference steps  {median['reference']:>10,.0f} completions/s")
    print(f"  ratio            {ratio:>10.2f} (at least 1 is wanted)")
    print(f"hostile answers    {SIZE:,} characters: worst {took:.1f} ms of {BOUND_MS:.0f} ms ({which})")
    return 0 if ratio >= 1 and took < BOUND_MS else 1


if __name__ == "__main__":
    sys.exit(main())
