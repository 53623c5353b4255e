"""The load that the answer's replicas still bear: a few probes between the load asked for, and one that they do not bear."""

from collections.abc import Generator, Sequence

from kvplan.sim.planner.objective import Objective
from kvplan.sim.planner.probe import Seen
from kvplan.sim.planner.search import Onward, Side, judged

ROUNDS = 2
"""Of two probes each: none waits for the other."""
_FURTHER = 2.0
"""Times the load, where nothing is known that is not borne."""


class Bearing(Onward):
    """A search that goes on with the first replication only, so that all its probes and that of the answer have the same sessions."""

    def __init__(self, side: Side, objectives: Sequence[Objective], replicas: int, known: tuple[float, float | None]) -> None:
        super().__init__(side, _narrowed(objectives, replicas, *known), known)


def _narrowed(
    objectives: Sequence[Objective], replicas: int, low: float, high: float | None
) -> Generator[list[tuple[float, int]], list[Seen], tuple[float, float | None]]:
    """(borne, no longer borne): what is between them is cut in three, by its logarithm."""
    for _ in range(ROUNDS):
        step = _FURTHER if high is None else (high / low) ** (1 / 3)
        factors = (low * step, low * step**2)
        for factor, seen in zip(factors, (yield [(replicas / factor, 0) for factor in factors]), strict=True):
            if not judged(objectives, replicas, [seen]).within:
                high = factor
                break
            low = factor
    return low, high
