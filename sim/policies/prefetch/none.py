"""No prefetching: KV on SSD is loaded when its job starts, on the critical path."""

from kvplan.sim.policies.base import Prefetch, Queue


class NoPrefetch(Prefetch):
    """O(1) per call."""

    NAME = "none"

    def want(self, session: int, position: float | None) -> None:
        pass

    def drop(self, session: int) -> None:
        pass

    def next(self, queue: Queue, room: float) -> int | None:
        return None
