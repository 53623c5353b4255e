"""No prefetching: KV on SSD is loaded when its job starts, on the critical path."""

from mypy_extensions import mypyc_attr

from kvplan.sim.policies.base import Prefetch, Queue


@mypyc_attr(allow_interpreted_subclasses=True)
class NoPrefetch(Prefetch):
    """O(1) per call."""

    NAME = "none"
    FETCHES = False

    def want(self, session: int, position: float | None) -> None:
        pass

    def drop(self, session: int) -> None:
        pass

    def next(self, queue: Queue, room: float) -> int | None:
        return None
