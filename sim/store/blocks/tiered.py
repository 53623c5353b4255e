"""vLLM's pool and a tier below it, as one cache."""

from collections.abc import Hashable

from kvplan.sim.store.blocks.base import Context, Path
from kvplan.sim.store.blocks.offload import Offload
from kvplan.sim.store.blocks.vllm import VllmPool


class Together:
    """A context in chunks of several blocks: a chunk's key is that of its last block."""

    __slots__ = ("_blocks", "_path")

    def __init__(self, path: Path, blocks: int) -> None:
        self._path = path
        self._blocks = blocks

    def __len__(self) -> int:
        return len(self._path) // self._blocks

    def __getitem__(self, chunk: int, /) -> Hashable:
        return self._path[(chunk + 1) * self._blocks - 1]


class ContextTogether(Together):
    """That of a session's turn."""

    __slots__ = ("session",)

    def __init__(self, context: Context, blocks: int) -> None:
        super().__init__(context, blocks)
        self.session = context.session


def together(path: Path, blocks: int) -> Path:
    """A context in chunks of so many blocks."""
    return path if blocks == 1 else Together(path, blocks)


def context_together(context: Context, blocks: int) -> Context:
    """The same of a session's turn."""
    return context if blocks == 1 else ContextTogether(context, blocks)


class Tiered:
    """Hits of both. A prompt that does not fit the pool is not served; without a pool the tier alone is asked."""

    def __init__(self, pool: VllmPool | None, tier: Offload, chunk_blocks: int) -> None:
        self.tier = tier
        self.below = 0
        """Tokens that the tier had, and the pool had not."""
        self._pool = pool
        self._chunk_blocks = chunk_blocks

    @property
    def held(self) -> int:
        """See `BlockCache`: chunks of the tier, which has what the pool has."""
        return self.tier.held

    def request(self, path: Path, tokens: int) -> int:
        """See `BlockCache`."""
        if self._pool is not None and not self._pool.fits(tokens):
            return 0
        hit = 0 if self._pool is None else self._pool.request(path, tokens)
        more = self.tier.request(together(path, self._chunk_blocks), tokens, hit)
        self.below += more
        return hit + more
