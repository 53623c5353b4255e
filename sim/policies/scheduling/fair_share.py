"""Fair share between tenants: each gets tokens in proportion to its weight (`tenant_weights`) while it has turns waiting.

Source: start-time fair queueing (Goyal, Vin, Cheng, SIGCOMM 1996): a turn is stamped with the virtual time at which its tenant's
turns before it would be done, and the smallest stamp is served. What a turn costs is counted as in the Virtual Token Counter (Sheng et al.,
OSDI 2024): prompt tokens that are not cached, and twice the answer's. Simplified: the answer's length is taken as the tenant's mean so far.
"""

from mypy_extensions import mypyc_attr

from kvplan.sim.policies.base import JobView
from kvplan.sim.policies.rankedqueue import RankedQueue

_OUTPUT_WEIGHT = 2.0


@mypyc_attr(allow_interpreted_subclasses=True)
class FairShare(RankedQueue):
    """O(log n) per call."""

    NAME = "fair-share"
    LEARNS = True

    def __init__(self, view: JobView) -> None:
        super().__init__(view)
        self._virtual = 0.0
        self._finish: dict[int, float] = {}
        self._answers: dict[int, tuple[int, int]] = {}

    def rank(self, turn: int) -> float:
        view = self.view
        tenant = view.tenant(turn)
        answered, tokens = self._answers.get(tenant, (0, 0))
        computed = view.new_tokens(turn) + view.history_tokens(turn) - view.cached_tokens(turn)
        cost = computed + _OUTPUT_WEIGHT * tokens / max(1, answered)
        start = max(self._virtual, self._finish.get(tenant, 0.0))
        self._finish[tenant] = start + cost / view.weight(turn)
        return start

    def pop(self) -> int:
        self._virtual = self._order[0][0]
        return super().pop()

    def done(self, turn: int, output_tokens: int) -> None:
        tenant = self.view.tenant(turn)
        answered, tokens = self._answers.get(tenant, (0, 0))
        self._answers[tenant] = answered + 1, tokens + output_tokens
