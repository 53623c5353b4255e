"""First in, first out: the session that came into the tier first leaves first, however often it was used since."""

from sim.policies.base import Eviction
from sim.policies.lazyheap import LazyHeap


class Fifo(Eviction):
    """O(log n) per call."""

    NAME = "fifo"

    def __init__(self) -> None:
        self._order = LazyHeap()
        self._entered: dict[int, int] = {}
        self._count = 0

    def insert(self, session: int, position: float | None) -> None:
        if session not in self._entered:
            self._entered[session] = self._count
            self._count += 1
        self._order.push(session, self._entered[session])

    def remove(self, session: int) -> None:
        self._order.discard(session)

    def victim(self) -> int | None:
        return self._order.peek()

    def use(self, session: int, position: float | None) -> None:
        pass

    def forget(self, session: int) -> None:
        self._entered.pop(session, None)
