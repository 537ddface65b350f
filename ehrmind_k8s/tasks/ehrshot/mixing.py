"""Numbers that look drawn by lot, from ids that may all be multiples of something."""

import numpy as np


def mixed(numbers: np.ndarray) -> np.ndarray:
    """Whole numbers (uint64) scattered over all 64 bits, by the finalizer of splitmix64 (Steele, Lea and Flood 2014)."""
    z = numbers.astype(np.uint64) + np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    scattered: np.ndarray = z ^ (z >> np.uint64(31))
    return scattered
