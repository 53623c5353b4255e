"""vLLM's prefix cache: one pool of blocks in HBM, shared by running requests and by what others left.

A free block keeps its name until it is taken for something else; the front of the free queue is taken first. When a request ends its blocks
go to the back, tail first, and those without a name (its unfull last one) to the front. A lookup covers at most all tokens but one, so a
prompt that is all there computes its last block again, into a block of its own: it is there twice then, as are those that two requests
compute at once. Blocks have names when they are computed, and are found from then on, also while they are in use. A request begins when
its prompt's blocks are free, and takes more as its answer grows; one larger than the pool is not served.

Left out: that an answer's blocks have names as they fill, and that a prompt's have them from when their step begins.
Source: vLLM 0.33, v1/core/kv_cache_manager.py, block_pool.py.
"""

from kvplan.sim.store.blocks.pool import Pool, Use
from kvplan.sim.store.blocks.runs import depth


class VllmPool(Pool):
    """`usable` blocks: vLLM keeps one of its pool for itself, which is not in them."""

    def computed(self, use: Use, tokens: int) -> int:
        named, full = depth(use.pieces), tokens // self._block_tokens
        use.pieces += self._runs.name(use.path, use.pieces, full)
        return full - named

    def _forget(self, blocks: int) -> None:
        if blocks > 0:
            self._runs.evict(blocks)
            self._unnamed += blocks
