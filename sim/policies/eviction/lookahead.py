"""CachedAttention's scheduler-aware eviction: what the queue will need last leaves first.

Sessions without a waiting job go first, least recently used among them; then sessions by the place of their job in the queue, from
its tail. Source: CachedAttention (USENIX ATC 2024) section 3.3.2.

Difference from the paper: there the scheduler looks at a window of (C_mem + C_disk) / S_kv waiting jobs, because it scans the
queue for every decision. Here the order is kept up to date in O(log n), so the window is the whole queue. A session beyond the
paper's window would leave before any within it; by queue place it does so here too.
"""

from collections import OrderedDict

from sim.policies.base import Eviction
from sim.policies.lazyheap import LazyHeap


class LookAhead(Eviction):
    """O(log n) per call, amortised."""

    NAME = "lookahead"
    USES_QUEUE = True

    def __init__(self) -> None:
        self._idle: OrderedDict[int, None] = OrderedDict()
        self._awaited = LazyHeap()

    def insert(self, session: int, position: float | None) -> None:
        if position is None:
            self._idle[session] = None
        else:
            self._awaited.push(session, -position)

    def remove(self, session: int) -> None:
        if not self._awaited.discard(session):
            del self._idle[session]

    def reposition(self, session: int, position: float) -> None:
        self._idle.pop(session, None)
        self._awaited.push(session, -position)

    def victim(self) -> int | None:
        if self._idle:
            return next(iter(self._idle))
        return self._awaited.peek()
