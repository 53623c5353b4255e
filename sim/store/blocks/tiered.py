"""An engine's pool and a tier below it, as one cache."""

from collections.abc import Hashable
from typing import Protocol

from kvplan.sim.store.blocks.base import Context
from kvplan.sim.store.blocks.offload import Offload


class Together:
    """A context in chunks of several blocks: a chunk's key is that of its last block."""

    __slots__ = ("_blocks", "_context", "session")

    def __init__(self, context: Context, blocks: int) -> None:
        self.session = context.session
        self._context = context
        self._blocks = blocks

    def __len__(self) -> int:
        return len(self._context) // self._blocks

    def __getitem__(self, chunk: int, /) -> Hashable:
        return self._context[(chunk + 1) * self._blocks - 1]


def together(context: Context, blocks: int) -> Context:
    """A context in chunks of so many blocks."""
    return context if blocks == 1 else Together(context, blocks)


class Above(Protocol):
    """A pool, or what is known of one: what it hits is no matter of what is below."""

    def fits(self, tokens: int) -> bool:
        """Whether a prompt can be served."""

    def request(self, path: Context, tokens: int) -> int:
        """See `BlockCache`; of those that fit."""


class Tiered:
    """Hits of both. A prompt that does not fit the pool is not served; without a pool the tier alone is asked."""

    def __init__(self, pool: Above | None, tier: Offload, chunk_blocks: int) -> None:
        self.tier = tier
        self.below = 0
        """Tokens that the tier had, and the pool had not."""
        self._pool = pool
        self._chunk_blocks = chunk_blocks

    @property
    def held(self) -> int:
        """See `BlockCache`: chunks of the tier, which has what the pool has."""
        return self.tier.held

    def request(self, path: Context, tokens: int) -> int:
        """See `BlockCache`."""
        if self._pool is not None and not self._pool.fits(tokens):
            return 0
        hit = 0 if self._pool is None else self._pool.request(path, tokens)
        more = self.tier.request(together(path, self._chunk_blocks), tokens, hit)
        self.below += more
        return hit + more
