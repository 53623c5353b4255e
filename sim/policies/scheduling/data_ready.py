"""Data ready first: turns whose KV is in DRAM, or that have none to load, before turns that wait for SSD; in order of arrival within each.

Source: Bidaw (FAST 2026), which keeps two queues. Simplified: a turn changes queues when its KV has moved, and its prompt's length plays
no part. Look-ahead fetching then sees the ready turns first, so it fetches for the others when DRAM has room for both.
"""

from mypy_extensions import mypyc_attr

from kvplan.sim.policies.base import JobView
from kvplan.sim.policies.rankedqueue import CLASS_APART, RankedQueue


@mypyc_attr(allow_interpreted_subclasses=True)
class DataReady(RankedQueue):
    """O(log n) per call."""

    NAME = "data-ready"
    FOLLOWS_KV = True
    LEARNS = True

    def __init__(self, view: JobView) -> None:
        super().__init__(view)
        self._number: dict[int, int] = {}

    def rank(self, turn: int) -> float:
        number = self._number.setdefault(turn, self.pushed)
        return number if self.view.is_ready(turn) else CLASS_APART + number

    def done(self, turn: int, output_tokens: int) -> None:
        del self._number[turn]
