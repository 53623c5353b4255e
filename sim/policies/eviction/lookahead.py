"""CachedAttention's scheduler-aware eviction: what the queue will need last leaves first.

Sessions without a waiting job go first, least recently used among them; then sessions by the place of their job in the queue, from
its tail. Source: CachedAttention (USENIX ATC 2024) section 3.3.2.

Difference from the paper: there the scheduler looks at a window of (C_mem + C_disk) / S_kv waiting jobs, because it scans the
queue for every decision. Here the order is kept up to date in O(log n), so the window is the whole queue. A session beyond the
paper's window would leave before any within it; by queue place it does so here too.
"""

from collections import OrderedDict
from heapq import heappop, heappush

from mypy_extensions import mypyc_attr

from kvplan.sim.policies.base import Eviction, View


@mypyc_attr(allow_interpreted_subclasses=True)
class LookAhead(Eviction):
    """O(1) per call while positions grow, as they do under FCFS; O(log n), amortised, otherwise."""

    NAME = "lookahead"
    NEEDS = frozenset({"queue"})

    def __init__(self, view: View) -> None:
        super().__init__(view)
        self._idle: OrderedDict[int, None] = OrderedDict()
        self._awaited: dict[int, float] = {}
        self._stack: list[tuple[float, int]] = []
        """(position, session), ascending, with stale entries: the last valid one is the tail of the queue …"""
        self._heap: list[tuple[float, int]] = []
        """… unless it is here, where those went that came out of order (negated positions)."""
        self._most = 64
        """Entries of both, before stale ones are swept."""

    def insert(self, session: int) -> None:
        position = self.view.position(session)
        if position is None:
            self._idle[session] = None
            return
        self._awaited[session] = position
        stack, heap = self._stack, self._heap
        if not stack or position > stack[-1][0]:
            stack.append((position, session))
        else:
            heappush(heap, (-position, session))
        if len(stack) + len(heap) > self._most:
            self._most = 2 * len(self._awaited) + 64
            self._stack = sorted((position, session) for session, position in self._awaited.items())
            self._heap = []

    def remove(self, session: int) -> None:
        if self._awaited.pop(session, None) is None:
            del self._idle[session]

    def restore(self, session: int) -> None:
        self.insert(session)
        if session in self._idle:
            self._idle.move_to_end(session, last=False)

    def use(self, session: int) -> None:
        self._awaited.pop(session, None)
        self._idle[session] = None
        self._idle.move_to_end(session)

    def expect(self, session: int) -> None:
        if self._awaited.pop(session, None) is None:
            del self._idle[session]
        self.insert(session)

    def victim(self) -> int | None:
        if self._idle:
            return next(iter(self._idle))
        awaited, stack, heap = self._awaited, self._stack, self._heap
        while stack and awaited.get(stack[-1][1]) != stack[-1][0]:
            stack.pop()
        while heap and awaited.get(heap[0][1]) != -heap[0][0]:
            heappop(heap)
        if heap and (not stack or -heap[0][0] > stack[-1][0]):
            return heap[0][1]
        return stack[-1][1] if stack else None
