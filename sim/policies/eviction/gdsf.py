"""GreedyDual-Size-Frequency: the session whose recomputation is cheapest per byte, times its uses, leaves first; all age.

A session ranks at L + uses × recompute seconds / bytes, where L, the age of the tier, is the rank of the last victim.
Source: Cherkasova: Improving WWW Proxies Performance with Greedy-Dual-Size-Frequency Caching Policy, HP Labs 1998. There the cost of a
miss is a constant or counts packets; here it is what the simulator will charge. Ties, which the source leaves open, go by recency.
"""

from itertools import count

from mypy_extensions import mypyc_attr

from kvplan.sim.policies.base import View
from kvplan.sim.policies.ranked import Ranked


@mypyc_attr(allow_interpreted_subclasses=True)
class Gdsf(Ranked[tuple[float, int]]):
    """O(log n) per call, amortised."""

    NAME = "gdsf"
    NEEDS = frozenset({"costs"})

    def __init__(self, view: View) -> None:
        super().__init__(view)
        self._uses: dict[int, int] = {}
        self._age = 0.0
        self._ticks = count()

    def rank(self, session: int) -> tuple[float, int]:
        worth = self.view.recompute_s(session) / self.view.size(session)
        return self._age + self._uses[session] * worth, next(self._ticks)

    def insert(self, session: int) -> None:
        self._uses[session] = 1
        super().insert(session)

    def use(self, session: int) -> None:
        self._uses[session] += 1
        super().use(session)

    def remove(self, session: int) -> None:
        self._grow_older(session)
        del self._uses[session]
        super().remove(session)

    def set_aside(self, session: int) -> None:
        self._grow_older(session)
        super().set_aside(session)

    def _grow_older(self, leaving: int) -> None:
        if leaving == self.victim():
            self._age, _ = self._order.key(leaving)
