"""Tiers of chunks below one replica's pool of blocks, written through: the first from HBM, each other from the one above it when a chunk
has come there. A lookup goes on where the pool's hit ends. What only a lower tier has comes up to the first before it is loaded, if that
has room; or it comes ahead of its job alone (`kvplan.sim.engine.blockfetch`). A chunk is found in a tier when all of it has come.

Where jobs are deferred, a job asks for its chunks before it starts: what only a lower tier has begins to come up then, and the job comes
again when all is there that it would load, also what is being stored, or loaded by another. Elsewhere it takes what is there. What a chunk
is, and what tiers have of a context together, is said by `kvplan.sim.store.blocks.chunking`.

Stores and what comes up are booked on the links when they begin, and end without an event: `settle` ends what is due before anything else
is asked or told. Left out: blocks of HBM that are kept until they are stored; chunks without those before them: what comes up begins where
the first tier ends, though HBM may have some of it.
"""

from collections.abc import Sequence
from heapq import heappop, heappush

from kvplan.sim.blockpool import BlockPool
from kvplan.sim.deployment import Deployment
from kvplan.sim.engine.link import Link
from kvplan.sim.engine.paths import Paths
from kvplan.sim.store.blocks.base import Context
from kvplan.sim.store.blocks.below import Below, Moves, Part
from kvplan.sim.store.blocks.chunking import Chunking
from kvplan.sim.store.blocks.chunks import Chunks, Coming, Lookup, Rise, shares
from kvplan.sim.store.blocks.level import Level
from kvplan.sim.store.blocks.objects import Objects
from kvplan.sim.store.blocks.offload import beyond
from kvplan.sim.store.blocks.ordered import Orders
from kvplan.sim.store.blocks.pool import Use
from kvplan.sim.store.blocks.runs import Pieces
from kvplan.sim.store.blocks.underway import UnderWay


