"""vLLM's prefix cache: one pool of blocks in HBM, shared by running requests and by what others left.

A free block keeps its name until it is taken for something else; the front of the free queue is taken first. When a request ends its blocks
go to the back, tail first, and those without a name (its unfull last one) to the front. A lookup covers at most all tokens but one, so a
prompt that is all there computes its last block again, into a block of its own: it is there twice then, as are those that two requests
compute at once. Blocks have names when they are computed, and are found from then on, also while they are in use. A request begins when
its prompt's blocks are free, and takes more as its answer grows; one larger than the pool is not served.

Left out: that an answer's blocks have names as they fill, and that a prompt's have them from when their step begins.
Source: vLLM 0.33, v1/core/kv_cache_manager.py, block_pool.py.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from kvplan.sim.store.blocks.base import Path
from kvplan.sim.store.blocks.runs import OfRuns, Pieces, depth


@dataclass
class Use:
    """What one request has of a pool."""

    path: Path
    hit: int
    """Blocks that were there."""
    pieces: Pieces
    """Those with names."""
    freed: int = 0
    """Blocks that nobody has had since it ended."""


class VllmPool(OfRuns):
    """`usable` blocks: vLLM keeps one of its pool for itself, which is not in them."""

    def __init__(self, usable: int, block_tokens: int, most_kept: int | None = None) -> None:
        super().__init__(usable, block_tokens)
        self._unnamed = usable
        """Free blocks without a name."""
        self._most_kept = usable if most_kept is None else most_kept
        """Free blocks that may have one."""

    @property
    def free(self) -> int:
        """Blocks that nobody uses."""
        return self._unnamed + self._runs.blocks

    @property
    def in_use(self) -> int:
        """Those that somebody does."""
        return self._usable - self.free

    @property
    def filled(self) -> int:
        """Blocks that are in use or have a name."""
        return self._usable - self._unnamed

    def fits(self, tokens: int) -> bool:
        """Whether a prompt can be served."""
        return self.needed(tokens) <= self._usable

    def request(self, path: Path, tokens: int) -> int:
        """See `BlockCache`."""
        if not self.fits(tokens):
            return 0
        use = self.begin(path, tokens)
        self.computed(use, tokens)
        self.end(use, tokens)
        return use.hit * self._block_tokens

    # --- a request among others -----------------------------------------------------------------------------------------------

    def reach(self, path: Path, tokens: int) -> tuple[int, int]:
        """Blocks that a prompt of so many tokens would hit, and how many of these are in use."""
        return self._runs.reach(path, self._most(tokens))[:2]

    def taken(self, path: Path, tokens: int, context: int) -> int:
        """Free blocks that a request takes, of `context` tokens at its end."""
        return self.needed(context) - self.reach(path, tokens)[1]

    def begin(self, path: Path, tokens: int) -> Use:
        """A request that has what it takes begins: a prompt of so many tokens."""
        pieces = self._runs.take(path, self._most(tokens))
        use = Use(path, depth(pieces), pieces)
        self.grow(self.needed(tokens) - use.hit)
        return use

    def grow(self, blocks: int) -> None:
        """Requests take so many free blocks more: from the front of the queue, where those without a name are."""
        unnamed = min(blocks, self._unnamed)
        self._unnamed -= unnamed
        self._runs.evict(blocks - unnamed)

    def computed(self, use: Use, tokens: int) -> int:
        """So many tokens of a request are there now. Returns the blocks that have names since."""
        named, full = depth(use.pieces), tokens // self._block_tokens
        use.pieces += self._runs.name(use.path, named, full)
        return full - named

    def end(self, use: Use, tokens: int) -> None:
        """A request has ended, or given way, of which so many tokens have blocks."""
        before = self.free
        self._unnamed += self.needed(tokens) - depth(use.pieces)
        self._runs.give_back(use.pieces)
        use.freed = self.free - before
        self._drop(self._runs.blocks - self._most_kept)

    def counted(self, uses: Iterable[tuple[Use, int]]) -> tuple[int, int]:
        """For guards: blocks in use by these, of so many tokens each, and free ones, run by run."""
        kept, used = self._runs.counted()
        return used + sum(self.needed(tokens) - depth(use.pieces) for use, tokens in uses), kept + self._unnamed

    def _most(self, tokens: int) -> int:
        return (tokens - 1) // self._block_tokens

    def needed(self, tokens: int) -> int:
        """Blocks of so many tokens."""
        return -(-tokens // self._block_tokens)

    def _drop(self, blocks: int) -> None:
        """So many lose their names."""
        if blocks > 0:
            self._runs.evict(blocks)
            self._unnamed += blocks
