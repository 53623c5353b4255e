"""Belady's MIN, a bound and no real policy: who is used again last, or never, leaves first; ties by size, larger first.

Source: Belady: A Study of Replacement Algorithms for a Virtual-Storage Computer, IBM Systems Journal 5(2), 1966. No order has fewer
misses where sessions are of equal size and what is missed must be stored; where sizes differ it is a strong order, not a bound.

What it knows: when the next turn of a session will come. In a closed loop that is so once the turn before has ended, and depends on
what the policy did: it is the clairvoyant order over the accesses as they come to be, and another policy might bring about better ones.
"""

from mypy_extensions import mypyc_attr

from kvplan.sim.policies.lazyheap import Rank
from kvplan.sim.policies.ranked import Ranked


@mypyc_attr(allow_interpreted_subclasses=True)
class Belady(Ranked[Rank]):
    """O(log n) per call, amortised."""

    NAME = "belady"
    NEEDS = frozenset({"future"})

    def rank(self, session: int) -> Rank:
        return -self.view.next_use_s(session), -self.view.size(session)

    def restore(self, session: int) -> None:
        super().restore(session)
        self.use(session)  # a turn may have ended meanwhile
