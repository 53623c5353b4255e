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
from collections import defaultdict, deque
from collections.abc import Callable, Sequence
from typing import Any

from kvplan.sim.policies.base import Eviction, Prefetch, Queue, View, Write
from kvplan.sim.store.protocol import ALL, Move, Spills, Useful, always
from kvplan.sim.store.tier import Tier
from kvplan.sim.store.view import Knowledge, TierView
from kvplan.sim.tiers import TierSpec, fetch_target


class SessionStore:
    """See the module. `tiers`: fastest first; at least one."""

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
    ) -> None:
        self.tiers = [Tier(tier) for tier in tiers]
        self.fetch_target = fetch_target(tiers)
        """Tier that prefetching fills from those below it."""
        self.home: defaultdict[int, int] = defaultdict(lambda: -1)
        """Tier index that holds the newest KV of each session, −1 for none."""
        self._low_water = [tier.reserve for tier in tiers]
        """Demotion from a tier is due when its free bytes are below this: its reserve, or what a fetch waits for."""
        self.skipped_saves = 0
        self.watch: Any = None
        """Told of what is lost to make room, and of what expires: the guards."""
        self.moved: list[int] = []
        self._reserve = list(self._low_water)
        self._last = len(tiers) - 1
        self._most = [min(tier.capacity for tier in tiers[index : max(self._last, index + 1)]) for index in range(len(tiers))]
        """Bytes of the largest session that each tier, and all below it but the last, can hold."""
        self._pins: defaultdict[int, int] = defaultdict(int)
        self._pinned: set[int] = set()
        self._aside: list[set[int]] = [set() for _ in tiers]
        self._new: list[set[int]] = [set() for _ in tiers]
        """Sessions that came into each tier for a turn that waits or runs, and join its order when the turn ends."""
        self._orders = list(zip(self.tiers, self._aside, self._new, strict=True))
        self._position: defaultdict[int, float | None] = defaultdict(lambda: None)
        for tier in self.tiers:
            tier.eviction = eviction(TierView(tier, tier is self.tiers[-1], self._position, knowledge))
        self._prefetch = prefetch
        self._queue = queue
        self._write = write
        self._uses: defaultdict[int, int] = defaultdict(int)
        self._copies_due: list[deque[int]] = [deque() for _ in tiers]
        """Sessions whose KV the write policy wants in the tier below as well."""
        self._needs_queue = "queue" in self.tiers[0].eviction.NEEDS
        self._rewrite_whole = rewrite_whole
        self._ttl_s = math.inf if ttl_s is None else ttl_s
        self._released_s: dict[int, float] = {}
        self._expiry: deque[tuple[float, int]] = deque()
        self._overdue: set[int] = set()
        self._fetched: dict[int, int] = {}
        self._fetched_bytes = 0
        self._claimed: dict[int, int] = {}
        self._claimed_bytes = 0
        self._wanted_position: float | None = -math.inf
        self._saved_bytes = 0
        self._saves = 0

    # --- what the engine asks -------------------------------------------------------------------------------------------------

    def lookup(self, session: int) -> tuple[int, int]:
        """(tier index, bytes) of the session's KV; (−1, 0) when nothing is kept."""
        home = self.home[session]
        return (home, self.tiers[home].held[session]) if home >= 0 else (-1, 0)

    def arrived(self, session: int) -> tuple[int, int]:
        """`lookup`, less what would still have to come from below the fetch target."""
        home, target = self.home[session], self.fetch_target
        if target is None or home <= target:
            return self.lookup(session)
        held = self.tiers[target].held[session] if session not in self._fetched else 0
        return (target, held) if held else (-1, 0)

    def bytes_to_come(self, session: int) -> int:
        """Bytes of the session's KV that a fetch brings or could bring; 0 when DRAM has them, or could not take them."""
        home, target = self.home[session], self.fetch_target
        if target is None or home <= target:
            return 0
        size = self.tiers[home].held[session]
        fits = session in self._fetched or size <= self.tiers[target].capacity - self._reserve[target]
        return size if fits else 0

    # --- the life of a turn ---------------------------------------------------------------------------------------------------

    def expect(self, session: int, position: float) -> None:
        """A job of the session has joined the queue, or has another place in it."""
        self._position[session] = position
        home = self.home[session]
        if home < 0:
            return
        if self._needs_queue:
            for tier, aside, new in self._orders:
                if tier.held[session] and session not in aside and session not in new:
                    tier.eviction.expect(session)
        self._want(session, position)

    def announce(self, session: int) -> None:
        """Word has come that a job of the session will follow."""
        self._want(session, None)

    def come(self, session: int, now: float, useful: Useful = ALL) -> None:
        """A turn of the session has come. Its KV has been idle up to now, and is not again before `release`."""
        if self._ttl_s < math.inf:
            self._expire(now)
            self._released_s.pop(session, None)
            if session in self._overdue:  # on the move when its time was over
                self._overdue.remove(session)
                self._end(session, now)
        if useful is not ALL:
            self.keep_only(session, now, useful)

    def claim(self, session: int, now: float, useful: Useful = ALL) -> None:
        """The session's job starts: what it can use of its KV is pinned until `release`."""
        if self._ttl_s < math.inf:
            self._expire(now)
        self._position[session] = None
        target = self.fetch_target
        if target is not None:
            self._prefetch.drop(session)
            size = self.tiers[target].held[session]
            self._claimed[session] = size
            self._claimed_bytes += size
        if session in self._fetched:  # the pin passes to the job
            self._fetched_bytes -= self._fetched.pop(session)
        else:
            self._pin(session)
        if useful is not ALL:
            self.keep_only(session, now, useful)

    def keep_only(self, session: int, now: float, useful: Useful) -> None:
        """Drops what any tier holds of a session that is of no use. What remains keeps its place, and stays valid."""
        start, stop = useful
        for index, tier in enumerate(self.tiers):
            held = tier.held[session]
            excess = held - max(0, (held if stop is None else min(held, stop)) - start)
            if excess:
                self._cut(index, session, excess, now)
        home = self.home[session]
        if home >= 0 and not self.tiers[home].held[session]:
            self.home[session] = -1

    def _void(self, session: int, now: float) -> None:
        """All KV of the session is given up."""
        self.keep_only(session, now, Useful(stop=0))

    def load(self, session: int, size: int, now: float) -> int | None:
        """`size` bytes of a claimed session's KV are read to serve its turn; returns the tier that they come into on their way, if any.

        All KV below the fetch target takes room there, when there is room at once; KV that is being fetched keeps the room it has there.
        """
        home, target = self.home[session], self.fetch_target
        tier = self.tiers[home]
        if target is None or home <= target:
            tier.read += size
            return None
        if self.tiers[target].held[session]:
            self.tiers[target].read += size
            return None
        tier.read += size
        if size != tier.held[session] or not self._room(target, size, now):
            return None
        self._add(target, session, size, now)
        self._arrived(session, target, now)
        return target

    def save(self, session: int, size: int, now: float, spills: Spills = always) -> tuple[int, int]:
        """The KV of a claimed session is now `size` bytes; returns the index of the tier that takes it and the bytes to be copied there.

        (−1, 0) when there is no room: then nothing changes, but for the count of skipped saves.
        """
        self._saved_bytes += size
        self._saves += 1
        self._uses[session] += 1
        had_no_room = False
        for index, tier in enumerate(self.tiers):
            if size > self._most[index]:
                continue
            missing = size - tier.held[session]
            if had_no_room and not spills(index, missing):
                break
            if self._room(index, missing, now):
                self._keep(index, session, missing, now)
                return index, missing
            had_no_room = True
            self._raise_reserve(index, min(missing, tier.capacity // 2))
        self.skipped_saves += 1
        self._cut_above(session, self.home[session], now)
        return -1, 0

    def _keep(self, index: int, session: int, missing: int, now: float) -> None:
        """A tier takes the `missing` bytes of a session's newest KV."""
        self._add(index, session, missing, now)
        self.home[session] = index
        if index:
            self._cut_above(session, index, now)
        if self._rewrite_whole:
            self._cut_below(index, session, now)

    def release(self, session: int, now: float) -> None:
        """The session's turn has ended."""
        if self.fetch_target is not None:
            self._claimed_bytes -= self._claimed.pop(session)
        if self._ttl_s < math.inf:
            self._released_s[session] = now
            self._expiry.append((now, session))
        self._pins[session] -= 1
        if not self._pins[session]:
            self._pinned.discard(session)
        for tier, aside, new in self._orders:
            if tier.held[session]:
                if session in new:
                    new.remove(session)
                    tier.eviction.insert(session)
                    continue
                if session in aside:
                    aside.remove(session)
                    tier.eviction.restore(session)
                tier.eviction.use(session)
                if self._needs_queue:
                    tier.eviction.expect(session)
        home = self.home[session]
        if 0 <= home < self._last and self._write.copies(session, self._uses[session]):
            self._copies_due[home].append(session)

    # --- moves ----------------------------------------------------------------------------------------------------------------

    def next_demotion(self, source: int, now: float) -> Move | None:
        """The next session to write from tier `source` to the one below; frees on the way what needs no writing."""
        tier, target = self.tiers[source], self.tiers[source + 1]
        while tier.free < self._low_water[source]:
            victim = self._victim(source)
            if victim is None or (tier.free >= self._reserve[source] and self._is_sooner(victim)):
                return None
            if self._may_go(source, victim, now):
                self._evict(source, victim, self._low_water[source], now)
                continue
            move = self._write_down(source, victim, now)
            if move is not None:
                return move
            if source + 1 < self._last:  # the tier below must be demoted first
                self._raise_reserve(source + 1, tier.held[victim] - target.held[victim])
                return None
            self._evict(source, victim, self._low_water[source], now)
        copies = self._copies_due[source]
        while copies:
            session = copies.popleft()
            if self.home[session] == source and not self._pins[session] and tier.held[session] > target.held[session]:
                move = self._write_down(source, session, now)
                if move is not None:
                    return move._replace(stays=True)
        return None

    def _write_down(self, source: int, session: int, now: float) -> Move | None:
        """The move of what the tier below lacks of a session, if it has room or can make it."""
        tier, target = self.tiers[source], self.tiers[source + 1]
        missing = tier.held[session] - target.held[session]
        self._pin(session)  # making room below must not take it
        if not self._room(source + 1, missing, now):
            self._unpin(session)
            return None
        if self._rewrite_whole and target.held[session]:
            self._cut(source + 1, session, target.held[session], now)
            missing = tier.held[session]
        self._add(source + 1, session, missing, now, for_turn=False)
        self._write.wrote(missing, now)
        tier.read += missing
        return Move(session, source, source + 1, missing)

    def end_move(self, move: Move, now: float, sent: int | None = None) -> None:
        """The bytes have arrived: all, or the first `sent` of them, because the session's job has started."""
        if move.source < move.target:
            self._end_demotion(move, now)
        elif sent is not None:
            self._break_off(move, sent, now)
        else:  # the session stays pinned for its job
            self._arrived(move.session, move.target, now)

    def _end_demotion(self, move: Move, now: float) -> None:
        """The bytes are written. The session leaves the source, unless it stays, or was used or grew meanwhile."""
        session = move.session
        self._unpin(session)
        if move.stays:
            if move.target < self._last:
                self._copies_due[move.target].append(session)
        elif not self._pins[session]:
            held = self.tiers[move.source].held[session]
            if 0 < held <= self.tiers[move.target].held[session]:
                self._leave(move.source, session, now)

    def next_fetch(self, now: float) -> Move | None:
        """The next session to bring up ahead of its job, if the policy names one and there is room."""
        target = self.fetch_target
        if target is None or not self._saves:
            return None
        tier, reserve = self.tiers[target], self._reserve[target]
        self._low_water[target] = reserve
        for_waiting = tier.capacity - reserve - self._claimed_bytes
        while True:
            session = self._prefetch.next(self._queue, for_waiting * self._saves / self._saved_bytes)
            if session is None:
                return None
            source = max(self.home[session], target + 1)
            size = self.tiers[source].held[session]
            if size <= tier.capacity - reserve:
                break
            self._prefetch.drop(session)  # it can never come, and others need not wait for it
            if self._position[session] is not None:
                self.moved.append(session)
        if size > for_waiting - self._fetched_bytes:
            return None
        self._pin(session)
        if tier.free < size:
            self._wanted_position = self._position[session]
            if not self._room(target, size, now, for_fetch=True):
                self._unpin(session)
                self._low_water[target] = max(size, reserve)
                return None
        self._prefetch.drop(session)
        self._fetched[session] = size
        self._fetched_bytes += size
        self._add(target, session, size, now)
        self.tiers[source].read += size
        return Move(session, source, target, size)

    def _break_off(self, move: Move, sent: int, now: float) -> None:
        """The job starts, and the fetch ends with the first `sent` bytes of it. The rest is given up in the target, not in the source.

        The session may have been cut, or have expired, on the way.
        """
        target, source = self.tiers[move.target], self.tiers[move.source]
        unsent = move.size - sent
        target.written -= unsent
        target.dropped -= unsent
        source.read -= unsent
        excess = target.held[move.session] - sent
        if excess > 0:
            self._cut(move.target, move.session, excess, now)
        else:
            self._arrived(move.session, move.target, now)

    # --- inside ---------------------------------------------------------------------------------------------------------------

    def _want(self, session: int, position: float | None) -> None:
        """The session is to be fetched, if it lies below the fetch target and that could take it."""
        if self.fetch_target is not None and session not in self._fetched and self.bytes_to_come(session):
            self._prefetch.want(session, position)

    def _victim(self, index: int) -> int | None:
        """Who leaves a tier next; pinned sessions are set aside on the way."""
        eviction = self.tiers[index].eviction
        while True:
            victim = eviction.victim()
            if victim is None or not self._pins[victim]:
                return victim
            eviction.set_aside(victim)
            self._aside[index].add(victim)

    def _pin(self, session: int) -> None:
        self._pins[session] += 1
        self._pinned.add(session)

    def _unpin(self, session: int) -> None:
        self._pins[session] -= 1
        if not self._pins[session]:
            self._pinned.discard(session)
            for tier, aside, _ in self._orders:
                if session in aside:
                    aside.remove(session)
                    tier.eviction.restore(session)

    def _raise_reserve(self, index: int, size: int) -> None:
        """A tier had no room for `size` bytes: from now on it keeps that much free, up to half of it."""
        self._reserve[index] = max(self._reserve[index], min(size, self.tiers[index].capacity // 2))
        self._low_water[index] = max(self._low_water[index], size)

    def _room(self, index: int, size: int, now: float, for_fetch: bool = False) -> bool:
        """Whether `size` bytes are free in a tier, after evicting what can leave at once."""
        tier = self.tiers[index]
        while tier.free < size:
            victim = self._victim(index)
            if victim is None or (for_fetch and self._is_sooner(victim)):
                return False
            if not self._may_go(index, victim, now):
                return False
            if index == self._last and tier.free + tier.held[victim] < size and not self._can_make(tier, size):
                return False
            self._evict(index, victim, size, now)
        return True

    def _can_make(self, tier: Tier, size: int) -> bool:
        """Whether `size` bytes would be free if all left that can."""
        held = tier.held
        return size <= tier.capacity - sum([held[session] for session in self._pinned])

    def _may_go(self, index: int, victim: int, now: float) -> bool:
        """Whether a victim can leave a tier at once: because it is the last, holds nothing new, or is not worth writing down."""
        if index == self._last:
            return True
        missing = self.tiers[index].held[victim] - self.tiers[index + 1].held[victim]
        return missing <= 0 or not self._write.demotes(victim, self._uses[victim], missing, now)

    def _evict(self, index: int, victim: int, wanted: int, now: float) -> None:
        """A victim leaves a tier in which `wanted` bytes are to be free. What the tiers below hold of it stays."""
        if self.watch is not None:
            self.watch.evicted(self, index, victim, wanted)
        if self.home[victim] == index:
            self._leave(index, victim, now)
        else:  # a copy of what a tier above holds
            self._cut(index, victim, self.tiers[index].held[victim], now)

    def _is_sooner(self, victim: int) -> bool:
        """Whether the victim's job comes before the job that a fetch wants room for."""
        mine, wanted = self._position[victim], self._wanted_position
        return mine is not None and (wanted is None or mine < wanted)

    def _add(self, index: int, session: int, size: int, now: float, for_turn: bool = True) -> None:
        """`size` more bytes of a session come into a tier, `for_turn` that runs or waits."""
        tier = self.tiers[index]
        is_new = size and not tier.held[session]
        tier.add(session, size, now)
        if index == self.fetch_target and session in self._claimed:
            self._claimed[session] += size
            self._claimed_bytes += size
        if is_new and for_turn:
            self._new[index].add(session)
        elif is_new:
            tier.eviction.insert(session)

    def _cut(self, index: int, session: int, size: int, now: float, moved: bool = False) -> None:
        """`size` bytes of a session leave a tier."""
        tier = self.tiers[index]
        if size == tier.held[session]:
            aside, new = self._aside[index], self._new[index]
            if session in new:
                new.remove(session)
            else:
                if session in aside:
                    aside.remove(session)
                    tier.eviction.restore(session)
                tier.eviction.remove(session)
        tier.cut(session, size, now, moved)
        if index == self.fetch_target:
            if session in self._claimed:
                self._claimed[session] -= size
                self._claimed_bytes -= size
            elif session in self._fetched:
                self._fetched[session] -= size
                self._fetched_bytes -= size

    def _leave(self, index: int, session: int, now: float) -> None:
        """A session leaves a tier; the next one below that holds some of it becomes its home."""
        heir = next((below for below in range(index + 1, self._last + 1) if self.tiers[below].held[session]), -1)
        tier = self.tiers[index]
        lost = tier.held[session] - (self.tiers[heir].held[session] if heir > 0 else 0)
        if lost > 0:
            self._cut(index, session, lost, now)
        if tier.held[session]:
            self._cut(index, session, tier.held[session], now, moved=True)
        if self.home[session] == index:
            self.home[session] = heir
            position = self._position[session]
            if heir < 0:
                self._prefetch.drop(session)
            if position is not None:
                self._want(session, position)
                self.moved.append(session)

    def _drop(self, session: int, now: float) -> None:
        """All KV of a session is given up."""
        self._void(session, now)
        self._prefetch.drop(session)
        if self._position[session] is not None:
            self.moved.append(session)

    def _cut_below(self, index: int, session: int, now: float) -> None:
        for below in range(index + 1, len(self.tiers)):
            if self.tiers[below].held[session]:
                self._cut(below, session, self.tiers[below].held[session], now)

    def _cut_above(self, session: int, home: int, now: float) -> None:
        """What tiers above a session's home hold of it is of no use: an older part, or what a fetch brought before it ended."""
        for index in range(home):
            if self.tiers[index].held[session]:
                self._cut(index, session, self.tiers[index].held[session], now)

    def _arrived(self, session: int, target: int, now: float) -> None:
        """All that the home tier holds of a session is in tier `target` now."""
        if self.tiers[target].held[session] and self.home[session] > target:  # neither voided on the way nor saved above it
            self.home[session] = target
            if self._rewrite_whole:
                self._cut_below(target, session, now)
            if self._position[session] is not None:
                self.moved.append(session)

    def _expire(self, now: float) -> None:
        """Drops what was idle for the TTL; what is pinned by a move then, as soon as it is not, and at the latest when its turn comes."""
        while self._expiry and self._expiry[0][0] + self._ttl_s < now:
            released, session = self._expiry.popleft()
            if self._released_s.get(session) == released:
                self._overdue.add(session)
        for session in [session for session in sorted(self._overdue) if not self._pins[session]]:
            self._overdue.remove(session)
            self._end(session, now)

    def _end(self, session: int, now: float) -> None:
        """The session has been idle for longer than the TTL."""
        if self.watch is not None:
            self.watch.expired(self, session, now)
        self._drop(session, now)
