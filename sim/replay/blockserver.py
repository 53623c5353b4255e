"""One replica's pool of blocks and the tiers of chunks below it, without a server: what a turn finds when it starts, and what it leaves.

Turns start and end when they are said to, hold their blocks between, and begin when others have ended if the pool has no room for them.
Lookups, stores and what comes up go as in `kvplan.sim.engine.offloading`, but take no time: what is offered is there.
"""

from collections.abc import Iterable, Sequence
from heapq import heappop, heappush
from typing import NamedTuple

from kvplan.sim.blockpool import BlockPool
from kvplan.sim.store.blocks.base import Context
from kvplan.sim.store.blocks.chunks import Chunks, reached, shares
from kvplan.sim.store.blocks.offload import beyond
from kvplan.sim.store.blocks.pool import Use
from kvplan.sim.store.blocks.runs import Runs, depth
from kvplan.sim.store.blocks.tiered import context_together


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
        self._tiers = [Chunks(usable, threshold) for usable in chunks]
        self._ttl_s = ttl_s
        self.written = [0] * len(chunks)
        """Chunks that each tier below had from above it."""
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
        self._pool.grow(self._pool.needed(turn.context) - self._pool.needed(turn.prompt))
        hit = use.hit * self._tokens
        found = self._below(turn, hit, now)
        self._pool.computed(use, turn.prompt)
        self._pool.decoded(use, turn.prompt, turn.context, now)
        self._offer(0, turn.path, turn.prompt // self._chunk_tokens, now)
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
        offered = self._offer(0, turn.path, full, now) if full > turn.prompt // self._chunk_tokens else 0
        for tier in self._tiers[offered:]:  # what is offered is renewed
            tier.renew(self._chunks(turn.path), full, now)
        self._pool.end(use, turn.context, now)

    def _below(self, turn: BlockTurn, hit: int, now: float) -> list[int]:
        """Tokens that each tier below has of a prompt beyond a hit; they come up to the first."""
        context, chunk_tokens = self._chunks(turn.path), self._chunk_tokens
        stops = reached(self._tiers[0] if self._tiers else None, self._tiers[1:], context, (turn.prompt - 1) // chunk_tokens)
        tokens = beyond(stops[-1], turn.prompt, hit, chunk_tokens)
        if tokens:
            self._store(0, context, stops[-1], now)
        return shares(stops, hit, tokens, chunk_tokens)

    def _offer(self, tier: int, path: Context, full: int, now: float) -> int:
        """The first chunks of a context are offered to a tier, and what it takes to the one below. Returns the first that they are not."""
        if tier == len(self._tiers):
            return tier
        stored = self._store(tier, self._chunks(path), full, now)
        self.written[tier] += stored
        return self._offer(tier + 1, path, full, now) if stored else tier + 1

    def _store(self, tier: int, context: Context, full: int, now: float) -> int:
        """Chunks that a tier takes."""
        coming = self._tiers[tier].store(context, full, now)
        if coming is None:
            return 0
        self._tiers[tier].arrive(coming, now)
        return coming.stop - coming.start

    def _chunks(self, path: Context) -> Context:
        return context_together(path, self._chunk_tokens // self._tokens)
