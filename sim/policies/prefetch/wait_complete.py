"""Wait for all: KV is fetched from when its job joins the queue, and the job does not start before all of it has come.

Source: SGLang HiCache, prefetch policy `wait_complete`. Jobs that are ready go first meanwhile. A job whose KV DRAM cannot take does not
wait.
"""

import math

from mypy_extensions import mypyc_attr

from kvplan.sim.policies.prefetch.best_effort import BestEffort


@mypyc_attr(allow_interpreted_subclasses=True)
class WaitComplete(BestEffort):
    """O(log n) per call, amortised."""

    NAME = "wait-complete"
    HOLDS = True

    def patience_s(self, tokens: int) -> float:
        return math.inf
