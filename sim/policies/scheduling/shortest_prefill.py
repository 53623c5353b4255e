"""Shortest prefill first: the turn whose uncached tokens take least time to prefill.

Source: shortest job first (Smith 1956), on the part of the job whose length is known when it comes; the answer's length is not. Long
prompts can starve under overload: nothing here ages.
"""

from mypy_extensions import mypyc_attr

from kvplan.sim.policies.rankedqueue import RankedQueue


@mypyc_attr(allow_interpreted_subclasses=True)
class ShortestPrefill(RankedQueue):
    """O(log n) per call."""

    NAME = "shortest-prefill"
    FOLLOWS_KV = True

    def rank(self, turn: int) -> float:
        return self.view.prefill_s(turn)
