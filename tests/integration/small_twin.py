"""A few rows of the synthetic twin: real data of the real layout that a test trains on in seconds."""

import csv
from pathlib import Path

from ehrmind_k8s.tasks import registry


def write(root: Path, train: int, test: int) -> Path:
    """`train` and `test` rows below `root`; returns the folder for `data.uri`. A tenth of the train rows becomes validation."""
    twin, small = root / "twin", root / "small"
    registry.get("medcalc").synthesize(twin, 1, "quickstart")
    small.mkdir()
    for name, count in (("train.csv", train), ("test.csv", test)):
        with (twin / name).open(newline="", encoding="utf-8") as source:
            rows = list(csv.reader(source))[: count + 1]
        with (small / name).open("w", newline="", encoding="utf-8") as target:
            csv.writer(target).writerows(rows)
    return small
