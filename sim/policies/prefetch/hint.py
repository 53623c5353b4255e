"""On a hint: KV is fetched when word comes that a turn will follow, 5 s before it does, or when the answer is out if that is later.

Source: SYMPHONY (arXiv 2412.16434), whose clients say that a user has begun to type. Simplified: every turn is announced, and none in vain;
KV stays on its node.
"""

from mypy_extensions import mypyc_attr

from kvplan.sim.policies.base import Prefetch, Queue
from kvplan.sim.policies.lazyheap import LazyHeap


@mypyc_attr(allow_interpreted_subclasses=True)
class Hint(Prefetch):
    """O(log n) per call, amortised. In the order in which word came."""

    NAME = "hint"
    LEAD_S = 5.0

    def __init__(self) -> None:
        self._wanted: LazyHeap[float] = LazyHeap()
        self._count = 0

    def want(self, session: int, position: float | None) -> None:
        if session not in self._wanted:
            self._count += 1
            self._wanted.push(session, self._count)

    def drop(self, session: int) -> None:
        self._wanted.discard(session)

    def next(self, queue: Queue, room: float) -> int | None:
        return self._wanted.peek()
