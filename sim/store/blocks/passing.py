"""Tiers of chunks whose requests come one at a time and take no time: those of servers (`kvplan.sim.store.blocks.chunks`, in the order of a
policy `ordered`), without one."""

from collections.abc import Callable

from kvplan.sim.store.blocks.base import Context
from kvplan.sim.store.blocks.chunks import Chunks
from kvplan.sim.store.blocks.offload import beyond


def _no_time() -> float:
    return 0.0


class _Passing:
    """`now_s`: when the request comes that is asked for, for those who go by it; `answers`: whether those are stored, too, whose keys
    contexts have behind the prompt's."""

    def __init__(self, tier: Chunks, chunk_tokens: int, now_s: Callable[[], float] = _no_time, answers: bool = False) -> None:
        self.stored = 0
        self._tier, self._chunk_tokens, self._now_s, self._answers = tier, chunk_tokens, now_s, answers

    @property
    def held(self) -> int:
        """See `Offload`."""
        return self._tier.held

    @property
    def dropped(self) -> int:
        """See `Offload`."""
        return self._tier.dropped_chunks

    def _pass(self, path: Context, tokens: int) -> int:
        """Leading chunks of a prompt that were there."""
        full = len(path) if self._answers else tokens // self._chunk_tokens
        there = self._tier.reach(path, full)
        coming = self._tier.passes(path, full, self._now_s())
        self.stored += 0 if coming is None else coming.chunks
        return there


class PassingOffload(_Passing):
    """Below a pool."""

    def request(self, path: Context, tokens: int, hit: int) -> int:
        """See `Offload`."""
        return beyond(self._pass(path, tokens), tokens, hit, self._chunk_tokens)


class PassingMemory(_Passing):
    """By itself, as LMCache's: of a prompt that is all there the last token is computed again."""

    def request(self, path: Context, tokens: int) -> int:
        """See `BlockCache`."""
        return min(self._pass(path, tokens) * self._chunk_tokens, tokens - 1)
