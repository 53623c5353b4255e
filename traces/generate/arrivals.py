"""Arrival processes: when sessions start. Each states mean and variance of its spacing, and a test holds its samples to them.

Left out: arrivals that depend on one another over more than one spacing, other than through the time of day; that depend on the
server's load; that come in groups.
"""

from typing import Annotated, Literal

import numpy as np
from pydantic import AfterValidator, Field

from kvplan.traces.generate.ratecurve import RateCurve
from kvplan.traces.generate.settings import NotNegative, Points, Positive, Rate, Settings
from kvplan.traces.rescale import repeated
from kvplan.traces.workload import TraceError


class Poisson(Settings):
    """Arrivals with independent, exponentially distributed spacing."""

    process: Literal["poisson"] = "poisson"
    rate_per_s: Rate

    def sample(self, count: int, rng: np.random.Generator) -> np.ndarray:
        """Ascending arrival times of `count` sessions, in seconds."""
        return np.cumsum(rng.exponential(1 / self.rate_per_s, count))

    @property
    def mean_s(self) -> float:
        """Mean spacing."""
        return 1 / self.rate_per_s

    @property
    def variance_s2(self) -> float:
        """Variance of the spacing."""
        return 1 / self.rate_per_s**2


class Gamma(Settings):
    """Arrivals with independent, gamma-distributed spacing: bursty above a coefficient of variation of 1, regular below.

    Time 0 is an arrival that is not counted.
    Source: Wang et al., BurstGPT, KDD 2025, fits gamma distributions to the bursts of a GPT service.
    """

    process: Literal["gamma"] = "gamma"
    rate_per_s: Rate
    cv: Annotated[float, Field(ge=0.01, le=100, allow_inf_nan=False)]
    """Standard deviation of the spacing over its mean."""

    def sample(self, count: int, rng: np.random.Generator) -> np.ndarray:
        """Ascending arrival times of `count` sessions, in seconds."""
        return np.cumsum(rng.gamma(self.cv**-2, self.cv**2 / self.rate_per_s, count))

    @property
    def mean_s(self) -> float:
        """Mean spacing."""
        return 1 / self.rate_per_s

    @property
    def variance_s2(self) -> float:
        """Variance of the spacing: (cv · mean)²."""
        return (self.cv / self.rate_per_s) ** 2


class _Inhomogeneous(Settings):
    """Poisson arrivals whose rate follows a periodic curve."""

    @property
    def curve(self) -> RateCurve:
        """The rate over one period."""
        raise NotImplementedError

    def sample(self, count: int, rng: np.random.Generator) -> np.ndarray:
        """Ascending arrival times of `count` sessions, in seconds: unit exponential spacing in expected arrivals, taken back to time.

        Source: Çinlar, Introduction to Stochastic Processes, 1975, section 4.7.
        """
        return self.curve.times_at(np.cumsum(rng.exponential(1.0, count)))

    @property
    def mean_s(self) -> float:
        """Mean spacing: 1 / mean rate."""
        return 1 / self.curve.mean_per_s

    @property
    def variance_s2(self) -> float:
        """Variance of the spacing S, by E[S²] = 2 · E[S] · mean wait from a random moment to the next arrival.

        Source: Palm's inversion formula; Baccelli and Brémaud, Elements of Queueing Theory, 2003, section 1.2.
        """
        return self.mean_s * (2 * self.curve.mean_wait_s() - self.mean_s)


class Diurnal(_Inhomogeneous):
    """Poisson arrivals whose rate swings once a day: rate · (1 + amplitude · cos(2π·(t − peak)/period)), in 288 linear pieces."""

    process: Literal["diurnal"] = "diurnal"
    rate_per_s: Rate
    """Mean over a period."""
    amplitude: Annotated[float, Field(ge=0, le=1)]
    """Of the swing, as a share of the mean rate; with 1 the rate falls to 0."""
    period_s: Positive = 86_400.0
    peak_s: NotNegative = 0.0
    """Time of a peak after the start."""

    @property
    def curve(self) -> RateCurve:
        """The rate over one period; the linear pieces miss the cosine by 0.006 % of the mean rate at most, and keep its mean."""
        phase = np.linspace(0, 2 * np.pi, 289)
        swing = np.cos(phase - 2 * np.pi * self.peak_s / self.period_s)
        return RateCurve(phase / (2 * np.pi) * self.period_s, self.rate_per_s * (1 + self.amplitude * swing))


def _rate_points(points: Points) -> Points:
    times, rates = np.array(points).T
    if times[0] != 0 or np.any(np.diff(times) <= 0):
        raise ValueError("times must ascend from 0; a point is [t_s, rate_per_s]")
    if not RateCurve(times, rates).mean_per_s >= 1e-9:
        raise ValueError("the mean rate is below 1e-9 per second; a point is [t_s, rate_per_s]")
    return points


class Curve(_Inhomogeneous):
    """Poisson arrivals whose rate is linear from point to point, and starts over after the last of them."""

    process: Literal["curve"] = "curve"
    points: Annotated[Points, AfterValidator(_rate_points)]
    """`[[t_s, rate_per_s], …]`, times ascending from 0."""

    @property
    def curve(self) -> RateCurve:
        """The rate over one period."""
        return RateCurve(*np.array(self.points, float).T)


class Replayed(Settings):
    """Sessions start when those of a recorded trace did, counted from its first; one recorded span follows the other."""

    process: Literal["replayed"] = "replayed"
    trace: Annotated[str, Field(min_length=1)]
    """The trace file."""

    def sample_from(self, starts_s: np.ndarray, count: int) -> np.ndarray:
        """Ascending arrival times of `count` sessions, in seconds, from the recorded starts, in any order.

        A span is the time from the first start to the last, and one mean spacing. Raises TraceError when the starts have no spacing.
        """
        if len(starts_s) < 2 or not np.max(starts_s) > np.min(starts_s):
            raise TraceError(f"{self.trace}: no arrivals to replay: the start times of its sessions are unknown, or all the same")
        return repeated(starts_s, count)


def at_rate(arrival: "Arrival", rate_per_s: float) -> "Arrival":
    """The same process with another mean rate. A replayed one has its own, and stays."""
    if isinstance(arrival, Curve):
        factor = rate_per_s / arrival.curve.mean_per_s
        return arrival.model_copy(update={"points": tuple((time, factor * rate) for time, rate in arrival.points)})
    return arrival if isinstance(arrival, Replayed) else arrival.model_copy(update={"rate_per_s": rate_per_s})


Arrival = Annotated[Poisson | Gamma | Diurnal | Curve | Replayed, Field(discriminator="process")]
"""Any arrival process."""
