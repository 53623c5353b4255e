"""Iteration-level batching: a job that enters is prefilled alone and whole while the running decodes wait, then joins their steps.

Source: Orca (OSDI 2022), and the engine of CachedAttention (USENIX ATC 2024) section 2.
"""

from mypy_extensions import mypyc_attr

from kvplan.sim.policies.base import Batching, BatchView, Chunks

_DECODE: tuple[Chunks, bool] = (), True


@mypyc_attr(allow_interpreted_subclasses=True)
class Iteration(Batching):
    """O(1). Source: Orca (OSDI 2022)."""

    NAME = "iteration"

    def admits(self, batch: BatchView) -> bool:
        return not batch.prefilling

    def step(self, batch: BatchView) -> tuple[Chunks, bool]:
        if batch.prefilling:
            job = batch.prefilling[0]
            return ((job, job.left),), False
        return _DECODE
