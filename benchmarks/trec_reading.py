"""How long it takes to read the judged trials out of corpus zips, against lxml that parses the same members and does nothing else.

    python -m benchmarks.trec_reading             # 1 GB of XML in five zips
    python -m benchmarks.trec_reading --judged 1  # every trial judged: enough for all cores
    python -m benchmarks.trec_reading --mb 100

The zips are generated: records of the registry's form, one in three with results after its eligibility, an eighth of them judged. Both sides
run in this process on one core, interleaved; then ours on all cores.
"""

import argparse
import os
import random
import statistics
import tempfile
import time
import zipfile
from pathlib import Path

from lxml import etree

from ehrmind_k8s.tasks.trec import trials

ROUNDS = 3
JUDGED = 8  # one in so many, as in the corpus (48,714 of 375,580)
RESULTS = 3  # one in so many has results
FIRST = 90_000_000


def generate(folder: Path, size_mb: int, judged: int = JUDGED) -> list[str]:
    """Five zips of `size_mb` together (unpacked); the judged trials."""
    draw, written, number, names = random.Random(1), 0, 0, []
    words = [f"{a}{b}" for a in ("trial", "dose", "cell", "blood", "age", "renal") for b in ("", "s", "-free", " of", " and", " at least 18")]
    for part in range(1, 6):
        with zipfile.ZipFile(folder / f"ClinicalTrials.part{part}.zip", "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
            while written < size_mb * 1_000_000 * part / 5:
                nct = f"NCT{FIRST + number}"
                body = record(draw, words, nct, results=number % RESULTS == 0)
                archive.writestr(f"ClinicalTrials.part{part}/{nct[:7]}xxxx/{nct}.xml", body)
                names += [nct] * (number % judged == 0)
                written, number = written + len(body), number + 1
    return names


def record(draw: random.Random, words: list[str], nct: str, *, results: bool) -> str:
    def text(n: int) -> str:
        return "\n          ".join(" ".join(draw.choices(words, k=12)) for _ in range(n))

    before = "".join(f"<arm_group><description><textblock>{text(3)}</textblock></description></arm_group>" for _ in range(6))
    after = "".join(f"<location><facility><name>{text(1)}</name></facility></location>" for _ in range(20))
    found = f"<clinical_results><textblock>{text(900)}</textblock></clinical_results>" if results else ""
    criteria = f"Inclusion Criteria:\n\n - {text(8)}\n\nExclusion Criteria:\n\n - {text(8)}"
    return (
        f'<?xml version="1.0" encoding="UTF-8"?>\n<clinical_study><id_info><nct_id>{nct}</nct_id></id_info><brief_title>x</brief_title>{before}'
        f"<condition>gout</condition><eligibility><criteria><textblock>{criteria}</textblock></criteria></eligibility>{after}{found}</clinical_study>"
    )


def bare(folder: Path, judged: set[str]) -> int:
    """lxml parses the same members and looks at one element."""
    found = 0
    for path in sorted(folder.glob("*.zip")):
        with zipfile.ZipFile(path) as archive:
            for member in archive.infolist():
                if member.filename[-15:-4] in judged:
                    root = etree.fromstring(archive.read(member))
                    found += root.find("eligibility/criteria/textblock") is not None
    return found


def ours(folder: Path, judged: set[str], workers: int) -> int:
    return len(trials.read(sorted(folder.glob("*.zip")), judged, workers).trials)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mb", type=int, default=1000, help="size of the generated XML (MB)")
    parser.add_argument("--judged", type=int, default=JUDGED, help="one trial in so many is judged")
    asked = parser.parse_args()
    size = asked.mb
    cores = len(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        judged = set(generate(folder, size, asked.judged))
        sides = {
            "bare lxml": lambda: bare(folder, judged),
            "ours, one core": lambda: ours(folder, judged, 1),
            f"ours, {cores} cores": lambda: ours(folder, judged, cores),
        }
        seconds: dict[str, list[float]] = {side: [] for side in sides}
        for _ in range(ROUNDS):
            for side, run in sides.items():
                began = time.perf_counter()
                assert run() == len(judged)
                seconds[side].append(time.perf_counter() - began)
    print(f"{len(judged)} judged trials in {size} MB of XML; medians of {ROUNDS} rounds")
    base = statistics.median(seconds["bare lxml"])
    for side, found in seconds.items():
        print(f"  {side:<16}{statistics.median(found):8.2f} s   {statistics.median(found) / base:5.2f} times bare lxml")


if __name__ == "__main__":
    main()
