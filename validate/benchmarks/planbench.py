"""The default plan: simulations, processor seconds, and the looks that closed-form bounds spare its searches.

A look is one number of replicas of one store; it takes one to three simulations. Without bounds a search would begin at one replica, and an
option that no number of replicas helps would be followed to the most that are tried. Counts must be what they were, as events are.
"""

import time

import numpy as np

from kvplan.sim.api import plan
from kvplan.sim.planner.objective import Objective, Sample
from kvplan.sim.planner.plan import Plan
from kvplan.sim.planner.probe import Seen
from kvplan.sim.planner.search import fewest
from kvplan.validate.show import show
from kvplan.validate.verdict import fail

EXPECTED = {"simulations": 60, "options": 6, "ruled out": 1, "looks": 31, "looks without bounds": 77, "ended early": 10}
_SERVED = {"engine": "cachedattention", "store.eviction": "lru", "deployment.max_batch": 256}
"""As by the first of docs/plans.md: the counts are of the search, and another server would change them."""
_AIM = Objective("ttft", "p95", 1.0)
_MET, _MISSED = Seen((Sample(np.ones((20, 2)), np.zeros((2, 2)), 20, 0.0),), {}), Seen(None, {})


def run() -> None:
    """Prints the counts; fails when one has changed."""
    began, wall = time.process_time(), time.perf_counter()
    found = counts(plan(overrides=_SERVED, jobs=1))
    seconds, wall = time.process_time() - began, time.perf_counter() - wall
    rows = [[name, f"{value:,}"] for name, value in found.items()]
    show("kvplan plan", ["count", ""], [*rows, ["processor seconds", f"{seconds:.1f}"], ["seconds", f"{wall:.1f}"]])
    fail([f"{name}: {found[name]}, {value} expected" for name, value in EXPECTED.items() if found[name] != value], "the search has changed")


def counts(found: Plan) -> dict[str, int]:
    """Of a finished plan."""
    limit = found.question.most_replicas
    points = [point for answer in found.answers for point in answer.found.points]
    return {
        "simulations": found.simulations,
        "options": len(found.answers),
        "ruled out": sum(not answer.found.points for answer in found.answers),
        "looks": len(points),
        "looks without bounds": sum(looks(answer.replicas, limit) for answer in found.answers),
        "ended early": sum(point.hopeless for point in points),
    }


def looks(answer: int | None, limit: int) -> int:
    """Numbers of replicas that a search from 1 looks at, where all from `answer` on meet the target and no other does."""
    search = fewest((_AIM,), 1, 1, limit, 1)
    seen, wanted = set(), next(search)
    while wanted:
        seen |= {replicas for replicas, _ in wanted}
        met = [answer is not None and replicas >= answer for replicas, _ in wanted]
        try:
            wanted = search.send([_MET if each else _MISSED for each in met])
        except StopIteration:
            break
    return len(seen)
