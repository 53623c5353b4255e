"""Write on the second hit: only sessions that came back are copied down; others are lost when they must make room.

Source: SGLang HiCache, `write_through_selective` (threshold 2), and Strata, which writes only what was hit twice. Here a hit is a turn of
the session, whether or not its KV was found.
"""

from mypy_extensions import mypyc_attr

from kvplan.sim.policies.base import Write

_USES = 2


@mypyc_attr(allow_interpreted_subclasses=True)
class SecondHit(Write):
    """O(1) per call."""

    NAME = "second-hit"

    def copies(self, session: int, uses: int) -> bool:
        return uses >= _USES

    def demotes(self, session: int, uses: int, size: int, now_s: float) -> bool:
        return uses >= _USES
