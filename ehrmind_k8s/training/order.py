"""Which row comes when: a pure function of seed and position, so a run continued at step k reads what it would have read.

Trainer's own shuffle cannot promise that: its sampler is seeded once, and a resume in the second epoch replays the order of the first.
"""

import random
from collections.abc import Iterator


def positions(seed: int, rows: int, count: int) -> Iterator[tuple[int, int]]:
    """`count` pairs (epoch, row index) from position 0 on: each epoch is its own permutation of all `rows`.

    >>> list(positions(seed=1, rows=2, count=3))
    [(0, 1), (0, 0), (1, 0)]
    """
    for epoch in range(-(-count // rows)):
        order = list(range(rows))
        random.Random(f"{seed}/{epoch}").shuffle(order)
        for index in order[: count - epoch * rows]:
            yield epoch, index
