"""Priority by tenant: tenants with more weight first (`tenant_weights`); in order of arrival among equals.

Strict: a tenant waits for as long as one of more weight has turns waiting. Running jobs are not preempted.
"""

from mypy_extensions import mypyc_attr

from kvplan.sim.policies.rankedqueue import CLASS_APART, RankedQueue


@mypyc_attr(allow_interpreted_subclasses=True)
class Priority(RankedQueue):
    """O(log n) per call."""

    NAME = "priority"

    def rank(self, turn: int) -> float:
        return self.view.tenant_rank(turn) * CLASS_APART + self.pushed
