"""SIEVE: a queue that never moves, and a hand that goes round it, spares once who was used since it last came, and takes the first other.

Source: Zhang et al.: SIEVE is Simpler than LRU, NSDI 2024. New sessions join behind all others; the hand goes from the oldest to the
newest, forgets the use of those it spares, and begins again at the oldest when it is past the newest.

Where the textbook walks, this calculates, so that asking for a victim moves nothing: places in the queue are fixed, so an unused
session falls when the hand comes to it next, and a used one a lap later. The earliest (lap, place) is the victim's, and where the hand
is when it has gone.
"""

from collections import OrderedDict
from itertools import count

from mypy_extensions import mypyc_attr

from kvplan.sim.policies.base import Eviction, View
from kvplan.sim.policies.lazyheap import LazyHeap


@mypyc_attr(allow_interpreted_subclasses=True)
class Sieve(Eviction):
    """O(log n) per call, amortised. A session that was set aside keeps its place."""

    NAME = "sieve"

    def __init__(self, view: View) -> None:
        super().__init__(view)
        self._falls: OrderedDict[int, tuple[int, int]] = OrderedDict()
        """Session -> (lap, place) at which the hand takes it; by place."""
        self._order: LazyHeap[tuple[int, int]] = LazyHeap()
        self._hand = (0, -1)
        self._places = count()

    def insert(self, session: int) -> None:
        lap, place = self._hand
        if self._falls:
            newest = next(reversed(self._falls))
            if self._falls[newest][1] <= place:
                lap += 1
                self._hand = (lap, -1)
        self._falls[session] = (lap, next(self._places))
        self.restore(session)

    def use(self, session: int) -> None:
        lap, hand = self._hand
        _, place = self._falls[session]
        self._falls[session] = (lap + 1 if place > hand else lap + 2, place)
        self.restore(session)

    def remove(self, session: int) -> None:
        self.set_aside(session)
        del self._falls[session]

    def set_aside(self, session: int) -> None:
        if session == self.victim():
            self._hand = max(self._hand, self._falls[session])
        self._order.discard(session)

    def restore(self, session: int) -> None:
        self._order.push(session, self._falls[session])

    def victim(self) -> int | None:
        return self._order.peek()
