"""vLLM's pool of blocks for a model with layers that attend to a window: each group of layers has blocks of its own, all of one pool.

A lookup finds the longest prefix whose blocks the groups with full attention have all of, and those with a window the last, as far as the
window reaches; only these are used. What a new request needs again is named: of windows every block (`dense`), or those before the longest
prefix that a lookup of the same prompt could find (the replay boundary, vLLM's default). The rest is free without a name when the request
ends. Otherwise it is `kvplan.sim.store.blocks.vllm`, block by block, and costs by the block.

Left out: what vLLM also keeps where it knows that prompts part. Source: vLLM 0.33, v1/core/kv_cache_coordinator.py.
"""

from collections import OrderedDict
from collections.abc import Hashable, Iterable, Iterator
from dataclasses import dataclass
from itertools import count

from kvplan.sim.store.blocks.base import Path


@dataclass(frozen=True)
class Groups:
    """Of layers with as many layers each."""

    full: int
    """Those that attend to everything."""
    windowed: int
    window_tokens: int
    dense: bool = False
    """Whether every block of a window is named."""


class WindowedPool:
    """`usable` blocks, each of one group."""

    def __init__(self, usable: int, block_tokens: int, groups: Groups) -> None:
        self._usable = usable
        self._block_tokens = block_tokens
        self._full = range(groups.full)
        self._windowed = range(groups.full, groups.full + groups.windowed)
        self._reach = -(-(groups.window_tokens - 1) // block_tokens)
        self._dense = groups.dense
        self._unnamed = usable
        self._named = _Named()

    @property
    def held(self) -> int:
        """See `BlockCache`."""
        return len(self._named)

    def request(self, path: Path, tokens: int) -> int:
        """See `BlockCache`."""
        most, blocks = (tokens - 1) // self._block_tokens, -(-tokens // self._block_tokens)
        hit = self._hit(path, most)
        used = [(group, path[block]) for group, block in self._reached(hit, hit)]
        needed = (blocks - hit) * (len(self._full) + len(self._windowed))
        if needed + len(used) > self._usable:
            return 0
        for name in used:
            self._named.take(name)
        self._allocate(needed)
        kept = list(self._kept(hit, tokens // self._block_tokens, most))
        for group, block in kept:
            self._named.put((group, path[block]), first=block < hit)
        self._unnamed += needed + len(used) - len(kept)
        return hit * self._block_tokens

    def _hit(self, path: Path, most: int) -> int:
        """Blocks of the longest prefix that all groups can go on from."""
        blocks = 0
        while blocks < most and self._has(self._full, path[blocks]):
            blocks += 1
        found = 0
        for block in range(blocks - 1, -1, -1):
            found = found + 1 if self._has(self._windowed, path[block]) else 0
            if found == self._reach:
                return block + found
        return found

    def _has(self, groups: Iterable[int], key: Hashable) -> bool:
        return all((group, key) in self._named for group in groups)

    def _reached(self, hit: int, stop: int) -> Iterator[tuple[int, int]]:
        """(group, block) of what a request has of its first `stop` blocks after that hit, the last of each group first."""
        for groups, start in ((self._full, 0), (self._windowed, max(0, hit - self._reach))):
            for group in groups:
                yield from ((group, block) for block in range(stop - 1, start - 1, -1))

    def _kept(self, hit: int, full: int, most: int) -> Iterator[tuple[int, int]]:
        """Of these, what has a name when the request ends."""
        for group, block in self._reached(hit, full):
            if group in self._full or block < hit or self._dense or most - self._reach <= block < most:
                yield group, block

    def _allocate(self, blocks: int) -> None:
        unnamed = min(blocks, self._unnamed)
        self._unnamed -= unnamed
        self._named.evict(blocks - unnamed)


class _Named:
    """Free blocks with names, the next to be taken first. Several may have one name: the oldest is used first."""

    def __init__(self) -> None:
        self._numbers = count()
        self._order: OrderedDict[int, Hashable] = OrderedDict()
        self._copies: dict[Hashable, list[int]] = {}

    def __len__(self) -> int:
        return len(self._order)

    def __contains__(self, name: Hashable) -> bool:
        return name in self._copies

    def take(self, name: Hashable) -> None:
        """One of them is in use."""
        del self._order[self._copies[name][0]]
        self._forget(name, self._copies[name][0])

    def put(self, name: Hashable, first: bool) -> None:
        """One is free again, and used before others of its name or after them."""
        number = next(self._numbers)
        self._order[number] = name
        copies = self._copies.setdefault(name, [])
        copies.insert(0 if first else len(copies), number)

    def evict(self, count: int) -> None:
        """So many are taken for something else."""
        for _ in range(count):
            number, name = self._order.popitem(last=False)
            self._forget(name, number)

    def _forget(self, name: Hashable, number: int) -> None:
        self._copies[name].remove(number)
        if not self._copies[name]:
            del self._copies[name]
