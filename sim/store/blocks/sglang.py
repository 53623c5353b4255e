"""SGLang's radix cache: a tree whose nodes are runs of pages. Only leaves that nobody uses are given up, the least recently used first, and
whole nodes go, also where less room is needed.

A node ends where a context has parted from it or has ended. A lookup covers at most all tokens but one; what a request computes again of a
page that is there is freed at its end, and so is its unfull last page. A request whose pages do not fit is not served.

Left out: answers, which join the tree; several requests at once; that a node's lower half is as new as the upper when it is cut.
Source: SGLang, srt/mem_cache/radix_cache.py.
"""

from kvplan.sim.store.blocks.base import Path
from kvplan.sim.store.blocks.runs import OfRuns, depth


class RadixCache(OfRuns):
    """`usable` pages. Its nodes stay apart."""

    def __init__(self, usable: int, block_tokens: int) -> None:
        super().__init__(usable, block_tokens, joins=False)

    def request(self, path: Path, tokens: int) -> int:
        """See `BlockCache`."""
        full, pages = tokens // self._block_tokens, -(-tokens // self._block_tokens)
        if pages > self._usable:
            return 0
        nodes = self._runs.take(path, (tokens - 1) // self._block_tokens)
        hit = depth(nodes)
        while self._runs.blocks + pages > self._usable:
            self._runs.evict_run()
        nodes += self._runs.take(path, full, hit)
        self._runs.give_back(nodes + self._runs.name(path, depth(nodes), full))
        return hit * self._block_tokens
