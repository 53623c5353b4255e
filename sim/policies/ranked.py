"""What eviction policies share that give each session a rank when it is stored or used, and evict the lowest."""

from abc import abstractmethod
from typing import Generic

from mypy_extensions import mypyc_attr

from kvplan.sim.policies.base import Eviction, View
from kvplan.sim.policies.lazyheap import Key, LazyHeap


@mypyc_attr(allow_interpreted_subclasses=True)
class Ranked(Eviction, Generic[Key]):
    """O(log n) per call, amortised. A session that is set aside keeps its rank."""

    def __init__(self, view: View) -> None:
        super().__init__(view)
        self._order: LazyHeap[Key] = LazyHeap()
        self._aside: dict[int, Key] = {}

    @abstractmethod
    def rank(self, session: int) -> Key:
        """The session's rank from now on, until it is used again. The lowest leaves first, ties by session number."""

    def insert(self, session: int) -> None:
        self._order.push(session, self.rank(session))

    def use(self, session: int) -> None:
        self._order.push(session, self.rank(session))

    def remove(self, session: int) -> None:
        self._order.discard(session)

    def set_aside(self, session: int) -> None:
        self._aside[session] = self._order.key(session)
        self._order.discard(session)

    def restore(self, session: int) -> None:
        self._order.push(session, self._aside.pop(session))

    def victim(self) -> int | None:
        return self._order.peek()
