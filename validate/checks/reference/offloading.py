"""Chunks of blocks in DRAM and on SSD below a pool, chunk by chunk: who uses each, which are on their way, and when each was used last.

A chunk's name is that of the block that it ends with. A tier that a chunk comes to hands it on to the one below at once.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from kvplan.validate.checks.reference.links import Links
from kvplan.validate.checks.reference.shelf import Names, Shelf
from kvplan.validate.checks.reference.spans import Span


@dataclass
class Way:
    """Chunks on their way to a shelf."""

    end_s: float
    shelf: int
    session: int
    names: Names
    """With all that come before them."""
    missing: Names


@dataclass
class Found:
    """What a job can load."""

    names: Names = ()
    on_first: int = 0
    """Of these, those on the first shelf; the others are on the second."""
    tokens: int = 0
    """Beyond the pool's."""
    beside: Names = ()
    """What of windows comes with them."""

    @property
    def all(self) -> Names:
        return [*self.names, *self.beside]


class Offloading:
    """That of one replica: a shelf, two, or none."""

    def __init__(self, shelves: Sequence[Shelf], blocks: int, tokens: int, links: Links, seen: Counter[str]) -> None:
        self.blocks, self.tokens, self.links, self.seen = blocks, tokens, links, seen
        self.shelves, self.waited = shelves, 0
        self.ways: list[Way] = []
        self.loads: list[tuple[float, Names]] = []  # when they end, and what they are of
        self.dropped = 0
        self.ahead = False  # what SSD has comes up ahead of jobs, and not with them

    def names(self, blocks: Names) -> Names:
        """Of chunks, by those of their blocks."""
        return blocks[self.blocks - 1 :: self.blocks]

    def settle(self, now: float) -> None:
        """What has come by now is there, and goes on down."""
        while due := [way for way in self.ways if way.end_s <= now]:
            way = min(due, key=lambda way: way.end_s)
            self.ways.remove(way)
            shelf = self.shelves[way.shelf]
            shelf.coming.difference_update(way.missing)
            shelf.let_go(way.names, way.session, way.end_s)
            self.store(way.shelf + 1, way.names, way.session, way.end_s)

    def store(self, place: int, names: Names, session: int, now: float, known: int = 0) -> None:
        """A shelf is offered chunks, of which a job has offered the first `known` before."""
        if place == len(self.shelves):
            return
        shelf, offered = self.shelves[place], len(names)
        names = shelf.wanted(names, known)
        self.seen["chunks that too few have offered"] += offered - len(names)
        missing = shelf.put(names, session, now)
        if missing is None:
            self.seen["chunks without room"] += 1
            self.dropped += place == 0
        elif not missing:
            shelf.let_go(names, session, now)
        else:
            wires = [self.links.ssd_write] if place else self.links.down_to(shelf.tier.name)
            size = self.size(missing, place)
            sent = max((wire.send(now, shelf.tier.sent(size)) for wire in wires), key=lambda span: span.end_s)
            self.comes(place, names, session, missing, sent, size)
            if place:
                self.shelves[place - 1].tier.went.append((sent, size))
            self.seen["chunks stored"] += len(missing)

    def size(self, missing: Names, place: int) -> int:
        """Bytes of chunks that a shelf gets from what is above it."""
        return len(missing) * self.shelves[place].each

    def comes(self, place: int, names: Names, session: int, missing: Names, sent: Span, size: int) -> None:
        self.shelves[place].tier.came.append((sent, size))
        self.ways.append(Way(sent.end_s, place, session, names, missing))

    def find(self, names: Names, tokens: int, hit: int, coming: bool = False) -> Found:
        """What a job has of a prompt beyond the tokens that HBM has; its last token is always computed. `coming`: what is on its way to
        the first shelf is as good as there."""
        return self.found(names, tokens, hit, coming, not self.ahead)

    def found(self, names: Names, tokens: int, hit: int, coming: bool, up: bool) -> Found:
        """The same. `up`: with what can come up to the first shelf."""
        names = names[: (tokens - 1) // self.tokens]
        if not self.shelves:
            return Found()
        first = self.shelves[0]
        there = first.there(names) if coming else first.come(names)
        more = 0
        if up and self.shelves[1:] and len(first.there(names)) == len(there):
            more = max(0, min(len(self.shelves[1].come(names)) - len(there), first.most(there)))
        found = names[: len(there) + more]
        beyond = len(found) * self.tokens - hit
        return Found(found, len(there), beyond) if beyond >= self.tokens else Found()

    def shares(self, found: Found, hit: int, on_first: int) -> tuple[int, int]:
        """Tokens that DRAM has of what was found beyond a hit, and SSD, when so many chunks are the first shelf's."""
        above = max(0, min(on_first, len(found.names)) * self.tokens - hit) if found.tokens else 0
        mine = {shelf.tier.name: tokens for shelf, tokens in zip(self.shelves, (above, found.tokens - above), strict=False)}
        return mine.get("dram", 0), mine.get("ssd", 0)

    def bring_up(self, found: Found, session: int, now: float) -> float:
        """What is found comes to the first shelf; returns when all of it is there."""
        first, ready_s = self.shelves[0], now
        up = [name for name in found.all if name not in first.stamps]
        if up:
            below, size = self.shelves[1].tier, len(up) * first.each
            missing = first.put(found.all, session, now)
            assert missing == up
            sent = self.links.ssd_read.send(now, below.sent(size))
            below.went.append((sent, size))
            self.comes(0, found.all, session, up, sent, size)
            ready_s = sent.end_s
            self.seen["chunks that come up"] += len(up)
        return ready_s

    def bring(self, names: Names, tokens: int, most: int, session: int, now: float) -> float | None:
        """The next chunks of a prompt that only SSD has come up, so many at most; returns when they have come. None: there are none."""
        found = self.found(names, tokens, 0, coming=False, up=True)
        if len(found.names) == found.on_first:
            return None
        return self.bring_up(Found(found.names[: found.on_first + most], found.on_first), session, now)

    def comes_s(self, found: Found, hit: int, now: float) -> float:
        """When nothing of it that HBM lacks is on its way to the first shelf any more, or from there to another job."""
        wanted = {*found.all[hit // self.tokens :]}
        ways = [(way.end_s, way.missing) for way in self.ways if way.shelf == 0]
        return max([now, *(end_s for end_s, names in [*ways, *self.loads] if wanted & {*names})])

    def hold(self, found: Found) -> None:
        """It stays while the job is prefilled."""
        self.shelves[0].hold(found.all)

    def let_go(self, found: Found, session: int, now: float) -> None:
        """A job has been prefilled."""
        if found.names:
            self.shelves[0].let_go(found.all, session, now)

    def renew(self, names: Names, session: int, now: float) -> None:
        """A job with these chunks has ended."""
        for shelf in self.shelves:
            shelf.use(shelf.there(names), session, now)
            shelf.release(session, now)

    def expect(self, session: int) -> None:
        """A job of a session waits, behind all others."""
        self.waited += 1
        for shelf in self.shelves:
            shelf.expect(session, self.waited)

    def claim(self, session: int) -> None:
        """A job of a session starts."""
        for shelf in self.shelves:
            shelf.claim(session)

    def expire(self, ttl_s: float, now: float) -> None:
        """What nobody has used for longer goes."""
        for shelf in self.shelves:
            self.seen["chunks that expire"] += shelf.expire(ttl_s, now)
