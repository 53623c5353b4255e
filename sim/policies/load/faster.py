"""Whichever is faster: all cached history is loaded, or all is recomputed when loading would take longer.

Source: FlashGen (ASPLOS 2025), which recomputes when a restore from SSD cannot be hidden. Simplified: all or nothing, by the job's own
time alone; what the GPU could have done meanwhile counts nothing.
"""

from mypy_extensions import mypyc_attr

from kvplan.sim.policies.base import Load, LoadView


@mypyc_attr(allow_interpreted_subclasses=True)
class Faster(Load):
    """O(1)."""

    NAME = "faster"

    def loads(self, job: LoadView) -> tuple[int, float, float]:
        recompute = job.prefill_s(job.new + job.cached, 0)
        load = job.layerwise_s(job.cached)
        if recompute < load:
            return 0, recompute, recompute
        return job.cached, job.rest_s, load
