"""Arrival processes and think times. Each states its own mean and variance, and a test holds its samples to them."""

import math
from typing import Annotated, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

_Positive = Annotated[float, Field(gt=0, le=1e9, allow_inf_nan=False)]
_NotNegative = Annotated[float, Field(ge=0, le=1e9, allow_inf_nan=False)]


class _Distribution(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Poisson(_Distribution):
    """Arrivals with independent, exponentially distributed spacing."""

    process: Literal["poisson"] = "poisson"
    rate_per_s: Annotated[float, Field(ge=1e-9, le=1e9)]

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


class Constant(_Distribution):
    """The same think time always; 0 for the paper's runs."""

    distribution: Literal["constant"]
    value_s: _NotNegative

    def sample(self, count: int, rng: np.random.Generator) -> np.ndarray:
        """`count` think times in seconds."""
        return np.full(count, float(self.value_s))

    @property
    def mean_s(self) -> float:
        """Mean."""
        return self.value_s

    @property
    def variance_s2(self) -> float:
        """Variance."""
        return 0.0


class Exponential(_Distribution):
    """Memoryless think time."""

    distribution: Literal["exponential"]
    mean_s: _Positive

    def sample(self, count: int, rng: np.random.Generator) -> np.ndarray:
        """`count` think times in seconds."""
        return rng.exponential(self.mean_s, count)

    @property
    def variance_s2(self) -> float:
        """Variance."""
        return self.mean_s**2


class LogNormal(_Distribution):
    """Think time whose logarithm is normal: many short gaps, a few very long ones."""

    distribution: Literal["lognormal"] = "lognormal"
    median_s: _Positive
    sigma: Annotated[float, Field(ge=0, le=10, allow_inf_nan=False)]
    """Standard deviation of the logarithm."""

    def sample(self, count: int, rng: np.random.Generator) -> np.ndarray:
        """`count` think times in seconds."""
        return rng.lognormal(math.log(self.median_s), self.sigma, count)

    @property
    def mean_s(self) -> float:
        """Mean: median · exp(sigma²/2)."""
        return self.median_s * math.exp(self.sigma**2 / 2)

    @property
    def variance_s2(self) -> float:
        """Variance: mean² · (exp(sigma²) − 1)."""
        return self.mean_s**2 * math.expm1(self.sigma**2)


Arrival = Poisson
"""Any arrival process."""
ThinkTime = Annotated[Constant | Exponential | LogNormal, Field(discriminator="distribution")]
"""Any think-time distribution."""
