"""A point that can be measured, and how points are spread: coarse first, then finer."""

from collections.abc import Callable
from dataclasses import dataclass

from kvplan.validate.calibration.measure.timing import Timing

LEVELS = 4
"""Grids from coarse (0) to fine; each holds the points of the one before."""


@dataclass(frozen=True)
class Task:
    """One point of one quantity."""

    quantity: str
    parameters: dict[str, str | int]
    """In the order of the quantity's columns (`kvplan.validate.calibration.measure.record.COLUMNS`)."""
    work: float
    """Multiplications or bytes: what its time grows with, to foresee how long a larger point takes."""
    like: str
    """The quantity by whose points its time is foreseen."""
    measure: Callable[[float], Timing]
    """Measures it in about so many seconds."""


def grid(low: int, high: int, level: int) -> list[int]:
    """2^level + 1 whole numbers from `low` to `high`, evenly spread by their logarithm.

    >>> grid(16, 4096, 0), grid(16, 4096, 2)
    ([16, 4096], [16, 64, 256, 1024, 4096])
    """
    parts = 2**level
    return sorted({round(low * (high / low) ** (part / parts)) for part in range(parts + 1)})
