"""kvcache-simulator's bound for caches that give up leaves only: the leaf whose next use is farthest goes, and only for a block that is
used sooner; of several as far, the one that came up last. It costs by the block.

Source: kvcache-simulator 0.1.3 (PyPI), policies.py, `optimal`.
"""

import math
from collections.abc import Hashable, Sequence
from heapq import heappop, heappush

from kvplan.sim.store.blocks.base import Path
from kvplan.sim.store.blocks.trie import hashed_blocks


class OptimalTrie:
    """`usable` blocks, for requests that are all known and come in this order."""

    def __init__(self, usable: int, block_tokens: int, paths: Sequence[Path], tokens: Sequence[int]) -> None:
        self._usable = usable
        self._block_tokens = block_tokens
        counts = [hashed_blocks(path, length, block_tokens) for path, length in zip(paths, tokens, strict=True)]
        self._coming = iter(_numbered(paths, counts))
        self._leaves = _Leaves()

    @property
    def held(self) -> int:
        """See `BlockCache`."""
        return len(self._leaves.next_use)

    def request(self, path: Path, tokens: int) -> int:
        """See `BlockCache`."""
        blocks, held = next(self._coming), self._leaves
        hit = 0
        while hit < len(blocks) and blocks[hit][0] in held.next_use:
            held.hold(*blocks[hit])
            hit += 1
        spared = blocks[hit - 1][0] if hit else 0
        for number, parent, next_use in blocks[hit:]:
            is_full = len(held.next_use) == self._usable
            if (is_full and not held.evict(next_use, spared)) or (parent and parent not in held.next_use):
                break
            held.hold(number, parent, next_use)
        return min(hit * self._block_tokens, tokens)


class _Leaves:
    """Blocks that are held, by number, and those of them without children by their next use."""

    def __init__(self) -> None:
        self.next_use: dict[int, float] = {}
        self._parent: dict[int, int] = {}
        self._children: dict[int, int] = {}
        self._heap: list[tuple[float, int]] = []

    def hold(self, number: int, parent: int, next_use: float) -> None:
        """It is there, and used next then."""
        if number not in self.next_use:
            self._parent[number] = parent
            self._children[parent] = self._children.get(parent, 0) + 1
        self.next_use[number] = next_use
        self._offer(number)

    def evict(self, next_use: float, spared: int) -> bool:
        """Whether a leaf that is used after that, and is not spared, has gone."""
        held_back = False
        while self._heap and (self._is_stale(*self._heap[0]) or -self._heap[0][1] == spared):
            held_back |= not self._is_stale(*heappop(self._heap))
        gone = bool(self._heap) and -self._heap[0][0] > next_use
        if gone:
            self._remove(-heappop(self._heap)[1])
        if held_back:
            self._offer(spared)
        return gone

    def _remove(self, number: int) -> None:
        del self.next_use[number]
        parent = self._parent[number]
        self._children[parent] -= 1
        if parent:
            self._offer(parent)

    def _offer(self, number: int) -> None:
        if not self._children.get(number):
            heappush(self._heap, (-self.next_use[number], -number))

    def _is_stale(self, key: float, number: int) -> bool:
        return self.next_use.get(-number) != -key or bool(self._children.get(-number))


def _numbered(paths: Sequence[Path], counts: Sequence[int]) -> list[list[tuple[int, int, float]]]:
    """Per request and block: its number, from 1 in order of appearance; its parent's, 0 for none; the request that uses it next."""
    numbers: dict[Hashable, int] = {}
    rows = [
        [numbers.setdefault(path[block], len(numbers) + 1) for block in range(count)] for path, count in zip(paths, counts, strict=True)
    ]
    following: dict[int, float] = {}
    found = []
    for request in range(len(rows) - 1, -1, -1):
        row = rows[request]
        found.append([(number, parent, following.get(number, math.inf)) for number, parent in zip(row, [0, *row], strict=False)])
        following.update(dict.fromkeys(row, float(request)))
    return found[::-1]
