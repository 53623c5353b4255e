"""Write-through: every turn's KV is copied down at once, so that making room never waits for a write.

Source: SGLang HiCache, `write_through`. Copies give way to demotions that are due; a copy without room below is left out, and made when
the session must make room.
"""

from mypy_extensions import mypyc_attr

from kvplan.sim.policies.base import Write


@mypyc_attr(allow_interpreted_subclasses=True)
class Through(Write):
    """O(1) per call."""

    NAME = "through"

    def copies(self, session: int, uses: int) -> bool:
        return True

    def demotes(self, session: int, uses: int, size: int, now_s: float) -> bool:
        return True
