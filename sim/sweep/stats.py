"""Means over replications, and which variants can be told apart.

Replication r of every variant has the same seed, so variants are compared in pairs: Student's t on the differences (n − 1 degrees of
freedom) and, over all pairs, Holm's step-down correction at 5 %. Latencies, costs and throughputs have heavy tails and no fixed scale:
they are compared by the logarithm of their ratio. Intervals are 95 % and not corrected. Left out: sequential stopping, and anything that
does not hold for about normal differences (of the logarithms).

Sources: Student 1908; Holm, "A simple sequentially rejective multiple test procedure", Scand. J. Statist. 6, 1979; common random numbers:
Law, "Simulation Modeling and Analysis", section 11.2.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

LEVEL = 0.05


@dataclass(frozen=True)
class Estimate:
    """A mean over replications."""

    mean: float
    half_width: float | None
    """Of the 95 % interval; None with one replication."""
    p: float | None
    """Two-sided, that the mean is 0; None with one replication."""


def estimate(values: Sequence[float]) -> Estimate:
    """Mean with its t-interval and t-test against 0. Values that are all the same give a half-width of 0."""
    count, mean = len(values), float(np.mean(values))
    if count < 2:
        return Estimate(mean, None, None)
    if min(values) == max(values):
        return Estimate(values[0], 0.0, float(values[0] == 0))
    from scipy import special  # takes a moment to import

    error = float(np.std(values, ddof=1)) / math.sqrt(count)
    quantile = float(special.stdtrit(count - 1, 1 - LEVEL / 2))
    return Estimate(mean, quantile * error, 2 * float(special.stdtr(count - 1, -abs(mean) / error)))


def paired(ours: Sequence[float], theirs: Sequence[float]) -> Estimate:
    """Of the differences ours − theirs, replication by replication. Raises ValueError when there are not as many of both."""
    return estimate([one - other for one, other in zip(ours, theirs, strict=True)])


@dataclass(frozen=True)
class Ratio:
    """How many times another value one is: the geometric mean over replications."""

    factor: float
    low: float | None
    """Ends of the 95 % interval; None with one replication."""
    high: float | None
    p: float | None
    """Two-sided, that the factor is 1; None with one replication."""

    @property
    def ends(self) -> tuple[float, float] | None:
        """Both; None with one replication."""
        return None if self.low is None or self.high is None else (self.low, self.high)

    def inverse(self) -> "Ratio":
        """Of the other to the one."""
        if self.ends is None:
            return Ratio(1 / self.factor, None, None, None)
        low, high = self.ends
        return Ratio(1 / self.factor, 1 / high, 1 / low, self.p)


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> Ratio | None:
    """Of ours to theirs, replication by replication: a paired t-test on the logarithms. None where a value is not above 0. Raises
    ValueError when there are not as many of both."""
    together = list(zip(ours, theirs, strict=True))
    if not all(one > 0 and other > 0 for one, other in together):
        return None
    found = estimate([math.log(one / other) for one, other in together])
    if found.half_width is None:
        return Ratio(math.exp(found.mean), None, None, None)
    factor, low, high = (math.exp(found.mean + side * found.half_width) for side in (0, -1, 1))
    return Ratio(factor, low, high, found.p)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's adjusted p-values, in the order given: max over the k smallest of (m − k + 1) · p, at most 1.

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    adjusted, largest = [0.0] * len(p_values), 0.0
    for rank, place in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[place]))
        adjusted[place] = largest
    return adjusted


@dataclass(frozen=True)
class Pair:
    """Two variants by their labels; the difference is first − second, the ratio first / second."""

    first: str
    second: str
    difference: Estimate
    ratio: Ratio | None
    """None where differences are what counts, or where a value is not above 0."""
    p_holm: float | None

    @property
    def apart(self) -> bool:
        """Whether the difference is more than chance. With one replication nobody knows, so False."""
        return self.p_holm is not None and self.p_holm < LEVEL

    @property
    def identical(self) -> bool:
        """Whether every replication gave the same."""
        return self.difference.mean == 0 and not self.difference.half_width


def pairs(values: dict[str, Sequence[float]], relative: bool = False) -> list[Pair]:
    """All pairs of variants, in the order given, with Holm over all of them; `relative`: judged by their ratio where there is one."""
    labels = list(values)
    names = [(one, other) for place, one in enumerate(labels) for other in labels[place + 1 :]]
    differences = [paired(values[one], values[other]) for one, other in names]
    ratios = [ratio(values[one], values[other]) if relative else None for one, other in names]
    judged = [(by or difference).p for difference, by in zip(differences, ratios, strict=True)]
    known = [p for p in judged if p is not None]
    adjusted = holm(known) if len(known) == len(judged) else [None] * len(judged)
    return [Pair(*name, difference, by, p) for name, difference, by, p in zip(names, differences, ratios, adjusted, strict=True)]


class Table:
    """All pairs, looked up in either order."""

    def __init__(self, found: Sequence[Pair]) -> None:
        self._pairs = {(pair.first, pair.second): pair for pair in found}

    def pair(self, first: str, second: str) -> Pair:
        """Their pair, with the difference first − second."""
        if (first, second) in self._pairs:
            return self._pairs[first, second]
        pair = self._pairs[second, first]
        difference = Estimate(-pair.difference.mean, pair.difference.half_width, pair.difference.p)
        return Pair(first, second, difference, pair.ratio and pair.ratio.inverse(), pair.p_holm)


def twins(labels: Sequence[str], table: Table) -> list[list[str]]:
    """Groups of variants that are identical in every replication, in the order given."""
    found: list[list[str]] = []
    for label in labels:
        group = next((group for group in found if table.pair(group[0], label).identical), None)
        if group is None:
            found.append([label])
        else:
            group.append(label)
    return found


def groups(labels: Sequence[str], table: Table) -> list[list[str]]:
    """Neighbours, in the order given (best first), such that no two in a group can be told apart."""
    found: list[list[str]] = []
    for label in labels:
        if found and not any(table.pair(other, label).apart for other in found[-1]):
            found[-1].append(label)
        else:
            found.append([label])
    return found
