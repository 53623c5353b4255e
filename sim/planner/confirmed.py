"""Whether the cheapest answer holds in more runs, or a replica less does.

Near saturation a queue of minutes comes up in some runs and not in others. The two or three of a search may all be lucky, or one of them
unlucky; the intervals within a run do not know of it, and the spread between runs does.
"""

from collections.abc import Sequence
from dataclasses import replace

from kvplan.sim.planner.objective import Objective
from kvplan.sim.planner.probe import Probe, Seen
from kvplan.sim.planner.search import Fewest, Onward, Search, Side, judged

RUNS = 8
"""Of the cheapest answer."""


class Confirmed(Onward):
    """A search that goes on from an answer: to the first number of replicas that `RUNS` runs speak for, of those that may be enough."""

    def __init__(self, side: Side, objectives: Sequence[Objective], found: Fewest, limit: int) -> None:
        super().__init__(side, _upwards(objectives, found, limit), found)

    def probe(self, replicas: float, replication: int) -> Probe:
        """To the end: all runs together are judged, and one may fail."""
        return replace(super().probe(replicas, replication), to_the_end=True)


def _upwards(objectives: Sequence[Objective], found: Fewest, limit: int) -> Search:
    points = {point.replicas: point for point in found.points}
    answer, first = None, found.replicas or limit
    while (below := points.get(first - 1)) is not None and below.meets is None:
        first -= 1
    for replicas in range(first, limit + 1):
        known = points.get(replicas)
        seen: list[Seen] = [] if known is None or known.hopeless else list(known.seen)
        if len(seen) < RUNS:
            seen += yield [(replicas, each) for each in range(len(seen), RUNS)]
        points[replicas] = judged(objectives, replicas, seen)
        if points[replicas].within:
            answer = replicas
            break
    reason = None if answer else f"{limit} replicas do not meet it either"
    return replace(found, replicas=answer, points=tuple(points[each] for each in sorted(points)), reason=reason)
