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
    """The logarithm is normal: many small values, a few very large ones."""

    distribution: Literal["lognormal"] = "lognormal"
    median: Positive
    sigma: Sigma

    def sample(self, count: int, rng: np.random.Generator) -> np.ndarray:
        """`count` values."""
        return rng.lognormal(math.log(self.median), self.sigma, count)

    @property
    def mean(self) -> float:
        """Mean: median · exp(sigma²/2)."""
        return self.median * math.exp(self.sigma**2 / 2)

    @property
    def variance(self) -> float:
        """Variance: mean² · (exp(sigma²) − 1)."""
        return self.mean**2 * math.expm1(self.sigma**2)


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


Law = Constant | Exponential | LogNormal | Empirical
Length = Annotated[Law, Field(discriminator="distribution")]
"""Any distribution of tokens per message, or of turns per session."""
