"""A tier of chunks that are objects, keys and values apart: a storage that knows keys and no contexts, as Mooncake's store.

An object is asked for when it is to come up, and not when a tier above has it, and has a lease then. Objects lie in shards, as chance has
it. Above a watermark a twentieth of all goes at once, of each shard those first whose leases ended first. So of many contexts some chunk
goes, where a cache of contexts gives up one of them; and a chunk is of use only if all before it are there, or above.

Left out: what one server asks for and another has; objects that are too many for what is free. Sources: Mooncake before July 2026 (pull
request 2871 changed the defaults), mooncake-store/src/master_service.cpp, BatchEvict, and include/types.h; SGLang 0.5,
srt/mem_cache/hiradix_cache.py and storage/mooncake_store: what DRAM lacks is asked for, what is new in it is put, a page as two objects.
"""

import math
import random
from collections.abc import Hashable, Sequence

from kvplan.sim.store.blocks.base import Context, Path
from kvplan.sim.store.blocks.below import Below, Moves

_SHARD_BITS = 10
"""There are 1,024 shards."""
_PARTS = 2
"""Objects of a chunk."""
_WATERMARK, _SHARE = 0.95, 0.05
"""How full it may be, and what goes then."""
_LEASE_S = 5.0

Key = tuple[Hashable, int]
"""A chunk's, and which part of it."""


class Put(Moves):
    """Chunks on their way into a storage; from `start` to `stop` with those between that are there."""

    def __init__(self, path: Context, start: int, stop: int, missing: list[Hashable]) -> None:
        super().__init__(path, start, stop)
        self.missing = missing

    @property
    def chunks(self) -> int:
        """How many."""
        return len(self.missing)


class Objects(Below):
    """Room for `usable` chunks; costs by the object."""

    def __init__(self, usable: int) -> None:
        self.dropped = 0
        self._room = _PARTS * usable
        self._shards: list[dict[Key, float]] = [{} for _ in range(1 << _SHARD_BITS)]
        """When the lease of each object ends, or has."""
        self._shard_of: dict[Key, dict[Key, float]] = {}
        """Of those that have room."""
        self._coming: set[Hashable] = set()
        self._chance = random.Random(0)
        """Puts objects into shards, as their hashes do."""
        self._stuck_s = -1.0
        """When nothing could go."""

    @property
    def held(self) -> int:
        """See `Below`: also in part."""
        return -(-len(self._shard_of) // _PARTS)

    def reach(self, path: Path, most: int, start: int = 0) -> int:
        stop = start
        while stop < most and self._has(path[stop]) and path[stop] not in self._coming:
            stop += 1
        return stop

    def ask(self, path: Path, start: int, stop: int, now: float) -> None:
        for chunk in range(start, stop):
            self._lease(path[chunk], now)

    def store(self, path: Context, full: int, now: float = 0.0, start: int = 0) -> "Put | None":
        keys = [path[chunk] for chunk in range(start, full)]
        missing = [key for key in keys if not self._has(key)]
        for key in keys:
            self._lease(key, now)
        added = [key for key in missing if self._add(key, now)]
        self.dropped += len(added) < len(missing)
        return Put(path, start, full, added) if added else None

    def arrive(self, coming: "Put", now: float = 0.0) -> None:
        self._coming.difference_update(coming.missing)

    def renew(self, path: Context, full: int, now: float = 0.0) -> None:
        """No matter."""

    def expire(self, ttl_s: float, now: float) -> Sequence[object]:
        """See `Below`: those that nobody has asked for."""
        over = [key for key, shard in self._shard_of.items() if shard[key] + ttl_s < now and key[0] not in self._coming]
        for key in over:
            self._drop(key)
        return over

    def counted(self) -> tuple[int, int]:
        """See `Below`: by their objects."""
        return -(-sum(map(len, self._shards)) // _PARTS), self._room // _PARTS

    # --- objects --------------------------------------------------------------------------------------------------------------

    def _has(self, chunk: Hashable) -> bool:
        return all((chunk, part) in self._shard_of for part in range(_PARTS))

    def _lease(self, chunk: Hashable, now: float) -> None:
        for part in range(_PARTS):
            shard = self._shard_of.get((chunk, part))
            if shard is not None:
                shard[chunk, part] = max(shard[chunk, part], now + _LEASE_S)

    def _add(self, chunk: Hashable, now: float) -> bool:
        """Whether there was room."""
        keys = [(chunk, part) for part in range(_PARTS) if (chunk, part) not in self._shard_of]
        if len(self._shard_of) + len(keys) > _WATERMARK * self._room and self._stuck_s != now and not self._evict(now):
            self._stuck_s = now
        if len(self._shard_of) + len(keys) > self._room:
            return False
        for key in keys:
            self._shard_of[key] = shard = self._shards[self._chance.getrandbits(_SHARD_BITS)]
            shard[key] = now
        self._coming.add(chunk)
        return True

    def _evict(self, now: float) -> int:
        """Shard after shard, from one that chance names, so many go that the share of all that were looked at is met; returns how many."""
        first, seen, gone = self._chance.getrandbits(_SHARD_BITS), 0, 0
        for shard in self._shards[first:] + self._shards[:first]:
            seen += len(shard)
            due = math.ceil(_SHARE * seen) - gone
            for key in self._free(shard, now)[:due] if shard and due > 0 else ():
                self._drop(key)
                gone += 1
        return gone

    def _free(self, shard: dict[Key, float], now: float) -> list[Key]:
        """Those that may go, the first to go first."""
        free = [key for key, ends_s in shard.items() if ends_s <= now and key[0] not in self._coming]
        return sorted(free, key=shard.__getitem__)

    def _drop(self, key: Key) -> None:
        del self._shard_of.pop(key)[key]
