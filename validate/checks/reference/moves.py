"""Moves that nobody waits for: fetches ahead of jobs, and demotions. One of each at a time."""

import math

from kvplan.validate.checks.reference.links import Links
from kvplan.validate.checks.reference.spans import Span
from kvplan.validate.checks.reference.store import NOBODY, Store, Tier


class Moves:
    """Those between DRAM and SSD of one replica."""

    def __init__(self, store: Store, links: Links) -> None:
        self.store, self.reads, self.writes = store, links.ssd_read, links.ssd_write

    def start(self, now: float) -> None:
        store = self.store
        if len(store.tiers) == 2:
            if store.fetching is None and store.settings.prefetch == "lookahead":
                self._fetch(store.tiers[0], store.tiers[1], now)
            if store.demoting is None:
                self._demote(store.tiers[0], store.tiers[1], now)

    def _fetch(self, dram: Tier, ssd: Tier, now: float) -> None:
        store = self.store
        store.starved = None
        free = dram.capacity - dram.reserve - sum(dram.held[turn.session] for turn in store.jobs.started())
        session = self._foremost(dram, ssd, free)
        if session is None or sum(dram.held[one] for one in store.fetched) + ssd.held[session] > free:
            return
        size = ssd.held[session]
        if not store.make_room(dram, size, now, session):
            store.starved = session
            return
        store.fetching = session
        store.fetched.append(session)
        dram.put(session, size, now)
        self._move(ssd, dram, self.reads.send_slowly(now, ssd.sent(size)), size)
        store.seen["fetches"] += 1

    def _foremost(self, dram: Tier, ssd: Tier, free: int) -> int | None:
        """Whose KV is fetched next, if there is room: of those that wait, as many as free DRAM could hold."""
        store = self.store
        window = max(0, free * len(store.offered) // max(1, sum(store.offered)))
        waiting = [turn.session for turn in store.jobs.queue[:window]]
        below = [session for session in waiting if store.home.get(session) is ssd and session not in store.fetched]
        return next((session for session in below if ssd.held[session] <= dram.capacity - dram.reserve), None)

    def _demote(self, dram: Tier, ssd: Tier, now: float) -> None:
        store = self.store
        wanted = 0 if store.starved is None else ssd.held[store.starved]
        while dram.free() < max(dram.reserve, wanted):
            session = store.victim(dram, store.starved if dram.free() >= dram.reserve else None)
            if session is None or self._write_down(session, dram, ssd, now):
                return
            store.leave(session, dram, now)

    def _write_down(self, session: int, dram: Tier, ssd: Tier, now: float) -> bool:
        """Whether something of the session is missing on SSD, and now on its way there."""
        store = self.store
        store.demoting = session
        missing = dram.held[session] - ssd.held[session]
        has_room = store.make_room(ssd, missing, now)
        if not missing or not has_room:
            store.demoting = None
            store.seen["demotions without room that leave a prefix"] += ssd.held[session] and not has_room
            return False
        if store.settings.ssd_write == "whole":
            ssd.cut(session, ssd.held[session], now)
            missing = dram.held[session]
        new = store.sizes.written(ssd.held[session], dram.held[session])
        if not ssd.held[session]:
            store.use(session, [ssd])
        ssd.put(session, missing, now)
        self._move(dram, ssd, self.writes.send_slowly(now, ssd.sent(new)), new)
        store.seen["demotions"] += 1
        return True

    def _move(self, source: Tier, target: Tier, transfer: Span, size: int) -> None:
        source.went.append((transfer, size))
        target.came.append((transfer, size))

    def end(self, now: float) -> None:
        """Ends what is due by now, each at its own time, and starts what follows from it."""
        while True:
            fetched_s = math.inf if self.store.fetching is None else self.reads.slow_end_s
            demoted_s = math.inf if self.store.demoting is None else self.writes.slow_end_s
            end = min(fetched_s, demoted_s)
            if end > now:
                return
            if self.store.fetching is not None and fetched_s == end:
                self._end_fetch(self.store.fetching, end)
            elif self.store.demoting is not None:
                self._end_demotion(self.store.demoting, end)
            self.start(end)

    def _end_fetch(self, session: int, now: float) -> None:
        self.store.fetching = None
        self.store.ready_s[session] = now
        if session != NOBODY and self.store.tiers[0].held[session]:  # its job may have ended meanwhile, and gone to SSD
            self.store.arrived(session, now)

    def _end_demotion(self, session: int, now: float) -> None:
        self.store.demoting, (dram, ssd) = None, self.store.tiers
        self.writes.free_s = max(self.writes.free_s, now)
        if session not in self.store.staying() and 0 < dram.held[session] <= ssd.held[session]:
            self.store.leave(session, dram, now)
