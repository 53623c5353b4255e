"""Marconi: recency, plus a bonus for KV that saves much computation per byte; the lowest sum leaves first.

A session ranks at its last use + ALPHA × (mean gap between uses) × (its recompute seconds per byte / their mean), so that its place
does not change with time. The means are over the uses that the tier has seen.
Source: Pan et al.: Marconi: Prefix Caching for the Era of Hybrid LLMs, MLSys 2025. There recency and FLOPs per byte are scaled over all
candidates for every eviction, alpha is tuned by replaying the past, and nodes of a prefix tree leave; here whole sessions.
"""

from mypy_extensions import mypyc_attr

from kvplan.sim.policies.base import View
from kvplan.sim.policies.lazyheap import Rank
from kvplan.sim.policies.ranked import Ranked

ALPHA = 1.0
"""Mean gaps that a session of mean worth is ahead of a worthless one."""


@mypyc_attr(allow_interpreted_subclasses=True)
class Marconi(Ranked[Rank]):
    """O(log n) per call, amortised."""

    NAME = "marconi"
    NEEDS = frozenset({"costs"})

    def __init__(self, view: View) -> None:
        super().__init__(view)
        self._used_s: dict[int, float] = {}
        self._gaps, self._gap_sum_s = 0, 0.0
        self._ranked, self._worth_sum = 0, 0.0

    def rank(self, session: int) -> Rank:
        worth = self.view.recompute_s(session) / self.view.size(session)
        self._ranked += 1
        self._worth_sum += worth
        gap_s = self._gap_sum_s / self._gaps if self._gaps else 0.0
        return self.view.now_s() + ALPHA * gap_s * worth * self._ranked / self._worth_sum

    def insert(self, session: int) -> None:
        self._used_s[session] = self.view.now_s()
        super().insert(session)

    def use(self, session: int) -> None:
        now_s = self.view.now_s()
        self._gaps += 1
        self._gap_sum_s += now_s - self._used_s[session]
        self._used_s[session] = now_s
        super().use(session)

    def remove(self, session: int) -> None:
        del self._used_s[session]
        super().remove(session)
