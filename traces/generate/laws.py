"""Distributions of plain numbers. Each states its own mean and variance, and a test holds its samples to them.

As settings they are those of lengths (tokens of a message, turns of a session), whose place in the configuration names the unit.
Think times (`distributions.py`) are these laws with settings in seconds.

Left out: any dependence of one value on another.
"""

import math
from typing import Annotated, Literal, Self

import numpy as np
from pydantic import AfterValidator, Field, model_validator

from kvplan.traces.generate import tables
from kvplan.traces.generate.settings import NotNegative, Points, Positive, Settings

MOST = 1_000_000
"""A value above this is no number of tokens or turns: the default cap of a law whose tail is heavy."""
Sigma = Annotated[float, Field(ge=0, le=10, allow_inf_nan=False)]
"""Standard deviation of a logarithm."""


class Constant(Settings):
    """The same value always."""

    distribution: Literal["constant"] = "constant"
    value: NotNegative

    def sample(self, count: int, rng: np.random.Generator) -> np.ndarray:
        """`count` values."""
        return np.full(count, float(self.value))

    @property
    def mean(self) -> float:
        """Mean."""
        return self.value

    @property
    def variance(self) -> float:
        """Variance."""
        return 0.0


class Exponential(Settings):
    """Memoryless; given by its mean."""

    distribution: Literal["exponential"] = "exponential"
    mean: Positive

    def sample(self, count: int, rng: np.random.Generator) -> np.ndarray:
        """`count` values."""
        return rng.exponential(self.mean, count)

    @property
    def variance(self) -> float:
        """Variance: mean²."""
        return self.mean**2


class LogNormal(Settings):
    """The logarithm is normal: many small values, a few very large ones; those above `max` are set to it."""

    distribution: Literal["lognormal"] = "lognormal"
    median: Positive
    sigma: Sigma
    max: Positive | None = None

    def sample(self, count: int, rng: np.random.Generator) -> np.ndarray:
        """`count` values."""
        return np.minimum(rng.lognormal(math.log(self.median), self.sigma, count), math.inf if self.max is None else self.max)

    @property
    def mean(self) -> float:
        """Mean: median · exp(sigma²/2), less what is above `max`."""
        return self._moment(1)

    @property
    def variance(self) -> float:
        """Variance: mean² · (exp(sigma²) − 1), less what is above `max`."""
        return self.mean**2 * math.expm1(self.sigma**2) if self.max is None else self._moment(2) - self.mean**2

    def _moment(self, power: int) -> float:
        """E[min(X, max)^power]; P(X > max) and the share of X^power below `max` are normal distribution functions."""
        whole = self.median**power * math.exp((power * self.sigma) ** 2 / 2)
        if self.max is None:
            return whole
        above = math.log(self.max / self.median) / max(self.sigma, 1e-9)
        return whole * _normal_cdf(above - power * self.sigma) + self.max**power * _normal_cdf(-above)


def _normal_cdf(value: float) -> float:
    return math.erfc(-value / math.sqrt(2)) / 2


class Uniform(Settings):
    """Any value from `min` to `max`, one as likely as the other."""

    distribution: Literal["uniform"] = "uniform"
    min: NotNegative
    max: NotNegative

    @model_validator(mode="after")
    def _ascend(self) -> Self:
        if self.max < self.min:
            raise ValueError(f"max {self.max:g} is below min {self.min:g}")
        return self

    def sample(self, count: int, rng: np.random.Generator) -> np.ndarray:
        """`count` values."""
        return rng.uniform(self.min, self.max, count)

    @property
    def mean(self) -> float:
        """Mean: the middle."""
        return (self.min + self.max) / 2

    @property
    def variance(self) -> float:
        """Variance: (max − min)²/12."""
        return (self.max - self.min) ** 2 / 12


class _Counted(Settings):
    """Whole numbers whose chances to be at least 1, 2, …, `max` are known; those above `max` are set to it."""

    @property
    def tail(self) -> np.ndarray:
        """P(X ≥ k) for k = 1, 2, …, max."""
        raise NotImplementedError

    @property
    def mean(self) -> float:
        """Mean: Σ P(X ≥ k)."""
        return float(self.tail.sum())

    @property
    def variance(self) -> float:
        """Variance: Σ (2k − 1) · P(X ≥ k) less the mean's square."""
        tail = self.tail
        return float((2 * np.arange(len(tail)) + 1) @ tail - tail.sum() ** 2)


