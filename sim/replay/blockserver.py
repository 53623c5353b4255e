"""One replica's pool of blocks and the tiers of chunks below it, without a server: what a turn finds when it starts, and what it leaves.

Turns start and end when they are said to, hold their blocks between, and begin when others have ended if the pool has no room for them.
Lookups, stores and what comes up go as in `kvplan.sim.engine.offloading`, but take no time: what is offered is there.
"""

from collections.abc import Iterable, Sequence
from heapq import heappop, heappush
from typing import NamedTuple

from kvplan.sim.blockpool import BlockPool
from kvplan.sim.store.blocks.base import Context
from kvplan.sim.store.blocks.below import Below
from kvplan.sim.store.blocks.chunks import Coming, shares
from kvplan.sim.store.blocks.offload import beyond
from kvplan.sim.store.blocks.pool import Use
from kvplan.sim.store.blocks.runs import Runs, depth


class BlockTurn(NamedTuple):
    """Tokens of one."""

    path: Context
    prompt: int
    """With the history."""
    context: int
    """At its end."""
    saved: int
    """Of these, that are offered below when it ends; its prompt has been when it started."""


def endless_hits(turns: Iterable[BlockTurn], block_tokens: int) -> int:
    """Tokens that they find of each other, one after the other, where nothing is ever given up."""
    runs, hits = Runs(), 0
    for turn in turns:
        use = runs.take(turn.path, (turn.prompt - 1) // block_tokens)
        hits += depth(use) * block_tokens
        runs.give_back(use + runs.name(turn.path, use, turn.context // block_tokens))
    return hits


class BlockServer:
    """`chunks`: for how many each tier below has room, the first first; one is stored when it is offered for the `threshold`-th time. What
    nobody has used for `ttl_s` goes."""

    def __init__(self, pool: BlockPool, chunks: Sequence[int], threshold: int = 1, ttl_s: float | None = None) -> None:
        self._pool = pool.empty()
        self._tokens, self._chunk_tokens = pool.block_tokens, pool.chunk_tokens
        self._chunking = pool.chunking
        self._tiers = [pool.chunking.tier(usable, threshold) for usable in chunks]
        self._lower: list[Below] = [*self._tiers[1:]]
        self._ttl_s = ttl_s
        self.written = [0] * len(chunks)
        """Blocks of the pool that each tier below had from above it."""
        self.rose = [0] * len(chunks)
        """Chunks that came up from each tier below to the first for the turn that started last."""
        self._running: list[tuple[float, int, Use, BlockTurn]] = []
        """A heap of (end, number, ...)."""
        self._started = 0

    def start(self, turn: BlockTurn, now: float, ends: float) -> list[int]:
        """A turn starts; returns the tokens that it finds in the pool, and beyond those in each tier below."""
        while self._running and (self._running[0][0] <= now or not self._fits(turn)):
            self._end(min(self._running[0][0], now))
        if self._ttl_s is not None:
            self._expire(self._ttl_s, now)
        use = self._pool.begin(turn.path, turn.prompt)
        hit = use.hit * self._tokens
        found = self._below(turn, hit, now)
        if sum(found):
            self._pool.loads(use, hit + sum(found))
        self._pool.computed(use, turn.prompt)
        self._pool.decoded(use, turn.prompt, turn.context, now)
        self._offer(0, self._chunking.context(turn.path, use), turn.prompt // self._chunk_tokens, now)
        self._started += 1
        heappush(self._running, (ends, self._started, use, turn))
        return [hit, *found]

    def _fits(self, turn: BlockTurn) -> bool:
        """Whether the pool has what a turn takes; most often without what others use of its context."""
        pool = self._pool
        return pool.alone(turn.prompt, turn.context) <= pool.free or pool.taken(turn.path, turn.prompt, turn.context) <= pool.free

    def _expire(self, ttl_s: float, now: float) -> None:
        """What nobody has used for longer goes."""
        self._pool.expire(ttl_s, now)
        for tier in self._tiers:
            tier.expire(ttl_s, now)

    def _end(self, now: float) -> None:
        """The next to end does."""
        _, _, use, turn = heappop(self._running)
        full = turn.saved // self._chunk_tokens
        self._pool.computed(use, turn.context)
        if full > turn.prompt // self._chunk_tokens:
            self._offer(0, self._chunking.context(turn.path), full, now, turn.prompt // self._chunk_tokens)
        for tier in self._tiers:
            tier.renew(self._chunking.context(turn.path, use), full, now)
        self._pool.end(use, turn.context, now)

    def _below(self, turn: BlockTurn, hit: int, now: float) -> list[int]:
        """Tokens that each tier below has of a prompt beyond a hit; they come up to the first."""
        first = self._tiers[0] if self._tiers else None
        there = self._chunking.look_up(first, self._lower, turn.path, turn.prompt, hit)
        tokens = beyond(there.stops[-1], turn.prompt, hit, self._chunk_tokens)
        self.rose = [0] * len(self._tiers)
        if tokens:
            for rise in there.rises:
                self.rose[rise.tier - 1] = rise.chunks
            self._store(0, there.path, there.stops[-1], now)
        return shares(there.stops, hit, tokens, self._chunk_tokens)

    def _offer(self, tier: int, context: Context, full: int, now: float, new: int = 0) -> None:
        """The first chunks of a context are offered to a tier, new from one on, and what it takes to the one below."""
        coming = self._store(tier, context, full, now, new) if tier < len(self._tiers) else None
        if coming is not None:
            self.written[tier] += self._chunking.written(coming, tier)
            self._offer(tier + 1, context, full, now)

    def _store(self, tier: int, context: Context, full: int, now: float, new: int = 0) -> Coming | None:
        """What a tier takes."""
        coming = self._tiers[tier].store(context, full, now, new)
        if coming is not None:
            self._tiers[tier].arrive(coming, now)
        return coming
