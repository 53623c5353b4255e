"""LMCache's memory: a flat cache of chunks below the engine. An unfull chunk is never stored, so it never hits; a lookup goes on to the
first chunk that is missing, and a prompt that is all there computes its last token again.

With LRU what a request uses is renewed tail before head, so a context is kept from its start: of one larger than the memory its head.
FIFO and LFU know no order within a context: its head may go first, and what follows lies there unfound. They cost by the chunk.

Left out: answers, which are not saved by default; what is being written. Source: LMCache, v1/storage_backend/cache_policy.
"""

from collections import OrderedDict, defaultdict
from collections.abc import Hashable, Sequence
from itertools import takewhile

from kvplan.sim.store.blocks.base import Path
from kvplan.sim.store.blocks.runs import OfRuns, depth


class LruChunks(OfRuns):
    """`usable` chunks, the least recently used goes."""

    def request(self, path: Path, tokens: int) -> int:
        """See `BlockCache`."""
        full = min(tokens // self._block_tokens, self._usable)
        held = self._runs.take(path, full)
        hit = depth(held)
        self._runs.evict(max(0, self._runs.blocks + full - self._usable))
        self._runs.give_back(held + self._runs.name(path, held, full))
        return min(hit * self._block_tokens, tokens - 1)


class _FlatChunks:
    """Chunks by key. Who goes is the subclass's."""

    def __init__(self, usable: int, block_tokens: int) -> None:
        self._usable = usable
        self._block_tokens = block_tokens

    @property
    def held(self) -> int:
        """See `BlockCache`."""
        return self._count()

    def request(self, path: Path, tokens: int) -> int:
        """See `BlockCache`."""
        keys = [path[chunk] for chunk in range(tokens // self._block_tokens)]
        hits = list(takewhile(self._has, keys))
        self._use(hits)
        if self._usable:
            self._store(keys)
        return min(len(hits) * self._block_tokens, tokens - 1)

    def _count(self) -> int:
        raise NotImplementedError

    def _has(self, key: Hashable) -> bool:
        raise NotImplementedError

    def _use(self, keys: Sequence[Hashable]) -> None:
        raise NotImplementedError

    def _store(self, keys: Sequence[Hashable]) -> None:
        raise NotImplementedError


class FifoChunks(_FlatChunks):
    """The one that came first goes."""

    def __init__(self, usable: int, block_tokens: int) -> None:
        super().__init__(usable, block_tokens)
        self._order: OrderedDict[Hashable, None] = OrderedDict()

    def _count(self) -> int:
        return len(self._order)

    def _has(self, key: Hashable) -> bool:
        return key in self._order

    def _use(self, keys: Sequence[Hashable]) -> None:
        pass

    def _store(self, keys: Sequence[Hashable]) -> None:
        for key in keys:
            if key not in self._order:
                if len(self._order) == self._usable:
                    self._order.popitem(last=False)
                self._order[key] = None


class LfuChunks(_FlatChunks):
    """The one that was used least often goes, of several the one that has been so the longest."""

    def __init__(self, usable: int, block_tokens: int) -> None:
        super().__init__(usable, block_tokens)
        self._uses: dict[Hashable, int] = {}
        self._by_uses: defaultdict[int, OrderedDict[Hashable, None]] = defaultdict(OrderedDict)
        self._least = 1

    def _count(self) -> int:
        return len(self._uses)

    def _has(self, key: Hashable) -> bool:
        return key in self._uses

    def _use(self, keys: Sequence[Hashable]) -> None:
        for key in reversed(keys):
            uses = self._uses[key]
            del self._by_uses[uses][key]
            self._place(key, uses + 1)

    def _store(self, keys: Sequence[Hashable]) -> None:
        for key in keys:
            if key not in self._uses:
                if len(self._uses) == self._usable:
                    self._evict()
                self._place(key, 1)
                self._least = 1

    def _place(self, key: Hashable, uses: int) -> None:
        self._uses[key] = uses
        self._by_uses[uses][key] = None

    def _evict(self) -> None:
        while not self._by_uses[self._least]:
            self._least += 1
        key, _ = self._by_uses[self._least].popitem(last=False)
        del self._uses[key]
