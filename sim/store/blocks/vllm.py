"""vLLM's prefix cache: one pool of blocks in HBM, shared by running requests and by what others left.

A free block keeps its name until it is taken for something else; the front of the free queue is taken first. When a request ends its blocks
go to the back, tail first, and those without a name (its unfull last one) to the front. A lookup covers at most all tokens but one, so a
prompt that is all there computes its last block again, into a block of its own: it is there twice then. The whole prompt must fit.

Left out: answers, which are hashed as they fill; several requests at once. Source: vLLM 0.33, v1/core/kv_cache_manager.py, block_pool.py.
"""

from kvplan.sim.store.blocks.base import Path
from kvplan.sim.store.blocks.runs import OfRuns


class VllmPool(OfRuns):
    """`usable` blocks: vLLM keeps one of its pool for itself, which is not in them."""

    def __init__(self, usable: int, block_tokens: int) -> None:
        super().__init__(usable, block_tokens)
        self._unnamed = usable

    def fits(self, tokens: int) -> bool:
        """Whether a prompt can be served."""
        return -(-tokens // self._block_tokens) <= self._usable

    def request(self, path: Path, tokens: int) -> int:
        """See `BlockCache`."""
        if not self.fits(tokens):
            return 0
        full, blocks = tokens // self._block_tokens, -(-tokens // self._block_tokens)
        *_, hit = self._runs.take(path, (tokens - 1) // self._block_tokens)
        self._allocate(blocks - hit)
        self._end(path, hit, full)
        self._unnamed += blocks - full
        return hit * self._block_tokens

    def _allocate(self, blocks: int) -> None:
        """From the front of the queue, where those without a name are."""
        unnamed = min(blocks, self._unnamed)
        self._unnamed -= unnamed
        self._runs.evict(blocks - unnamed)

    def _end(self, path: Path, hit: int, full: int) -> None:
        computed_twice = hit < full and self._runs.has(path, full - 1)
        if computed_twice:
            self._runs.put_copy(path, full - 1)
        self._runs.put(path, full - computed_twice)
