"""The AttentionStore of CachedAttention: the KV of whole sessions over a list of tiers.

A session's KV lives in its `home` tier; tiers below may hold a prefix of it (an older copy: KV is append-only). The store owns bytes,
membership, pins and the evict loop, and has no clock: `now` is passed in only to integrate occupancy. It moves nothing itself; it
hands out `Move`s, which the engine books on links and reports back when they are done.

Rules:

- A pinned session leaves no tier; a pinned victim is set aside, out of its tier's order, until it is released. Pinned are sessions
  whose turn runs, sessions on the move, and sessions fetched ahead of their job.
- What comes into a tier for a turn that waits or runs joins the tier's order when that turn ends, with its end as the time of use.
- Bytes of a move are reserved in the target when it starts and released in the source when it ends.
- Demotion down the list begins when free space falls below the tier's reserve (the paper's host buffer), or when a fetch waits for
  room; from the last tier sessions are dropped. What the tier below already holds is not written again (`delta`).
- A save takes free space, or space that is freed at once by dropping clean or last-tier sessions, in the first tier that has it and
  whose way down is wide enough: a session that a tier cannot hold is kept out of the tiers above it, or it could not leave them. The
  reserve of a tier that had no room grows to what was missing, up to half of it; so does that of a tier without room for a demotion
  from above. When no tier has room the new KV is not kept; what was saved before stays valid, being a prefix.
- Room is made whole or not at all: in the last tier, where what leaves is lost, nobody leaves unless enough can. A demotion without room
  below loses what the tier below lacks, and no more.
- A TTL counts from the end of a turn to the next one's arrival. Time in the queue is not idle time.

Source: CachedAttention (USENIX ATC 2024) section 3.3. Not from the paper: what happens to a save without room (real offloading
connectors skip it too), and the pin on fetched sessions, which keeps a fetch from undoing the one before.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

from mypy_extensions import mypyc_attr

from kvplan.sim.policies.base import Eviction, Prefetch, Queue, View, Write
from kvplan.sim.store.expiry import Expiry
from kvplan.sim.store.kept import PROPORTIONAL, Kept
from kvplan.sim.store.protocol import ALL, Move, Spills, Store, Useful, always
from kvplan.sim.store.record import Record, Records
from kvplan.sim.store.staging import Staging
from kvplan.sim.store.tier import Tier
from kvplan.sim.store.view import Knowledge, TierView
from kvplan.sim.tiers import TierSpec, fetch_target


@mypyc_attr(allow_interpreted_subclasses=True)
class SessionStore(Store):
    """See the module. `tiers`: fastest first; at least one."""

    watch: Any = None
    """Told of what is lost to make room, and of what expires: the guards."""

    def __init__(
        self,
        tiers: Sequence[TierSpec],
        eviction: Callable[[View], Eviction],
        prefetch: Prefetch,
        queue: Queue,
        write: Write,
        knowledge: Knowledge,
        ttl_s: float | None = None,
        rewrite_whole: bool = False,
        kept: Kept = PROPORTIONAL,
    ) -> None:
        self._prefetch, self._fetches, self._queue, self._write = prefetch, prefetch.FETCHES, queue, write
        self._rewrite_whole, self._kept, self._records = rewrite_whole, kept, (records := Records(len(tiers)))
        self._expiry = None if ttl_s is None else Expiry(ttl_s, records)
        self._pinned: set[Record] = set()
        self.tiers = _tiers(tiers, eviction, records, knowledge)
        self._needs_queue = "queue" in self.tiers[0].eviction.NEEDS
        self.fetch_target = fetch_target(tiers)
        self._staging = None if self.fetch_target is None else Staging(self.tiers[self.fetch_target])
        self._last = len(tiers) - 1
        self._wanted_position: float | None = -math.inf
        self._saved_bytes, self._saves, self.skipped_saves = 0.0, 0, 0
        self.moved: list[int] = []

    # --- where KV is ----------------------------------------------------------------------------------------------------------

    def lookup(self, session: int) -> tuple[int, int]:
        """(tier index, bytes) of the session's KV; (−1, 0) when nothing is kept."""
        record = self._records[session]
        return (record.home, record.held[record.home]) if record.home >= 0 else (-1, 0)

    def arrived(self, session: int) -> tuple[int, int]:
        """`lookup`, less what would still have to come from below the fetch target."""
        record, staging = self._records[session], self._staging
        if staging is None or record.home <= staging.tier.index:
            return self.lookup(session)
        held = record.held[staging.tier.index] if not record.fetched else 0
        return (staging.tier.index, held) if held else (-1, 0)

    def bytes_to_come(self, session: int) -> int:
        """Bytes of the session's KV that a fetch brings or could bring; 0 when DRAM has them, or could not take them."""
        record, staging = self._records[session], self._staging
        if staging is None or record.home <= staging.tier.index:
            return 0
        size = record.held[record.home]
        return size if record.fetched or size <= staging.most else 0

    # --- the life of a turn ---------------------------------------------------------------------------------------------------

    def come(self, session: int, now: float, useful: Useful = ALL) -> None:
        """A turn of the session has come. Its KV has been idle up to now, and is not again before `release`."""
        if self._expiry is not None:
            self._expire(self._expiry, now)
            if self._expiry.came(session):
                self._end(session, now)
        if useful is not ALL:
            self.keep_only(session, now, useful)

    def expect(self, session: int, position: float) -> None:
        """A job of the session has joined the queue, or has another place in it."""
        record = self._records[session]
        record.position = position
        if record.home < 0:
            return
        if self._needs_queue:
            for tier in self.tiers:
                if record.held[tier.index] and session not in tier.out:
                    tier.eviction.expect(session)
        self._want(record)

    def announce(self, session: int) -> None:
        """Word has come that a job of the session will follow."""
        self._want(self._records[session])

    def claim(self, session: int, now: float, useful: Useful = ALL) -> tuple[int, int]:
        """The session's job starts: what it can use of its KV is pinned until `release`. Returns where that is, as `lookup` does."""
        if self._expiry is not None:
            self._expire(self._expiry, now)
        record, staging = self._records[session], self._staging
        record.position = None
        if staging is None or not staging.claim(record):  # no fetch has pinned it, and had the policy drop it
            self._prefetch.drop(session)
            self._pin(record)
        if useful is not ALL:
            self.keep_only(session, now, useful)
        return (record.home, record.held[record.home]) if record.home >= 0 else (-1, 0)

    def keep_only(self, session: int, now: float, useful: Useful) -> None:
        """Drops what any tier holds of a session that is of no use. What remains keeps its place, and stays valid."""
        record = self._records[session]
        for tier in self.tiers:
            held = record.held[tier.index]
            excess = held - self._kept.rest(held, *useful) if held else 0
            if excess:
                self._cut(tier, record, excess, now)
        if record.home >= 0 and not record.held[record.home]:
            record.home = record.below(record.home)

    def load(self, session: int, size: int, now: float) -> int | None:
        """`size` bytes of a claimed session's KV are read to serve its turn; returns the tier that they come into on their way, if any.

        All KV below the fetch target takes room there, when there is room at once; KV that is being fetched keeps the room it has there.
        """
        record, staging = self._records[session], self._staging
        home = self.tiers[record.home]
        if staging is None or home.index <= staging.tier.index:
            home.read += size
            return None
        target = staging.tier
        if record.held[target.index]:
            target.read += size
            return None
        home.read += size
        if size != record.held[home.index] or (target.free < size and not self._make_room(target, size, now)):
            return None
        target.add(record, size, now)
        staging.claimed += size
        self._arrived(record, target, now)
        return target.index

    def save(self, session: int, size: int, now: float, spills: Spills = always) -> tuple[int, int]:
        """The KV of a claimed session is now `size` bytes; returns the index of the tier that takes it and the bytes to be copied there.

        (−1, 0) when there is no room: then nothing changes, but for the count of skipped saves.
        """
        record = self._records[session]
        self._saved_bytes += size
        self._saves += 1
        record.uses += 1
        had_no_room = False
        for tier in self.tiers:
            if size > tier.largest:
                continue
            held = record.held[tier.index]
            missing, sent = size - held, self._kept.grown(held, size)
            if had_no_room and not spills(tier.index, sent):
                break
            if tier.free >= missing or self._make_room(tier, missing, now):
                self._keep(tier, record, missing, now)
                if sent != missing:
                    tier.rewrite(sent - missing)
                return tier.index, sent
            had_no_room = True
            self._raise_reserve(tier, min(missing, tier.capacity // 2))
        self.skipped_saves += 1
        self._cut_all(self.tiers[: max(0, record.home)], record, now)
        return -1, 0

    def release(self, session: int, now: float) -> None:
        """The session's turn has ended."""
        record = self._records[session]
        if self._staging is not None:
            self._staging.release(record)
        if self._expiry is not None:
            self._expiry.released(session, now)
        record.pins -= 1
        if not record.pins:
            self._pinned.discard(record)
        for tier in self.tiers:
            if record.held[tier.index]:
                tier.use(session)
        if 0 <= record.home < self._last and self._write.copies(session, record.uses):
            self.tiers[record.home].copies_due.append(session)

    # --- demotions ------------------------------------------------------------------------------------------------------------

    def next_demotion(self, source: int, now: float) -> Move | None:
        """The next session to write from tier `source` to the one below; frees on the way what needs no writing."""
        tier = self.tiers[source]
        while tier.free < tier.low_water:
            victim = self._victim(tier)
            if victim is None or (tier.free >= tier.reserve and self._is_sooner(victim)):
                return None
            missing = self._to_write(tier, victim, now)
            if missing:
                below = self.tiers[source + 1]
                move = self._write_down(tier, below, victim, missing, now)
                if move is not None:
                    return move
                if below.index < self._last:  # the tier below must be demoted first
                    self._raise_reserve(below, missing)
                    return None
            self._evict(tier, victim, tier.low_water, now)
        return self._next_copy(tier, now) if tier.copies_due else None

    def _next_copy(self, tier: Tier, now: float) -> Move | None:
        """The next session that the tier below is to have as well."""
        below = self.tiers[tier.index + 1]
        while tier.copies_due:
            session = tier.copies_due.popleft()
            record = self._records[session]
            missing = record.held[tier.index] - record.held[below.index]
            if record.home == tier.index and not record.pins and missing > 0:
                move = self._write_down(tier, below, record, missing, now)
                if move is not None:
                    move.stays = True
                    return move
        return None

    def _write_down(self, tier: Tier, below: Tier, record: Record, missing: int, now: float) -> Move | None:
        """The move of the `missing` bytes that the tier below lacks of a session, if it has room or can make it."""
        self._pin(record)  # making room below must not take it
        if below.free < missing and not self._make_room(below, missing, now):
            self._unpin(record)
            return None
        held = record.held[tier.index]
        if self._rewrite_whole and missing < held:
            self._cut(below, record, held - missing, now)
            missing = held
        sent = self._kept.grown(held - missing, held)
        below.add(record, missing, now, for_turn=False)
        if sent != missing:
            below.rewrite(sent - missing)
        self._write.wrote(below.spec.taken(sent), now)
        tier.read += sent
        return Move(record.session, tier.index, below.index, sent)

    def end_move(self, move: Move, now: float, sent: int | None = None) -> None:
        """The bytes have arrived: all, or the first `sent` of them, because the session's job has started."""
        record, source, target = self._records[move.session], move.source, move.target
        if source > target:  # a fetch: the session stays pinned for its job
            if sent is None:
                self._arrived(record, self.tiers[target], now)
            else:
                self._break_off(move, sent, now)
            return
        self._unpin(record)
        if move.stays:
            if target < self._last:
                self.tiers[target].copies_due.append(move.session)
        elif not record.pins and 0 < record.held[source] <= record.held[target]:  # neither used nor grown meanwhile
            self._leave(self.tiers[source], record, now)

    # --- fetches --------------------------------------------------------------------------------------------------------------

    def next_fetch(self, now: float) -> Move | None:
        """The next session to bring up ahead of its job, if the policy names one and there is room."""
        staging = self._staging
        if staging is None or not self._saves:
            return None
        target = staging.tier
        target.low_water = target.reserve
        if not self._fetches:
            return None
        most = staging.most
        for_waiting = most - staging.claimed
        while True:
            session = self._prefetch.next(self._queue, for_waiting * self._saves / self._saved_bytes)
            if session is None:
                return None
            record = self._records[session]
            source = self.tiers[record.home if record.home > target.index else target.index + 1]
            size = record.held[source.index]
            if size <= most:
                break
            self._prefetch.drop(session)  # it can never come, and others need not wait for it
            self._has_moved(record)
        if size > for_waiting - staging.fetched:
            return None
        self._pin(record)
        if target.free < size:
            self._wanted_position = record.position
            if not self._make_room(target, size, now, for_fetch=True):
                self._unpin(record)
                target.low_water = max(size, target.reserve)
                return None
        self._prefetch.drop(session)
        staging.fetch(record, size)
        target.add(record, size, now)
        source.read += size
        return Move(session, source.index, target.index, size)

    def _break_off(self, move: Move, sent: int, now: float) -> None:
        """The job starts, and the fetch ends with the first `sent` bytes of it. The rest is given up in the target, not in the source.

        The session may have been cut, or have expired, on the way.
        """
        record, target = self._records[move.session], self.tiers[move.target]
        unsent = move.size - sent
        target.forgo(unsent)
        self.tiers[move.source].read -= unsent
        excess = record.held[target.index] - sent
        if excess > 0:
            self._cut(target, record, excess, now)
        else:
            self._arrived(record, target, now)

    def _want(self, record: Record) -> None:
        """The session is to be fetched, if it lies below the fetch target and that could take it."""
        staging = self._staging
        if staging is None or record.home <= staging.tier.index or record.fetched:
            return
        if record.held[record.home] <= staging.most:
            self._prefetch.want(record.session, record.position)

    def _arrived(self, record: Record, target: Tier, now: float) -> None:
        """All that the home tier holds of a session is in the target now."""
        if record.held[target.index] and record.home > target.index:  # neither voided on the way nor saved above it
            record.home = target.index
            if self._rewrite_whole:
                self._cut_all(self.tiers[target.index + 1 :], record, now)
            self._has_moved(record)

    # --- room -----------------------------------------------------------------------------------------------------------------

    def _victim(self, tier: Tier) -> Record | None:
        """Who leaves a tier next; pinned sessions are set aside on the way."""
        while (session := tier.eviction.victim()) is not None:
            victim = self._records[session]
            if not victim.pins:
                return victim
            tier.set_aside(session)
        return None

    def _make_room(self, tier: Tier, size: int, now: float, for_fetch: bool = False) -> bool:
        """Whether `size` bytes are free in a tier, once what can leave at once has been evicted for them."""
        while tier.free < size:
            victim = self._victim(tier)
            if victim is None or (for_fetch and self._is_sooner(victim)):
                return False
            if self._to_write(tier, victim, now):
                return False
            if tier.index == self._last and tier.free + victim.held[tier.index] < size and not self._can_make(tier, size):
                return False
            self._evict(tier, victim, size, now)
        return True

    def _can_make(self, tier: Tier, size: int) -> bool:
        """Whether `size` bytes would be free if all left that can."""
        return size <= tier.capacity - sum([record.held[tier.index] for record in self._pinned])

    def _to_write(self, tier: Tier, victim: Record, now: float) -> int:
        """Bytes that the tier below lacks of a victim and is to be written; 0 when that can leave at once: because its tier is the last,
        it holds nothing new, or is not worth writing down."""
        if tier.index == self._last:
            return 0
        below = self.tiers[tier.index + 1]
        held, lower = victim.held[tier.index], victim.held[below.index]
        if held <= lower:
            return 0
        demotes = self._write.demotes(victim.session, victim.uses, below.spec.taken(self._kept.grown(lower, held)), now)
        return held - lower if demotes else 0

    def _is_sooner(self, victim: Record) -> bool:
        """Whether the victim's job comes before the job that a fetch wants room for."""
        mine, wanted = victim.position, self._wanted_position
        return mine is not None and (wanted is None or mine < wanted)

    def _raise_reserve(self, tier: Tier, size: int) -> None:
        """A tier had no room for `size` bytes: from now on it keeps that much free, up to half of it."""
        before, tier.reserve = tier.reserve, max(tier.reserve, min(size, tier.capacity // 2))
        tier.low_water = max(tier.low_water, size)
        staging = self._staging
        if staging is not None and tier is staging.tier and tier.reserve > before:
            self._give_up_large(staging, tier.reserve - before)

    def _give_up_large(self, staging: Staging, less: int) -> None:
        """The fetch target takes so much less than it took: what waits to be fetched and is larger cannot come any more."""
        could, staging.most = staging.most, staging.most - less
        for session, record in self._records.items():
            waits = record.position is not None and not record.fetched and record.home > staging.tier.index
            if waits and staging.most < record.held[record.home] <= could:
                self._prefetch.drop(session)
                self._has_moved(record)

    def _evict(self, tier: Tier, victim: Record, wanted: int, now: float) -> None:
        """A victim leaves a tier in which `wanted` bytes are to be free. What the tiers below hold of it stays."""
        if self.watch is not None:
            self.watch.evicted(self, tier.index, victim.session, wanted)
        if victim.home == tier.index:
            self._leave(tier, victim, now)
        else:  # a copy of what a tier above holds
            self._cut(tier, victim, victim.held[tier.index], now)

    # --- what a session has where ---------------------------------------------------------------------------------------------

    def _pin(self, record: Record) -> None:
        record.pins += 1
        self._pinned.add(record)

    def _unpin(self, record: Record) -> None:
        record.pins -= 1
        if not record.pins:
            self._pinned.discard(record)
            for tier in self.tiers:
                if record.session in tier.out:
                    tier.restore(record.session)

    def _cut(self, tier: Tier, record: Record, size: int, now: float, moved: bool = False) -> None:
        """`size` bytes of a session leave a tier."""
        tier.cut(record, size, now, moved)
        staging = self._staging
        if staging is not None and tier is staging.tier:
            staging.lose(record, size)

    def _cut_all(self, tiers: Sequence[Tier], record: Record, now: float) -> None:
        """All that these tiers hold of a session is of no use."""
        for tier in tiers:
            if record.held[tier.index]:
                self._cut(tier, record, record.held[tier.index], now)

    def _keep(self, tier: Tier, record: Record, missing: int, now: float) -> None:
        """A tier takes the `missing` bytes of a session's newest KV. What tiers above hold of it is older, or what a fetch brought."""
        tier.add(record, missing, now)
        staging = self._staging
        if staging is not None and tier is staging.tier:
            staging.claimed += missing
        record.home = tier.index
        if tier.index:
            self._cut_all(self.tiers[: tier.index], record, now)
        if self._rewrite_whole:
            self._cut_all(self.tiers[tier.index + 1 :], record, now)

    def _leave(self, tier: Tier, record: Record, now: float) -> None:
        """A session leaves a tier; the next one below that holds some of it becomes its home."""
        index = tier.index
        heir, held = record.below(index), record.held[index]
        kept = record.held[heir] if heir >= 0 else 0
        if held > kept:
            self._cut(tier, record, held - kept, now)
            held = kept
        if held:
            self._cut(tier, record, held, now, True)
        if record.home != index:
            return
        record.home = heir
        if heir < 0:
            self._prefetch.drop(record.session)
        if record.position is not None:
            self._want(record)
            self._has_moved(record)

    def _has_moved(self, record: Record) -> None:
        """Whoever expects the session hears of it."""
        if self.tells and record.position is not None:
            self.moved.append(record.session)

    # --- time to live ---------------------------------------------------------------------------------------------------------

    def _expire(self, expiry: Expiry, now: float) -> None:
        for session in expiry.due(now):
            self._end(session, now)

    def _end(self, session: int, now: float) -> None:
        """The session has been idle for longer than the TTL: all its KV is given up."""
        if self.watch is not None:
            self.watch.expired(self, session, now)
        self.keep_only(session, now, Useful(stop=0))
        self._prefetch.drop(session)
        self._has_moved(self._records[session])


def _tiers(specs: Sequence[TierSpec], eviction: Callable[[View], Eviction], records: Records, knowledge: Knowledge) -> list[Tier]:
    """Each with an order of its own."""
    largest = _largest_sessions(specs)
    tiers = [Tier(spec, records, index, largest[index]) for index, spec in enumerate(specs)]
    for tier in tiers:
        tier.eviction = eviction(TierView(tier, tier is tiers[-1], records, knowledge))
    return tiers


def _largest_sessions(tiers: Sequence[TierSpec]) -> list[int]:
    """Bytes of the largest session that each tier, and all below it but the last, can hold."""
    last = len(tiers) - 1
    return [min(tier.capacity for tier in tiers[index : max(last, index + 1)]) for index in range(len(tiers))]
