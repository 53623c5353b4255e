"""How many replicas the answer is at most: a few probes above it, until runs leave no doubt.

The search stops where the better guess changes sides. Where the target is nearly met by many numbers of replicas, nothing that it looked at
says from where on it surely holds, and nothing could be told apart from anything dearer.
"""

from collections.abc import Sequence
from dataclasses import replace

from kvplan.sim.planner.objective import Objective
from kvplan.sim.planner.probe import Seen
from kvplan.sim.planner.search import Fewest, Onward, Search, Side, judged

STEPS = 4
"""Numbers of replicas at most, 1, 2, 4 and 8 above the answer."""


class Surely(Onward):
    """A search that adds to what another one found."""

    def __init__(self, side: Side, objectives: Sequence[Objective], found: Fewest, limit: int, most: int) -> None:
        super().__init__(side, _above(objectives, found, limit, most), found)


def _above(objectives: Sequence[Objective], found: Fewest, limit: int, most: int) -> Search:
    """Steps that double; `most` replications a point. Yields nothing where a point above the answer surely meets the objectives."""
    points = {point.replicas: point for point in found.points}
    least = found.replicas
    if least is None or any(point.meets and point.replicas >= least for point in found.points):
        return found
    for step in range(STEPS):
        replicas = min(limit, least + 2**step)
        seen: list[Seen] = list(points[replicas].seen) if replicas in points else []
        while not seen or (judged(objectives, replicas, seen).meets is None and len(seen) < most):
            seen += yield [(replicas, len(seen))]
        points[replicas] = judged(objectives, replicas, seen)
        if points[replicas].meets:
            break
    return replace(found, points=tuple(points[each] for each in sorted(points)))
