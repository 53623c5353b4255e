"""Write-back within the drives' rating: no more than their rated writes on average; what must make room beyond that is lost.

An admission filter for endurance, like CacheLib's dynamic random admission, which aims at a write rate (Berg et al., OSDI 2020).
Simplified: a token bucket that holds an hour of rated writes decides, instead of a probability; so a burst is written whole until the
bucket is empty.
"""

from mypy_extensions import mypyc_attr

from kvplan.sim.policies.base import Write

_BUCKET_S = 3600.0


@mypyc_attr(allow_interpreted_subclasses=True)
class WithinRating(Write):
    """O(1) per call."""

    NAME = "within-rating"

    def __init__(self, rated_bytes_per_s: float) -> None:
        super().__init__(rated_bytes_per_s)
        self._level = self._full = _BUCKET_S * rated_bytes_per_s
        self._since_s = 0.0

    def _level_at(self, now_s: float) -> float:
        return min(self._full, self._level + (now_s - self._since_s) * self.rated_bytes_per_s)

    def copies(self, session: int, uses: int) -> bool:
        return False

    def demotes(self, session: int, uses: int, size: int, now_s: float) -> bool:
        return size <= self._level_at(now_s)

    def wrote(self, size: int, now_s: float) -> None:
        self._level = self._level_at(now_s) - size
        self._since_s = now_s
