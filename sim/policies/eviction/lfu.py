"""Least frequently used: the session with the fewest uses since it came into the tier leaves first, ties by recency.

In-cache LFU without ageing: a session that leaves is forgotten, and a session that was popular long ago stays (`w-tinylfu` ages).
Source: Coffman, Denning: Operating Systems Theory, 1973, section 6.6; ties as in libCacheSim.
"""

from itertools import count

from mypy_extensions import mypyc_attr

from kvplan.sim.policies.base import View
from kvplan.sim.policies.lazyheap import Rank
from kvplan.sim.policies.ranked import Ranked


@mypyc_attr(allow_interpreted_subclasses=True)
class Lfu(Ranked[Rank]):
    """O(log n) per call, amortised."""

    NAME = "lfu"

    def __init__(self, view: View) -> None:
        super().__init__(view)
        self._uses: dict[int, int] = {}
        self._ticks = count()

    def rank(self, session: int) -> Rank:
        return self._uses[session], next(self._ticks)

    def insert(self, session: int) -> None:
        self._uses[session] = 1
        super().insert(session)

    def use(self, session: int) -> None:
        self._uses[session] += 1
        super().use(session)

    def remove(self, session: int) -> None:
        del self._uses[session]
        super().remove(session)
