"""A tier of chunks below a pool, for requests that overlap: what is stored is on its way for a while, and what is loaded may not go then.

The rules are those of `kvplan.sim.store.blocks.offload`: only what is missing is stored, and nothing where it would not fit; the chunks of
a request that ends are renewed, tail before head, and so are those that are offered or have been loaded. A chunk on its way has its room,
is not stored again, and is not found before it has come; until then what comes before it stays, and is renewed with it. With a threshold a
chunk is stored when so many requests have offered it, and when those before it are there.
"""

from collections.abc import Sequence
from itertools import pairwise

from kvplan.sim.store.blocks.base import Context, Path
from kvplan.sim.store.blocks.below import Below, Moves, Part
from kvplan.sim.store.blocks.offload import Offers
from kvplan.sim.store.blocks.runs import Pieces, Run, Runs, depth, runs_of


class Coming(Moves):
    """Chunks on their way into a tier; `start` is the first of them."""

    def __init__(self, path: Context, start: int, stop: int, used: Pieces, missing: Pieces, parts: list[Part], beside: int = 0) -> None:
        super().__init__(path, start, stop)
        self.used, self.missing, self.parts = used, missing, parts
        """`used`: those that are missing, and what comes before them; in the order in which they go, the last first."""
        self.beside = beside
        """Of those that are missing, chunks of windows or states."""

    @property
    def chunks(self) -> int:
        """How many."""
        return sum([part.chunks for part in self.parts])


class Chunks(Below):
    """Room for `usable` chunks."""

    def __init__(self, usable: int, threshold: int = 1) -> None:
        self.dropped = self.dropped_chunks = 0
        self._usable = usable
        self._runs = Runs()
        self._offers = Offers(threshold)

    @property
    def held(self) -> int:
        return self._runs.blocks + self._runs.used

    @property
    def usable(self) -> int:
        """Chunks that there is room for."""
        return self._usable

    def reach(self, path: Path, most: int, start: int = 0) -> int:
        """Up to which chunk a context is there, `most` at most, and `start` at least: none is there without those before it."""
        return max(start, self._runs.reach(path, most)[0])

    def reach_and_room(self, path: Path, most: int) -> tuple[int, int]:
        """The same, and how many more can come behind them; none while the next is on its way."""
        ready, used, there = self._runs.reach(path, most)
        return ready, 0 if there > ready else self._usable - self._runs.used - (ready - used)

    def named_and_room(self, path: Path, most: int) -> tuple[int, int]:
        """The same, where those on their way count as there."""
        there, used = self._runs.named(path, most)
        return there, self._usable - self._runs.used - (there - used)

    def hold(self, path: Path, chunks: int) -> Pieces:
        """So many leading chunks of a context may not go until they are let go."""
        return self._runs.take(path, chunks)

    def let_go(self, path: Context, pieces: Pieces, now: float = 0.0) -> None:
        """They may."""
        self._runs.give_back(pieces, now)

    def store(self, path: Context, full: int, now: float = 0.0, start: int = 0) -> "Coming | None":
        there, new = self._runs.take(path, full), start
        start = depth(there)  # wherever they are new from
        if self._offers.threshold > 1:
            full = self._due(path, start, full, new)
        if start == full or not self._make_room(full - start):
            self.dropped += start < full
            self.dropped_chunks += full - start
            self.let_go(path, there, now)
            return None
        missing = self._runs.name(path, there, full)
        for piece in missing:
            piece.run.ready = False
        return Coming(path, start, full, there + missing, missing, [Part(path, start, full)])

    def _make_room(self, chunks: int) -> bool:
        """Others go for so many; none where all that may go are not enough."""
        if self._usable - self._runs.used < chunks:
            return False
        self._runs.evict(max(0, self.held + chunks - self._usable))
        return True

    def _due(self, path: Path, start: int, full: int, new: int) -> int:
        """Up to which chunk a context has been offered often enough, of those that are not there. Those before `new` this request has
        offered before, which counts once. Costs by the chunk."""
        enough = [self._offers.are_enough(path[chunk], counts=chunk >= new) for chunk in range(start, full)]
        return start + enough.index(False) if False in enough else full

    def arrive(self, coming: "Coming", now: float = 0.0) -> None:
        for run in runs_of(coming.missing):
            run.ready = True
        self.let_go(coming.path, coming.used, now)

    def renew(self, path: Context, full: int, now: float = 0.0) -> None:
        self.let_go(path, self._runs.take(path, full), now)

    def expire(self, ttl_s: float, now: float) -> list[Run]:
        """See `Below`. What is on its way, loaded or prefilled with is in use."""
        return self._runs.expire(ttl_s, now)

    def counted(self) -> tuple[int, int]:
        return sum(self._runs.counted()), self._usable


class Rise:
    """What comes up from a tier to the first one below HBM; in its store it has this number."""

    def __init__(self, tier: int, path: Context, start: int, stop: int, chunks: int) -> None:
        self.tier, self.path, self.start, self.stop, self.chunks = tier, path, start, stop, chunks


class Lookup:
    """What tiers have of a context together."""

    def __init__(self, path: Context, stops: list[int], rises: list[Rise], beside: list[Part]) -> None:
        self.path, self.stops = path, stops
        """`stops`: see `reached`."""
        self.rises, self.beside = rises, beside
        """What of it comes up, and what of other groups a job loads with it."""


def look_up(first: Chunks | None, lower: list[Below], context: Context, most: int, coming: bool = False) -> Lookup:
    """See `reached`."""
    stops = reached(first, lower, context, most, coming)
    rises = []
    for tier in range(2, len(stops)):
        start, stop = stops[tier - 1], stops[tier]
        if stop > start:
            rises.append(Rise(tier, context, start, stop, stop - start))
    return Lookup(context, stops, rises, [])


def reached(first: Chunks | None, lower: list[Below], context: Path, most: int, coming: bool = False) -> list[int]:
    """Up to which chunk, `most` at most, each of several tiers has a context together with those above it, if the first has room for what
    comes up; `coming`: those on their way to the first count as there. None is before them all."""
    if first is None:
        return [0]
    stop, room = first.named_and_room(context, most) if coming else first.reach_and_room(context, most)
    stops, most = [0, stop], min(most, stop + room)
    for tier in lower:
        stops.append(tier.reach(context, most, stops[-1]) if most > stops[-1] else stops[-1])
    return stops


def shares(stops: Sequence[int], hit: int, tokens: int, chunk_tokens: int) -> list[int]:
    """Tokens that each of these tiers has of the first so many beyond a hit."""
    ends = [min(max(hit, stop * chunk_tokens), hit + tokens) for stop in stops]
    return [end - start for start, end in pairwise(ends)]