class Found:
    """What a lookup has found of a context."""

    def __init__(self, there: Lookup, hit: int, tokens: int, ready_s: float, chunk_tokens: int) -> None:
        self.there = there
        self.hit, self.tokens = hit, tokens
        """Tokens that the pool has, and beyond those."""
        self.ready_s = ready_s
        """When all of it can be in the first tier."""
        self.chunk_tokens = chunk_tokens

    def shares(self, tokens: int, before: Sequence[int] | None = None) -> list[int]:
        """Tokens of each tier of so many that are loaded, as they come first in the context; `before`: where they lay before some came up
        ahead of their job."""
        stops = self.there.stops
        if before is not None:
            stops = [*(min(stop, stops[-1]) for stop in before[:-1]), stops[-1]]
        return shares(stops, self.hit, tokens, self.chunk_tokens)

    def parts(self, tokens: int) -> list[Part]:
        """What so many tokens beyond the hit are in."""
        chunks = range(self.hit // self.chunk_tokens, -(-(self.hit + tokens) // self.chunk_tokens))
        return [Part(self.there.path, chunks.start, chunks.stop), *self.there.beside]


class Offloading:
    """One replica's, of as many tiers as there are, or none. They are numbered as in its store, where HBM is 0."""

    def __init__(
        self,
        deployment: Deployment,
        pool: BlockPool,
        threshold: int,
        paths: Paths,
        levels: list[Level],
        orders: Orders | None,
    ) -> None:
        self._chunking: Chunking = pool.chunking
        self._chunk_tokens: int = pool.chunk_tokens
        self._each: int = pool.chunk_bytes
        self._block_bytes: int = pool.stored_bytes
        self._paths, self._levels = paths, levels
        self._orders, self._threshold = orders, threshold
        self._first = self._of_chunks(levels[1]) if len(levels) > 1 else None
        self._lower: list[Below] = [
            Objects(level.capacity // self._each) if level.spec.objects else self._of_chunks(level) for level in levels[2:]
        ]
        self._tiers: list[Below] = [*filter(None, [self._first]), *self._lower]
        self._loads_from = self._lower
        self._coming: list[tuple[float, int, int, Moves]] = []
        """A heap of (end, number, tier, chunks)."""
        self._booked = 0
        self._under_way: UnderWay | None = None
        """To the first tier, or from it to HBM, where jobs are deferred for it."""

    def defers(self) -> None:
        """Jobs ask for their chunks before they start."""
        self._under_way = UnderWay()

    def _of_chunks(self, level: Level) -> Chunks:
        """An empty tier."""
        if self._orders is None:
            return self._chunking.tier(level.capacity // self._each, self._threshold)
        return self._orders.chunks(level, level is self._levels[-1], self._threshold, self._each)

    def fetches_ahead(self) -> None:
        """Jobs load from the first tier alone, to which others are brought up ahead of them."""
        self._loads_from = []

    @property
    def dropped(self) -> int:
        """Times that chunks were offered to the first tier and had no room."""
        return sum(tier.dropped for tier in self._tiers[:1])

    @property
    def foresees(self) -> bool:
        """Whether who leaves a tier goes by when sessions come back."""
        return self._orders is not None and self._orders.foresee

    def by_last_use(self, blocks: int) -> bool:
        """Whether who leaves a tier goes by last uses alone, and all have room for a context of so many blocks."""
        if self._orders is not None or self._threshold > 1 or self._chunking.groups is not None:
            return False
        return all(isinstance(tier, Chunks) and blocks // self._chunking.blocks <= tier.usable for tier in self._tiers)

    def settle(self, now: float) -> None:
        """What is due by now has come, and goes on to the tier below."""
        while self._coming and self._coming[0][0] <= now:
            end, _, tier, coming = heappop(self._coming)
            self._tiers[tier - 1].arrive(coming, end)
            self._store(tier + 1, coming.path, coming.start, coming.stop, end)

    def expire(self, ttl_s: float, now: float) -> None:
        """What nobody has used for longer goes."""
        self.settle(now)
        for number, tier in enumerate(self._tiers, 1):
            if tier.expire(ttl_s, now):
                self._levels[number].hold(tier.held * self._each, now)

    # --- the life of a turn, for those who order sessions -----------------------------------------------------------------------

    def expect(self, session: int, position: float) -> None:
        """Its job has this place in the queue."""
        if self._orders is not None:
            self._orders.waits(session, position)
            for tier in self._tiers:
                tier.expect(session)

    def claim(self, session: int, now: float) -> None:
        """Its job starts."""
        self.settle(now)
        if self._orders is not None:
            self._orders.starts(session)
            for tier in self._tiers:
                tier.claim(session)

    # --- lookups and loads ----------------------------------------------------------------------------------------------------

    def find(self, path: Context, tokens: int, hit: int, now: float) -> Found:
        """What is there of a prompt of which the pool has `hit` tokens."""
        self.settle(now)
        there, ready_s = self._look_up(path, tokens, hit, self._loads_from), now
        for rise in there.rises:
            ready_s = max(ready_s, self._up(rise.tier).preview(now, self._sent(rise.tier, rise.chunks))[1])
        return Found(there, hit, beyond(there.stops[-1], tokens, hit, self._chunk_tokens), ready_s, self._chunk_tokens)

    def _look_up(self, path: Context, tokens: int, hit: int, lower: list[Below], coming: bool = False) -> Lookup:
        return self._chunking.look_up(self._first, lower, path, tokens, hit, coming)

    def raise_all(self, found: Found, now: float) -> Pieces:
        """What was found comes into the first tier, and may not go before it is let go."""
        first = self._first
        if first is None:
            return []
        for rise in found.there.rises:
            self._raise(first, rise, now)
        return first.hold(found.there.path, found.there.stops[-1])

    def _raise(self, first: Chunks, rise: Rise, now: float, through: bool = True) -> float | None:
        """Chunks of a context come from a tier to the first; returns when they are there. None: the first keeps what it has, and they pass
        through it, or stay where they are."""
        tier, chunks = rise.tier, rise.chunks
        self._tiers[tier - 1].ask(rise.path, rise.start, rise.stop, now)
        coming = first.store(rise.path, rise.stop, now)
        if coming is None and not through:
            return None
        begin, end = self._up(tier).book(now, self._sent(tier, chunks))
        self._moves(tier, 0 if coming is None else 1, chunks * self._each, now, begin, end)
        if coming is None:
            return None
        self._comes(1, coming, now, end)
        return end

    def ask(self, path: Context, tokens: int, hit: int, now: float) -> tuple[float, list[int]]:
        """A job that is deferred for chunks under way asks for those of a prompt of which the pool has `hit` tokens. What only tiers below
        the first have begins to come up. Returns when all has come that the job would load, and what each tier had."""
        self.settle(now)
        first, under_way = self._first, self._under_way
        there = self._look_up(path, tokens, hit, self._lower, coming=True)
        if first is None or under_way is None or not beyond(there.stops[-1], tokens, hit, self._chunk_tokens):
            return now, there.stops[:1]
        for rise in there.rises:
            self._raise(first, rise, now, through=False)
        wanted = [Part(there.path, hit // self._chunk_tokens, there.stops[-1]), *there.beside]
        return max([under_way.until(part.path, part.start, part.stop, now) for part in wanted]), there.stops

    def loads(self, found: Found, tokens: int, end: float) -> None:
        """So many tokens of what was found are being loaded until then."""
        if self._under_way is not None:
            for part in found.parts(tokens):
                self._under_way.begins(part.path, part.start, part.stop, end)

    def to_come(self, path: Context, tokens: int, hit: int, now: float) -> tuple[int, list[int]]:
        """Tokens of a prompt, of which the pool has `hit`, that only tiers below the first have, and the first has room for; and
        what each tier has."""
        self.settle(now)
        stops = self._look_up(path, tokens, hit, self._lower).stops
        return beyond(stops[-1], tokens, max(hit, stops[1] * self._chunk_tokens), self._chunk_tokens), stops

    def bring(self, path: Context, tokens: int, most: int, now: float) -> float | None:
        """The next `most` of these chunks, or fewer, come up; returns when they are there. None: there are no more."""
        first = self._first
        if first is not None:
            for rise in self._look_up(path, tokens, 0, self._lower).rises:
                chunks = min(rise.stop - rise.start, most)
                return self._raise(first, Rise(rise.tier, rise.path, rise.start, rise.start + chunks, chunks), now)
        return None

    def let_go(self, path: Context, pieces: Pieces, now: float) -> None:
        """What was loaded may go."""
        if pieces and self._first is not None:
            self.settle(now)
            self._first.let_go(path, pieces, now)

    def _up(self, tier: int) -> Link:
        return self._paths.reads[tier] or self._paths.to_device

    def _sent(self, tier: int, chunks: int) -> int:
        return self._paths.taken[tier](chunks * self._each)

    # --- stores ---------------------------------------------------------------------------------------------------------------

    def offer(self, path: Context, known: int, tokens: int, now: float, use: Use | None = None) -> None:
        """The first tokens of a context are in HBM, and those beyond `known` of them are new: where they fill a chunk, all are offered,
        with windows of the prompt that `use` is of."""
        self.settle(now)
        full = tokens // self._chunk_tokens
        if full > known // self._chunk_tokens:
            self._store(1, self._chunking.context(path, use), known // self._chunk_tokens, full, now)

    def passes(self, path: Context, use: Use, tokens: int, now: float) -> None:
        """A request with this context takes no time: what is offered is there at once, and goes on to the tier below."""
        context, full = self._chunking.context(path, use), tokens // self._chunk_tokens
        offered = True
        self.settle(now)
        for tier, level in zip(self._tiers, self._levels[1:], strict=True):
            offered = tier.passes(context, full, now, offered) is not None
            if offered:
                level.hold(tier.held * self._each, now)

    def renew(self, path: Context, use: Use, tokens: int, now: float) -> None:
        """A request with this context has ended."""
        self.settle(now)
        context = self._chunking.context(path, use)
        for tier in self._tiers:
            tier.renew(context, tokens // self._chunk_tokens, now)
            tier.release(path.session, now)

    def _store(self, tier: int, path: Context, start: int, full: int, now: float) -> None:
        """Chunks that are new from `start` on are offered to a tier, where there is one."""
        coming = self._tiers[tier - 1].store(path, full, now, start) if tier <= len(self._tiers) else None
        if coming is None:
            return
        size = self._chunking.written(coming, tier - 1) * self._block_bytes
        booked = [link.book(now, self._paths.taken[tier](size)) for link in self._paths.demotions[tier - 1]]
        begin, end = max(booked, key=lambda times: times[1])
        self._moves(tier - 1, tier, size, now, begin, end)
        self._comes(tier, coming, now, end)

    def _moves(self, source: int, target: int, size: int, ready: float, begin: float, end: float) -> None:
        """Books what a move reads and writes, but for HBM."""
        if source:
            self._levels[source].read += size
            self._paths.loaded[source].add(ready, begin, end, size)
        if target:
            self._levels[target].written += size
            self._paths.saved[target].add(ready, begin, end, size)

    def _comes(self, tier: int, coming: Moves, now: float, end: float) -> None:
        self._booked += 1
        heappush(self._coming, (end, self._booked, tier, coming))
        self._levels[tier].hold(self._tiers[tier - 1].held * self._each, now)
        if isinstance(coming, Coming) and tier == 1 and self._under_way is not None:
            for part in coming.parts:
                self._under_way.begins(part.path, part.start, part.stop, end)

    def counted(self) -> list[tuple[int, int]]:
        """For guards: chunks of each tier, and those that there is room for."""
        return [tier.counted() for tier in self._tiers]
