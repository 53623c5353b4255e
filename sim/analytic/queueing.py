"""How full the batch is, and how long the GPUs are busy, by the rate at which turns come.

The GPUs are a queue whose service depends on how many jobs run: n jobs share a decode step, and each job in its time waits for the prefills
of those that join. With turns that come at random, n is a birth-death chain, whose stationary distribution depends on the mean job only
(processor sharing with state-dependent rates: Cohen, Acta Informatica 12, 1979). Beyond the largest batch jobs wait and the rate stays.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

_LONGEST = 2000
"""Jobs, running and waiting, that are looked at."""


@dataclass(frozen=True)
class Server:
    """A replica and its mean job."""

    alone_s: float
    """Seconds of a job in which the GPUs work for it alone: prefill, and waiting for its KV."""
    steps: float
    """Decode steps of a job."""
    step_s: Callable[[float], float]
    """Seconds of a decode step of so many jobs."""
    most: int
    """Jobs in a batch at most."""

    @property
    def most_per_s(self) -> float:
        """Turns/s of full batches."""
        return float(self._ends_per_s[self.most - 1])

    def busy(self, turns_per_s: np.ndarray) -> np.ndarray:
        """Shares of the time in which any job is there, per rate."""
        return 1 - self._shares(turns_per_s)[0]

    def jobs(self, turns_per_s: float) -> float:
        """Jobs there in the mean, running and waiting."""
        shares = self._shares(np.array([turns_per_s]))[:, 0]
        return float(shares @ np.arange(len(shares)))

    def running(self, turns_per_s: float) -> float:
        """Jobs in the batch in the mean, while there are any."""
        shares = self._shares(np.array([turns_per_s]))[:, 0]
        return float(shares @ np.minimum(np.arange(len(shares)), self.most)) / max(1 - float(shares[0]), 1e-12)

    @cached_property
    def _ends_per_s(self) -> np.ndarray:
        """Turns/s that end while 1, 2, … jobs are there, as far as they are looked at."""
        running = np.arange(1, self.most + 1)
        ends = running / (self.steps * np.array([self.step_s(jobs) for jobs in running.tolist()]) + running * self.alone_s)
        return np.append(ends, np.full(_LONGEST - 1, ends[-1]))

    def _shares(self, turns_per_s: np.ndarray) -> np.ndarray:
        """Per number of jobs and rate: the share of the time with so many there. As far as they are looked at, when overloaded."""
        growth = np.log(np.maximum(turns_per_s, 1e-300)) - np.log(self._ends_per_s)[:, None]
        weight = np.concatenate([np.zeros((1, len(turns_per_s))), np.cumsum(growth, axis=0)])
        weight = np.exp(weight - weight.max(axis=0))
        return weight / weight.sum(axis=0)
