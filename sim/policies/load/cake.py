"""Meet in the middle: the GPU computes the history from its start while KV is loaded from its end, until they meet.

Source: Cake (arXiv 2410.03065). The meeting point is found by bisection on the step time model, so the two finish together; the paper finds
it as it runs, chunk by chunk. When loading under the prefill, layer by layer, is faster than that (the paper has no such overlap), all is
loaded so.
"""

from mypy_extensions import mypyc_attr

from kvplan.sim.policies.base import Load, LoadView


@mypyc_attr(allow_interpreted_subclasses=True)
class Cake(Load):
    """O(log history)."""

    NAME = "cake"

    def loads(self, job: LoadView) -> tuple[int, float, float]:
        fewest, most = 0, job.cached
        while fewest < most:  # the fewest tokens to compute such that computing takes no less than loading the others
            computed = (fewest + most) // 2
            if job.prefill_s(computed, 0) >= job.load_s(job.cached - computed):
                most = computed
            else:
                fewest = computed + 1
        fewest += -fewest % job.block
        loaded = job.cached - fewest
        computed_s = job.prefill_s(fewest, 0) if fewest else 0.0
        loaded_s = job.load_s(loaded) if loaded else 0.0
        met = max(computed_s, loaded_s) + job.rest_s
        layerwise = job.layerwise_s(job.cached)
        if layerwise <= met:
            return job.cached, job.rest_s, layerwise
        return loaded, computed_s + job.rest_s, met
