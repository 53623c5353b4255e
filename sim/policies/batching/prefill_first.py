"""Prefill first, as SGLang does it: a step prefills or decodes, and decodes only when there is nothing to prefill.

A step prefills `deployment.step_tokens` at most (chunked_prefill_size); a prompt that does not fit goes on in the next step, before all
others, so that one at a time is in parts. A prompt of as many tokens as `deployment.prefill_tokens` (max_prefill_tokens) has left beside
those before it waits for a step of its own. Jobs enter by a falling share of what the answers of others may still take, and are retracted
when that was too little (`kvplan.sim.engine.sharing`). Left out: mixed chunks, off by default.

Source: SGLang 0.5, python/sglang/srt/managers/schedule_policy.py (PrefillAdder) and server_args.py.
"""

from collections.abc import Iterator, Sequence

from mypy_extensions import mypyc_attr

from kvplan.sim.policies.base import Batching, BatchView, Chunks, Limits, Prefilling
from kvplan.sim.policies.chunks import packed, unpacked

_GIB = 2**30
_PREFILL_TOKENS = 16_384


@mypyc_attr(allow_interpreted_subclasses=True)
class PrefillFirst(Batching):
    """O(jobs in their prefill). Source: SGLang 0.5."""

    NAME = "prefill-first"
    NEEDS = frozenset({"step_tokens", "prefill_tokens"})
    RESERVES = "share"

    def __init__(self, limits: Limits) -> None:
        super().__init__(limits)
        self.tokens = limits.step_tokens or _default(limits.gpu_bytes)
        """Of a step that prefills."""
        self._shared = limits.prefill_tokens or _PREFILL_TOKENS

    def admits(self, batch: BatchView) -> bool:
        return unpacked(batch.prefilling) < min(self.tokens, self._shared)

    def step(self, batch: BatchView) -> tuple[Chunks, bool]:
        return packed(self._together(batch.prefilling), self.tokens), not batch.prefilling

    def _together(self, jobs: Sequence[Prefilling]) -> Iterator[Prefilling]:
        """The first job, and those after it that may share its step."""
        left = self._shared
        for place, job in enumerate(jobs):
            if place and job.left >= left:
                return
            yield job
            left -= min(job.left, self.tokens)


def _default(gpu_bytes: int) -> int:
    """SGLang's, by memory."""
    for least, tokens in ((160, 16_384), (60, 8_192), (35, 4_096)):
        if gpu_bytes >= least * _GIB:
            return tokens
    return 2_048
