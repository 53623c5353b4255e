"""Write-back: KV goes down a tier when it must make room, and always does."""

from mypy_extensions import mypyc_attr

from kvplan.sim.policies.base import Write


@mypyc_attr(allow_interpreted_subclasses=True)
class Back(Write):
    """O(1) per call. Source: CachedAttention (USENIX ATC 2024) section 3.3."""

    NAME = "back"

    def copies(self, session: int, uses: int) -> bool:
        return False

    def demotes(self, session: int, uses: int, size: int, now_s: float) -> bool:
        return True
