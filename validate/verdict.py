"""Figures of the simulator beside those that theory expects, each with an interval and a verdict."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from kvplan.validate.show import show

LEVEL = 0.95


@dataclass(frozen=True)
class Finding:
    """One figure. It holds when the expected one is within `margin` of the simulated one."""

    quantity: str
    expected: float
    source: str
    simulated: float
    margin: float
    """Half the width of a confidence interval, or what rounding or an approximation may do; 0 where the two must be the same."""

    @property
    def holds(self) -> bool:
        """Whether the expected figure lies within the interval."""
        return abs(self.simulated - self.expected) <= self.margin

    @property
    def cells(self) -> list[str]:
        """The finding as a row of the table."""
        interval = f"± {self.margin:.2g}" if self.margin else "exact"
        figures = f"{self.expected:.6g}", self.source, f"{self.simulated:.6g}"
        return [self.quantity, *figures, interval, "holds" if self.holds else "FAILS"]


def averaged(quantity: str, expected: float, source: str, values: Sequence[float], figures: int = 1, bias: float = 0.0) -> Finding:
    """The mean over independent replications, with Student's t-interval.

    `figures`: how many such figures a table has; the intervals hold for all of them together at 95 % (Bonferroni), since of twenty that
    hold at 95 % each, one must be expected to fail. `bias`: how far off the expectation itself may be, when it is an approximation.
    """
    from scipy import special  # takes a moment to import

    quantile = float(special.stdtrit(len(values) - 1, 1 - (1 - LEVEL) / 2 / figures))
    margin = quantile * float(np.std(values, ddof=1)) / math.sqrt(len(values))
    return Finding(quantity, expected, source, float(np.mean(values)), margin + bias)


def report(title: str, findings: Sequence[Finding]) -> list[str]:
    """Prints the findings; returns those that do not hold, in words."""
    show(title, ["quantity", "expected", "source", "simulated", "interval", "verdict"], [finding.cells for finding in findings])
    return [
        f"{title}: {finding.quantity}: {finding.simulated:.6g}, not {finding.expected:.6g}" for finding in findings if not finding.holds
    ]


class Failed(Exception):
    """A check has failed; the message lists how."""


def fail(failures: Sequence[str], what: str = "does not hold") -> None:
    """Raises Failed with the failures, when there are any."""
    if failures:
        raise Failed(f"{what}:\n" + "\n".join(failures))
