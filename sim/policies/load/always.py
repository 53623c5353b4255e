"""Always load: all cached history is loaded, layer by layer under the prefill of the new tokens.

Source: CachedAttention (USENIX ATC 2024) section 3.2.
"""

from mypy_extensions import mypyc_attr

from kvplan.sim.policies.base import Load, LoadView


@mypyc_attr(allow_interpreted_subclasses=True)
class Always(Load):
    """O(1)."""

    NAME = "always"

    def loads(self, job: LoadView) -> tuple[int, float, float]:
        return job.cached, job.rest_s, job.layerwise_s(job.cached)
