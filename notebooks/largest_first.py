from kvplan.sim.policies.base import Eviction
from kvplan.sim.policies.lazyheap import LazyHeap


class LargestFirst(Eviction):
    """Evicts the session that holds most, so that many small ones stay."""

    NAME = "largest-first"

    def __init__(self, view):
        super().__init__(view)
        self._order = LazyHeap()

    def insert(self, session):
        self._order.push(session, -self.view.size(session))

    use = insert  # it has grown

    def remove(self, session):
        self._order.discard(session)

    def victim(self):
        return self._order.peek()
