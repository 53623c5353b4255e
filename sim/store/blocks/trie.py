"""The cache of kvcache-simulator, a tool without an engine: a trie of blocks that gives up leaves only.

An unfull last block is a block like others, where the trace has a hash of it, and hits its tokens; a prompt that is all there hits whole.
Where a context does not fit, its head is kept: filled up, the tool gives up the last block that it has just placed, and stops there.

Source: kvcache-simulator 0.1.3 (PyPI), policies.py.
"""

from collections import OrderedDict
from collections.abc import Hashable
from itertools import takewhile

from kvplan.sim.store.blocks.base import Path
from kvplan.sim.store.blocks.runs import OfRuns, depth


def hashed_blocks(path: Path, tokens: int, block_tokens: int) -> int:
    """Blocks of a prompt, with an unfull one that has a key."""
    return min(len(path), -(-tokens // block_tokens))


class LruTrie(OfRuns):
    """The leaf that was used least recently goes."""

    def request(self, path: Path, tokens: int) -> int:
        """See `BlockCache`."""
        blocks = hashed_blocks(path, tokens, self._block_tokens)
        held = self._runs.take(path, blocks)
        hit = depth(held)
        missing = self._runs.blocks + blocks - self._usable
        if missing > self._runs.blocks:
            missing, blocks = self._runs.blocks, max(hit, self._usable - 1)
        self._runs.evict(max(0, missing))
        self._runs.give_back(held + self._runs.name(path, held, blocks))
        return min(hit * self._block_tokens, tokens)


class FifoTrie:
    """The block that came first goes, leaf or not; it costs by the block."""

    def __init__(self, usable: int, block_tokens: int) -> None:
        self._usable = usable
        self._block_tokens = block_tokens
        self._order: OrderedDict[Hashable, None] = OrderedDict()

    @property
    def held(self) -> int:
        """See `BlockCache`."""
        return len(self._order)

    def request(self, path: Path, tokens: int) -> int:
        """See `BlockCache`."""
        keys = [path[block] for block in range(hashed_blocks(path, tokens, self._block_tokens))]
        hit = len(list(takewhile(self._order.__contains__, keys)))
        for key in keys if self._usable else ():
            if key not in self._order:
                if len(self._order) == self._usable:
                    self._order.popitem(last=False)
                self._order[key] = None
        return min(hit * self._block_tokens, tokens)
