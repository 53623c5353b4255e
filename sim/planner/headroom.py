"""The load that the answer's replicas still bear: a few probes between the load asked for, and one that they do not bear."""

import math
from collections.abc import Generator, Sequence

from kvplan.sim.planner.objective import Objective
from kvplan.sim.planner.probe import Seen
from kvplan.sim.planner.search import Onward, Side, judged

PROBES = 3
_FURTHEST = 2.0
"""Times the load, where nothing is known that is not borne."""


class Bearing(Onward):
    """A search that goes on with the first replication only, so that all its probes and that of the answer have the same sessions."""

    def __init__(self, side: Side, objectives: Sequence[Objective], replicas: int, known: tuple[float, float | None]) -> None:
        super().__init__(side, _bisected(objectives, replicas, *known), known)


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
