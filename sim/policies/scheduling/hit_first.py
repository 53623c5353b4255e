"""Cache hits first, with ageing: a turn with cached history overtakes those without that came up to 30 s before it.

Cached history is served before it can be evicted, as in SGLang's longest-prefix-first order (arXiv 2312.07104); the head start is bounded,
so that nobody starves: a turn is overtaken only by those that come within 30 s after it.
"""

from mypy_extensions import mypyc_attr

from kvplan.sim.policies.base import JobView
from kvplan.sim.policies.rankedqueue import RankedQueue

_HEAD_START_S = 30.0


@mypyc_attr(allow_interpreted_subclasses=True)
class HitFirst(RankedQueue):
    """O(log n) per call."""

    NAME = "hit-first"
    FOLLOWS_KV = True
    LEARNS = True

    def __init__(self, view: JobView) -> None:
        super().__init__(view)
        self._came_s: dict[int, float] = {}

    def rank(self, turn: int) -> float:
        came_s = self._came_s.setdefault(turn, self.view.now_s())
        return came_s - _HEAD_START_S if self.view.cached_tokens(turn) else came_s

    def done(self, turn: int, output_tokens: int) -> None:
        del self._came_s[turn]
