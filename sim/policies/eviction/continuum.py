"""Continuum: each session has its own time to live, from its gaps between uses and its cost; the first to expire leaves first.

Keeping a session for a time T costs T × (its share of the tier's bytes), and saves, if it comes back within T, C: the seconds by which
recomputing takes longer than loading. With exponential gaps of mean g, (1 − exp(−T/g)) C − T × share is largest at
T = g ln(C / (g × share)), or at 0 where that is less. g: a moving average of the session's own gaps, at first the mean of all.
Source: Continuum: Efficient and Robust Multi-Turn LLM Agent Scheduling with KV Cache Time-to-Live, arXiv 2511.02230. There gaps are
the runs of named tools, with their measured distribution, and the saving includes waiting in the queue again; a session past its TTL
leaves at once there, when room is needed here.
"""

import math

from mypy_extensions import mypyc_attr

from kvplan.sim.policies.base import View
from kvplan.sim.policies.lazyheap import Rank
from kvplan.sim.policies.ranked import Ranked

NEWEST = 0.5
"""Weight of a session's newest gap in its average."""


@mypyc_attr(allow_interpreted_subclasses=True)
class Continuum(Ranked[Rank]):
    """O(log n) per call, amortised. Remembers the gaps of sessions that have left."""

    NAME = "continuum"
    NEEDS = frozenset({"costs"})

    def __init__(self, view: View) -> None:
        super().__init__(view)
        self._used_s: dict[int, float] = {}
        self._gap_s: dict[int, float] = {}
        self._gaps, self._gap_sum_s = 0, 0.0

    def rank(self, session: int) -> Rank:
        view = self.view
        mean_s = self._gap_sum_s / self._gaps if self._gaps else 0.0
        gap_s = self._gap_s.get(session, mean_s)
        saving_s = view.recompute_s(session) - view.load_s(session)
        price_s = gap_s * view.size(session) / view.capacity
        return view.now_s() + (gap_s * math.log(saving_s / price_s) if saving_s > price_s > 0 else 0.0)

    def insert(self, session: int) -> None:
        self._used_s[session] = self.view.now_s()
        super().insert(session)

    def use(self, session: int) -> None:
        now_s = self.view.now_s()
        gap_s = now_s - self._used_s[session]
        self._used_s[session] = now_s
        self._gap_s[session] = gap_s + (1 - NEWEST) * (self._gap_s.get(session, gap_s) - gap_s)
        self._gaps += 1
        self._gap_sum_s += gap_s
        super().use(session)

    def remove(self, session: int) -> None:
        del self._used_s[session]
        super().remove(session)
