"""Best effort: KV is fetched from when its job joins the queue; what has not come when the job could start is recomputed.

Source: SGLang HiCache, prefetch policy `best_effort`. In order of arrival whatever the scheduler, without a look-ahead window: in the order
of a scheduler that prefers small jobs, a large one could wait for its KV for ever.
"""

from mypy_extensions import mypyc_attr

from kvplan.sim.policies.base import Prefetch, Queue
from kvplan.sim.policies.lazyheap import LazyHeap


@mypyc_attr(allow_interpreted_subclasses=True)
class BestEffort(Prefetch):
    """O(log n) per call, amortised."""

    NAME = "best-effort"
    LOADS_LATE = False

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
