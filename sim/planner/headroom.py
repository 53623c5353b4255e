"""The load that the answer's replicas still bear: a few probes between the load asked for, and one that they do not bear."""

import math
from collections.abc import Generator, Sequence
from typing import Protocol

from kvplan.sim.planner.objective import Objective
from kvplan.sim.planner.probe import Probe, Seen
from kvplan.sim.planner.search import Fed, judged

PROBES = 3
_FURTHEST = 2.0
"""Times the load, where nothing is known that is not borne."""


class Side(Protocol):
    """Who makes probes of an option."""

    def probe(self, replicas: float, replication: int) -> Probe:
        """Of one replica of so many."""


class Bearing(Fed):
    """A search that goes on with the first replication only, so that all its probes and that of the answer have the same sessions."""

    def __init__(self, side: Side, objectives: Sequence[Objective], replicas: int, known: tuple[float, float | None]) -> None:
        self._side, self._search = side, _bisected(objectives, replicas, *known)
        self.found: tuple[float, float | None] = known

    def begin(self) -> list[tuple[float, int]]:
        """The first probe."""
        return next(self._search)

    def fail(self, reason: str) -> None:
        """A run could not be done: what is known stays."""

    def probe(self, replicas: float, replication: int) -> Probe:
        """Fewer replicas by as much as the load is higher."""
        return self._side.probe(replicas, replication)


def _bisected(
    objectives: Sequence[Objective], replicas: int, low: float, high: float | None
) -> Generator[list[tuple[float, int]], list[Seen], tuple[float, float | None]]:
    """(borne, no longer borne), by bisection of logarithms."""
    for _ in range(PROBES):
        factor = _FURTHEST * low if high is None else math.sqrt(low * high)
        seen = yield [(replicas / factor, 0)]
        if judged(objectives, replicas, seen).within:
            low = factor
        else:
            high = factor
    return low, high
