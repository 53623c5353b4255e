"""First in, first out: the session that came into the tier first leaves first, however often it was used since."""

from mypy_extensions import mypyc_attr

from kvplan.sim.policies.base import Eviction, View
from kvplan.sim.policies.lazyheap import LazyHeap


@mypyc_attr(allow_interpreted_subclasses=True)
class Fifo(Eviction):
    """O(log n) per call."""

    NAME = "fifo"

    def __init__(self, view: View) -> None:
        super().__init__(view)
        self._order: LazyHeap[int] = LazyHeap()
        self._entered: dict[int, int] = {}
        self._count = 0

    def insert(self, session: int) -> None:
        self._entered[session] = self._count
        self._count += 1
        self.restore(session)

    def remove(self, session: int) -> None:
        self._order.discard(session)
        del self._entered[session]

    def set_aside(self, session: int) -> None:
        self._order.discard(session)

    def restore(self, session: int) -> None:
        self._order.push(session, self._entered[session])

    def victim(self) -> int | None:
        return self._order.peek()
