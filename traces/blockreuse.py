"""What a cache of blocks that all requests share would hit, by its size: from the block hashes alone, without simulating a server.

A request hits the leading run of its full blocks that an earlier request had and that are still held; then all of its full blocks are held.
Answers have no hashes. What was used least recently goes first, and the tail of a context before its head, as in the engines.
"""

from bisect import bisect_left
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from kvplan.traces.prefixes import Prefixes, prefixes
from kvplan.traces.reuse import Sums
from kvplan.traces.workload import Blocks


@dataclass(frozen=True)
class _Floors:
    """Heights, ascending, and the sums of the lowest of them."""

    heights: np.ndarray
    sums: np.ndarray

    @classmethod
    def of(cls, heights: np.ndarray) -> "_Floors":
        ascending = np.sort(heights)
        return cls(ascending, np.append(0, np.cumsum(ascending)))

    def passed(self, level: np.ndarray) -> np.ndarray:
        """Per level: the sum of what it is above each height that it is above."""
        below = np.searchsorted(self.heights, level)
        return below * level - self.sums[below]


@dataclass(frozen=True)
class BlockReuse:
    """Runs of blocks that were used together before: block i of a run (from 1) hits in a cache of at least `before + i` blocks."""

    before: np.ndarray
    """int64 per run: distinct blocks used since, that are not of the run."""
    length: np.ndarray
    """int64 per run: its blocks."""
    distinct: int
    """Different blocks of all requests: what an endless cache holds in the end."""

    @property
    def hits(self) -> int:
        """Blocks that an endless cache hits."""
        return int(self.length.sum())

    def capacity_for(self, share: float) -> int:
        """Blocks of the smallest cache that hits this share of what an endless one does."""
        return bisect_left(range(self.enough), share * self.hits, key=lambda capacity: float(self.hits_within(np.array(capacity))))

    @property
    def smallest(self) -> int:
        """Blocks of the smallest cache that hits anything; 0 when none does."""
        return int(self.before.min()) + 1 if len(self.before) else 0

    @property
    def enough(self) -> int:
        """Blocks of the smallest cache that hits what an endless one does."""
        return int((self.before + self.length).max()) if len(self.before) else 0

    def hits_within(self, capacity: np.ndarray) -> np.ndarray:
        """int64 per capacity in blocks: blocks that a cache of it hits. Exact as long as each request fits in."""
        begin, end = self._floors
        return begin.passed(capacity) - end.passed(capacity)

    @cached_property
    def _floors(self) -> tuple["_Floors", "_Floors"]:
        return _Floors.of(self.before), _Floors.of(self.before + self.length)


def block_reuse(blocks: Blocks, tokens: np.ndarray, order: np.ndarray) -> BlockReuse:
    """What blocks are used again; `tokens` of each turn's context, and `order`: the turns as they arrive."""
    tree = full_blocks(blocks, tokens, order)
    return BlockReuse(*_distances(tree), distinct=len(tree.beginner))


def full_blocks(blocks: Blocks, tokens: np.ndarray, order: np.ndarray) -> Prefixes:
    """The full blocks of contexts, as in `block_reuse`."""
    counts = np.minimum(np.diff(blocks.first), tokens // blocks.block_tokens)
    return prefixes(blocks.ids, blocks.first[:-1][order], counts[order])


def _distances(tree: Prefixes) -> tuple[np.ndarray, np.ndarray]:
    """(before, length) of the runs that were used before.

    What was last used by one request is one entry of an LRU order: a run of its context up to its tail, as others can only have used its
    head since. So a look costs O(log n) for each request that used a part last, not for each block.
    Source: Mattson et al. 1970, with the tree of Bennett and Kruskal 1975.
    """
    owner, last, length = _runs(tree)
    counts = tree.counts.tolist()
    bounds = np.searchsorted(owner, np.arange(len(counts) + 1)).tolist()
    last, length = last.tolist(), length.tolist()
    held, before = Sums(len(counts)), np.zeros(len(last), np.int64)
    for request, blocks in enumerate(counts):
        runs = range(bounds[request], bounds[request + 1])
        for run in runs:
            before[run] = held.total - held.before(last[run] + 1)
        for run in runs:
            held.add(last[run], -length[run])
        held.add(request, blocks)
    return before, np.array(length, np.int64)


def _runs(tree: Prefixes) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(request, request that used it last, length) of the runs of blocks that one request used last, head first."""
    owner = tree.owner
    order = np.argsort(tree.node, kind="stable")
    again = np.flatnonzero(np.diff(tree.node[order]) == 0)
    last = np.full(len(owner), -1, np.int64)
    last[order[again + 1]] = owner[order[again]]
    used = np.flatnonzero(last >= 0)
    owner, last = owner[used], last[used]
    start = np.flatnonzero(np.append(True, (np.diff(owner) != 0) | (np.diff(last) != 0))[: len(used)])
    return owner[start], last[start], np.diff(np.append(start, len(used)))
