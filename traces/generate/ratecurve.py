"""A periodic, piecewise linear rate of arrivals, and what follows from it for an inhomogeneous Poisson process."""

from dataclasses import dataclass
from itertools import accumulate

import numpy as np


@dataclass(frozen=True)
class RateCurve:
    """The rate is linear between the points and starts over after the last of them. It is nowhere negative, and positive somewhere."""

    times_s: np.ndarray
    """Ascending from 0; the last is the period."""
    rates_per_s: np.ndarray
    """At these times. The last may differ from the first: a jump."""

    @property
    def period_s(self) -> float:
        """After which the rate starts over."""
        return float(self.times_s[-1])

    @property
    def expected(self) -> np.ndarray:
        """Expected arrivals from 0 to each of the times: the integral of the rate."""
        return np.append(0.0, np.cumsum(np.diff(self.times_s) * (self.rates_per_s[1:] + self.rates_per_s[:-1]) / 2))

    @property
    def mean_per_s(self) -> float:
        """Mean rate over a period."""
        return float(self.expected[-1]) / self.period_s

    def times_at(self, expected: np.ndarray) -> np.ndarray:
        """When the expected number of arrivals since 0 reaches each of `expected` (ascending), in seconds: the exact inverse.

        Within a segment that starts with the rate `low`, the number is low·t + slope·t²/2, solved for t without cancellation.
        """
        before = self.expected
        periods, rest = np.divmod(expected, before[-1])
        left = np.searchsorted(before, rest, side="right") - 1
        rest = rest - before[left]
        low, rise = self.rates_per_s[left], np.diff(self.rates_per_s)[left]
        rate_then = np.sqrt(np.maximum(low**2 + 2 * rise * (rest / np.diff(self.times_s)[left]), 0.0))  # rounding can pass 0
        within = 2 * rest / np.maximum(low + rate_then, np.finfo(float).tiny)
        return np.maximum.accumulate(periods * self.period_s + self.times_s[left] + within)

    def mean_wait_s(self, steps: int = 20_000) -> float:
        """Mean time from a random moment to the next arrival.

        The wait R(t) = ∫ exp(−∫ rate) obeys R' = rate·R − 1. It is solved backwards over a period, on a grid of at least `steps`
        steps in which the rate counts as constant, and closed by R(0) = R(period). Error below 1e-4, but 2e-3 where a daily rate of
        10,000 per second falls to 0.
        """
        segments = len(self.times_s) - 1
        place = np.linspace(0, segments, segments * -(-steps // segments) + 1)
        knots = np.arange(segments + 1)
        fine = RateCurve(np.interp(place, knots, self.times_s), np.interp(place, knots, self.rates_per_s))
        width, mass = np.diff(fine.times_s), np.diff(fine.expected)
        within_step = width * np.where(mass > 0, -np.expm1(-mass) / np.where(mass > 0, mass, 1.0), 1.0)
        backwards = zip(within_step[::-1].tolist(), np.exp(-mass[::-1]).tolist(), strict=True)
        first = np.array(list(accumulate(backwards, lambda wait, step: step[0] + step[1] * wait, initial=0.0)))[::-1]
        over_the_end = first[0] / -np.expm1(-fine.expected[-1])
        wait = first + np.exp(fine.expected - fine.expected[-1]) * over_the_end
        return float(width @ (wait[1:] + wait[:-1]) / 2) / self.period_s
