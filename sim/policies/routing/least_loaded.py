"""Least loaded: the replica with the fewest turns that wait or run; ties to the first.

It knows nothing of the KV: a session's turns go wherever there is room, and find what KV an earlier turn left there.
"""

from mypy_extensions import mypyc_attr

from kvplan.sim.policies.base import Router


@mypyc_attr(allow_interpreted_subclasses=True)
class LeastLoaded(Router):
    """O(replicas)."""

    NAME = "least-loaded"

    def route(self, session: int, turn: int) -> int:
        return min(range(self.view.replicas), key=self._load)

    def _load(self, replica: int) -> int:
        return self.view.waiting(replica) + self.view.running(replica)
