"""SGLang's radix cache: a tree whose nodes are runs of pages. Only leaves that nobody uses are given up, the least recently used first, and
whole nodes go, also where less room is needed.

A node ends where a context has parted from it or has ended, and where a step did that computed a part of it. A lookup covers at most all
tokens but one. What a request has computed joins the tree when its prefill has ended, and its answer when that has: of a page that is
there by then the tree's is used, and the request's own is free. So no page is there twice. A request whose pages do not fit is not served.

Left out: that a node's lower half is as new as the upper when it is cut; that requests enter by the longest prefix, which is not SGLang's
default.
Source: SGLang, srt/mem_cache/radix_cache.py.
"""

from typing import ClassVar

from kvplan.sim.store.blocks.pool import Pool, Use
from kvplan.sim.store.blocks.runs import depth


class RadixCache(Pool):
    """`usable` pages. Its nodes stay apart."""

    JOINS: ClassVar[bool] = False

    def computed(self, use: Use, tokens: int) -> int:
        known, full = depth(use.pieces), tokens // self._block_tokens
        use.pieces += self._runs.take(use.path, full, known)
        there = depth(use.pieces)
        self._unnamed += there - known
        size = full - there if self._together is None else self._together
        for start in range(there, full, max(1, size)):
            use.pieces += self._runs.name(use.path, use.pieces, min(full, start + size))
        return full - there

    def _forget(self, blocks: int) -> None:
        while blocks > 0:
            gone = self._runs.evict_first()
            self._unnamed += gone
            blocks -= gone
