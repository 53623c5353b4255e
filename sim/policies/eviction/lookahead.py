"""CachedAttention's scheduler-aware eviction: what the queue will need last leaves first.

Sessions without a waiting job go first, least recently used among them; then sessions by the place of their job in the queue, from
its tail. Source: CachedAttention (USENIX ATC 2024) section 3.3.2.

Difference from the paper: there the scheduler looks at a window of (C_mem + C_disk) / S_kv waiting jobs, because it scans the
queue for every decision. Here the order is kept up to date in O(log n), so the window is the whole queue. A session beyond the
paper's window would leave before any within it; by queue place it does so here too.
"""

import math
from collections import OrderedDict

from mypy_extensions import mypyc_attr

from kvplan.sim.policies.base import Eviction, View
from kvplan.sim.policies.lazyheap import LazyHeap


@mypyc_attr(allow_interpreted_subclasses=True)
class LookAhead(Eviction):
    """O(1) per call while positions grow, as they do under FCFS; O(log n), amortised, otherwise."""

    NAME = "lookahead"
    NEEDS = frozenset({"queue"})

    def __init__(self, view: View) -> None:
        super().__init__(view)
        self._idle: OrderedDict[int, None] = OrderedDict()
        self._queue: OrderedDict[int, float] = OrderedDict()
        """Sessions with a waiting job, and its position, as positions grew …"""
        self._others: LazyHeap[float] = LazyHeap()
        """… and those that came out of that order, by negated position."""
        self._latest = -math.inf
        """The highest position that came in order."""

    def insert(self, session: int) -> None:
        position = self.view.position(session)
        if position is None:
            self._idle[session] = None
        elif position > self._latest:
            self._queue[session] = self._latest = position
        else:
            self._others.push(session, -position)

    def remove(self, session: int) -> None:
        if session in self._idle:
            del self._idle[session]
        elif session in self._queue:
            del self._queue[session]
        else:
            self._others.discard(session)

    def restore(self, session: int) -> None:
        self.insert(session)
        if session in self._idle:
            self._idle.move_to_end(session, last=False)

    def use(self, session: int) -> None:
        self.remove(session)
        self._idle[session] = None

    def expect(self, session: int) -> None:
        self.remove(session)
        self.insert(session)

    def victim(self) -> int | None:
        if self._idle:
            return next(iter(self._idle))
        other = self._others.first()
        if not self._queue:
            return None if other is None else other[1]
        tail = next(reversed(self._queue))
        return tail if other is None or self._queue[tail] >= -other[0] else other[1]
