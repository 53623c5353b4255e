"""Background moves of KV: fetches ahead of jobs and demotions, one at a time on each way between two tiers.

The store says what is due; the mover books it on the links, and reports it back when it is done. A move needs no event: its end is known
from its link, and the clock has every move ended before any event at that time or after it, in order of the ends.
"""

import math
from collections.abc import Callable

from kvplan.sim.engine.agenda import Agenda, Ending
from kvplan.sim.engine.link import Link
from kvplan.sim.engine.paths import Paths
from kvplan.sim.store.protocol import Move, Store
from kvplan.sim.store.tier import Tier


class _Way(Ending):
    """Between two tiers, over links of which the first and slowest decides."""

    def __init__(self, mover: "Mover", agenda: Agenda, links: list[Link], upper: Tier, lower: Tier) -> None:
        self._mover, self._agenda = mover, agenda
        self.link, *self.others = links
        self.upper = upper
        self.lower = lower.spec
        """In whose dtype KV moves."""
        self.move: Move | None = None
        """Under way."""
        self._settles_at = math.inf

    def begin(self, move: Move, now: float) -> None:
        """Books a move. It has no event."""
        self.move, size = move, self.lower.taken(move.size)
        for link in self.others:
            link.book(now, size)
        self._settle_at(self.link.book_background(now, size))

    def _settle_at(self, at_s: float) -> None:
        """It is settled then, or before. Demand traffic may push an end back meanwhile, never forward."""
        if at_s < self._settles_at:
            self._settles_at = at_s
            self._agenda.before(at_s, self)

    def settle(self, at_s: float) -> None:
        """Ends the move; or is called again where that ends later by now."""
        if at_s != self._settles_at:
            return  # a call that an earlier one has replaced
        self._settles_at = math.inf
        move = self.move
        if move is None:
            return
        end_s = self.link.background_end
        if end_s > at_s:
            self._settle_at(end_s)
        else:
            self.move = None
            self._mover.end(self, move, at_s)


class Mover:
    """One replica's."""

    arrived: Callable[[int, float], None]
    """Called with the session and the time when a fetch has ended."""
    moved: Callable[[int, float], None]
    """Called with a session that waits and whose KV has another home, or none, and since when."""

    def __init__(self, agenda: Agenda, store: Store, paths: Paths) -> None:
        self.store = store
        self._reads = paths.reads
        tiers, target = store.tiers, store.fetch_target
        below = None if target is None else paths.reads[target + 1]
        self._fetch = None if target is None or below is None else _Way(self, agenda, [below], tiers[target], tiers[target + 1])
        self._demotions = [_Way(self, agenda, links, tiers[source], tiers[source + 1]) for source, links in enumerate(paths.demotions)]
        self._ways = [way for way in (self._fetch, *self._demotions) if way is not None]

    @property
    def fetching(self) -> int | None:
        """The session that is being fetched; −1 when what comes is of no use any more, None when nothing is."""
        return None if self._fetch is None or self._fetch.move is None else self._fetch.move.session

    @property
    def fetches_end_s(self) -> float:
        """When the fetch under way ends; infinite when there is none."""
        return math.inf if self._fetch is None or self._fetch.move is None else self._fetch.link.background_end

    def comes_s(self, session: int) -> float:
        """When the fetch of the session ends; infinite when none is under way."""
        fetch = self._fetch
        if fetch is None or fetch.move is None or fetch.move.session != session:
            return math.inf
        return fetch.link.background_end

    @property
    def demotions_end_s(self) -> float:
        """When the first of those under way ends; infinite when there is none."""
        return min((way.link.background_end for way in self._demotions if way.move is not None), default=math.inf)

    def start(self, now: float) -> None:
        """Starts what fetches and demotions are due and can start."""
        store, fetch = self.store, self._fetch
        if fetch is not None and fetch.move is None:
            move = store.next_fetch(now)
            if move is not None:
                fetch.link, fetch.lower = self._reads[move.source] or fetch.link, store.tiers[move.source].spec
                fetch.begin(move, now)
        for way in self._demotions:
            tier = way.upper
            if way.move is None and (tier.free < tier.low_water or tier.copies_due):
                move = store.next_demotion(tier.index, now)
                if move is not None:
                    way.begin(move, now)
        if store.moved:
            self.heed(now)

    def heed(self, now: float) -> None:
        """Passes on what the store has moved."""
        sessions = self.store.moved.copy()
        self.store.moved.clear()
        for session in sessions:
            self.moved(session, now)

    def end(self, way: _Way, move: Move, at_s: float) -> None:
        """A move has ended; starts what follows from that."""
        store, is_fetch = self.store, way is self._fetch
        if not is_fetch:
            way.link.background_is_done()
        if move.session >= 0:
            store.end_move(move, at_s)
            if store.moved:
                self.heed(at_s)
            if is_fetch:
                self.arrived(move.session, at_s)
        self.start(at_s)

    def abandon(self, session: int) -> None:
        """What a fetch brings of the session is of no use any more."""
        fetch = self._fetch
        if fetch is not None and fetch.move is not None and fetch.move.session == session:
            fetch.move.session = -1

    def break_off(self, session: int, unit: int | None, now: float) -> None:
        """Ends a fetch of the session with what has come of it, in whole units of bytes of KV; None: only the whole is of use."""
        fetch = self._fetch
        if fetch is not None and fetch.move is not None and fetch.move.session == session:
            move, fetch.move = fetch.move, None
            taken, unit = fetch.lower.taken, unit or move.size
            units = fetch.link.end_background(now, taken(move.size)) // taken(unit)
            self.store.end_move(move, now, units * unit)

    def to_come(self, now: float) -> list[tuple[Move, float]]:
        """Moves under way, and the bytes of KV of each that have not gone yet."""
        return [(way.move, way.link.background_left(now) / way.lower.copies) for way in self._ways if way.move is not None]
