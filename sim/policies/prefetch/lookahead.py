"""CachedAttention's scheduler-aware fetching: the first L_pw waiting jobs find their KV in DRAM.

L_pw = C_mem / S_kv, where C_mem is the DRAM that is free for prefetching and S_kv the mean KV of a session. Soonest job first.
Source: CachedAttention (USENIX ATC 2024) section 3.3.1.
"""

import math

from mypy_extensions import mypyc_attr

from kvplan.sim.policies.base import Prefetch, Queue
from kvplan.sim.policies.lazyheap import LazyHeap


@mypyc_attr(allow_interpreted_subclasses=True)
class LookAhead(Prefetch):
    """O(log n) per call, amortised."""

    NAME = "lookahead"

    def __init__(self) -> None:
        self._wanted: LazyHeap[float] = LazyHeap()

    def want(self, session: int, position: float | None) -> None:
        self._wanted.push(session, math.inf if position is None else position)

    def drop(self, session: int) -> None:
        self._wanted.discard(session)

    def next(self, queue: Queue, room: float) -> int | None:
        first = self._wanted.first() if room >= 1 else None
        if first is None:
            return None
        position, session = first
        end_of_window = queue.position_at(int(room) - 1)
        return session if end_of_window is None or position <= end_of_window else None