class Zipf(_Counted):
    """1, 2, 3, … with chances that fall as a power, 1/kᵃ; those above `max` are set to it."""

    distribution: Literal["zipf"] = "zipf"
    alpha: Annotated[float, Field(ge=1.01, le=100, allow_inf_nan=False)]
    max: Annotated[int, Field(ge=1, le=MOST)] = MOST

    @property
    def tail(self) -> np.ndarray:
        """P(X ≥ k) = ζ(alpha, k) / ζ(alpha), by Hurwitz' zeta function."""
        from scipy.special import zeta

        return zeta(self.alpha, np.arange(1.0, self.max + 1)) / zeta(self.alpha, 1.0)

    def sample(self, count: int, rng: np.random.Generator) -> np.ndarray:
        """`count` values: as many as there are k with P(X ≥ k) above a uniform number."""
        return np.searchsorted(-self.tail, -rng.random(count), side="left").astype(float)


class Poisson(_Counted):
    """How often something happens that happens `mean` times on average; numbers above `max` are set to it."""

    distribution: Literal["poisson"] = "poisson"
    rate: Annotated[float, Field(gt=0, le=MOST, allow_inf_nan=False)]
    """Mean, but for what is above `max`."""
    max: Annotated[int, Field(ge=1, le=2 * MOST)] = 2 * MOST

    @property
    def tail(self) -> np.ndarray:
        """P(X ≥ k), the regularised incomplete gamma function."""
        from scipy.special import gammainc

        most = min(self.max, math.ceil(self.rate + 40 * math.sqrt(self.rate) + 100))  # beyond, chances are below 1e-100
        return gammainc(np.arange(1.0, most + 1), self.rate)

    def sample(self, count: int, rng: np.random.Generator) -> np.ndarray:
        """`count` values."""
        return np.minimum(rng.poisson(self.rate, count), self.max).astype(float)


def _known_table(name: str) -> str:
    if name not in tables.known():
        raise ValueError(f"unknown table {name!r}: known are {', '.join(tables.known())}")
    return name


def _quantile_points(points: Points) -> Points:
    cdf, values = np.array(points).T
    if cdf[0] != 0 or cdf[-1] != 1:
        raise ValueError(f"the shares run from {cdf[0]:g} to {cdf[-1]:g}, not from 0 to 1; a point is [share, value]")
    if np.any(np.diff(cdf) < 0) or np.any(np.diff(values) < 0):
        raise ValueError("shares and values must ascend; a point is [share, value]")
    return points


class Empirical(Settings):
    """Uniform between neighbouring points of a quantile table: the quantile function is linear from point to point.

    Two points with the same share are a jump, two with the same value an atom.
    """

    distribution: Literal["empirical"] = "empirical"
    table: Annotated[str, AfterValidator(_known_table)] | None = None
    """Name of a packaged table."""
    points: Annotated[Points, AfterValidator(_quantile_points)] | None = None
    """A table of one's own, `[[share, value], …]`: the share that is at most this value, from 0 to 1."""

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if (self.table is None) == (self.points is None):
            raise ValueError("give either `table` or `points`")
        return self

    @property
    def quantiles(self) -> tables.Table:
        """(cdf, value), both ascending."""
        return tuple(np.array(self.points).T) if self.table is None else tables.known()[self.table]

    def sample(self, count: int, rng: np.random.Generator) -> np.ndarray:
        """`count` values."""
        return np.interp(rng.random(count), *self.quantiles)

    @property
    def mean(self) -> float:
        """Mean: the sum over segments of their share times their middle."""
        cdf, values = self.quantiles
        return float(np.diff(cdf) @ (values[1:] + values[:-1]) / 2)

    @property
    def variance(self) -> float:
        """Variance: the sum over segments of their share times (a² + a·b + b²)/3, where a and b are their ends less the mean."""
        cdf, values = self.quantiles
        from_mean = values - self.mean
        low, high = from_mean[:-1], from_mean[1:]
        return float(np.diff(cdf) @ (low**2 + low * high + high**2) / 3)


Law = Constant | Exponential | LogNormal | Uniform | Zipf | Poisson | Empirical
Length = Annotated[Law, Field(discriminator="distribution")]
"""Any distribution of tokens per message, or of turns per session."""
