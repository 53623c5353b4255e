"""Chunked prefill as vLLM does it: every step has a budget of tokens, one for each job that decodes, the rest for prefills in order.

A prompt that does not fit in what is left of a step goes on in the next one, and several share a step. Jobs enter while the step has room
for a token more of them. `deployment.step_tokens` is max_num_batched_tokens, `deployment.max_batch` max_num_seqs. A job enters when HBM has
room for its prompt, and the last one gives way when answers have outgrown HBM. Left out: time of the host that GPU work does not hide.

Source: vLLM 0.33, vllm/v1/core/sched/scheduler.py; defaults of its server, vllm/engine/arg_utils.py. Sarathi-Serve (OSDI 2024).
"""

from mypy_extensions import mypyc_attr

from kvplan.sim.policies.base import Batching, BatchView, Chunks, Limits
from kvplan.sim.policies.chunks import packed, unpacked

_GIB = 2**30


@mypyc_attr(allow_interpreted_subclasses=True)
class Chunked(Batching):
    """O(jobs in their prefill). Source: vLLM 0.33."""

    NAME = "chunked"
    NEEDS = frozenset({"step_tokens"})
    RESERVES = "prompt"

    def __init__(self, limits: Limits) -> None:
        super().__init__(limits)
        self.tokens = limits.step_tokens or _default(limits)
        """Of a step."""

    def admits(self, batch: BatchView) -> bool:
        return batch.decoding + unpacked(batch.prefilling) < self.tokens

    def step(self, batch: BatchView) -> tuple[Chunks, bool]:
        return packed(batch.prefilling, self.tokens - batch.decoding), batch.decoding > 0


def _default(limits: Limits) -> int:
    """vLLM's, which goes by memory and by name."""
    if limits.gpu_bytes >= 160 * _GIB:
        return 16_384
    return 8_192 if limits.gpu_bytes >= 70 * _GIB and "a100" not in limits.gpu.lower() else 2_048
