"""Think times: the laws of `laws.py`, with settings and moments in seconds."""

from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from kvplan.traces.generate import laws
from kvplan.traces.generate.settings import NotNegative, Positive, Settings


class _ThinkTime(Settings):
    @property
    def law(self) -> laws.Law:
        """The same distribution, of plain numbers."""
        raise NotImplementedError

    def sample(self, count: int, rng: np.random.Generator) -> np.ndarray:
        """`count` think times in seconds."""
        return self.law.sample(count, rng)

    @property
    def variance_s2(self) -> float:
        """Variance."""
        return self.law.variance


class Constant(_ThinkTime):
    """The same think time always; 0 for the paper's runs."""

    distribution: Literal["constant"] = "constant"
    value_s: NotNegative

    @property
    def law(self) -> laws.Constant:
        """The same distribution, of plain numbers."""
        return laws.Constant(value=self.value_s)

    @property
    def mean_s(self) -> float:
        """Mean."""
        return self.law.mean


class Exponential(_ThinkTime):
    """Memoryless think time."""

    distribution: Literal["exponential"] = "exponential"
    mean_s: Positive

    @property
    def law(self) -> laws.Exponential:
        """The same distribution, of plain numbers."""
        return laws.Exponential(mean=self.mean_s)


class LogNormal(_ThinkTime):
    """Think time whose logarithm is normal: many short gaps, a few very long ones."""

    distribution: Literal["lognormal"] = "lognormal"
    median_s: Positive
    sigma: laws.Sigma

    @property
    def law(self) -> laws.LogNormal:
        """The same distribution, of plain numbers."""
        return laws.LogNormal(median=self.median_s, sigma=self.sigma)

    @property
    def mean_s(self) -> float:
        """Mean."""
        return self.law.mean


class Empirical(laws.Empirical):
    """Think times from a table of quantiles, in seconds: a packaged `table`, or `points` `[[share, seconds], …]`."""

    @property
    def mean_s(self) -> float:
        """Mean."""
        return self.mean

    @property
    def variance_s2(self) -> float:
        """Variance."""
        return self.variance


ThinkTime = Annotated[Constant | Exponential | LogNormal | Empirical, Field(discriminator="distribution")]
"""Any think-time distribution."""
