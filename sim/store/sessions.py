"""The AttentionStore of CachedAttention: the KV of whole sessions over a list of tiers.

A session's KV lives in its `home` tier; tiers below may hold a prefix of it (an older copy: KV is append-only). The store owns bytes,
membership, pins and the evict loop, and has no clock: `now` is passed in only to integrate occupancy. It moves nothing itself; it
hands out `Move`s, which the engine books on links and reports back when they are done.

Rules:

- A pinned session leaves no tier. Pinned are: sessions whose turn runs, sessions on the move, and sessions fetched ahead of their job.
- Bytes of a move are reserved in the target when it starts and released in the source when it ends.
- Demotion down the list begins when free space falls below the tier's reserve (the paper's host buffer), or when a fetch waits for
  room; from the last tier sessions are dropped. What the tier below already holds is not written again (`delta`).
- A save takes free space, or space that is freed at once by dropping clean or last-tier sessions. When there is none the new KV is
  not kept; what was saved before stays valid, being a prefix.

Source: CachedAttention (USENIX ATC 2024) section 3.3. Not from the paper: what happens to a save without room (real offloading
connectors skip it too), and the pin on fetched sessions, which keeps a fetch from undoing the one before.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from sim.policies.base import Eviction, Prefetch, Queue
from sim.store.tier import Tier


@dataclass(slots=True)
class Move:
    """KV on its way from one tier to another."""

    session: int
    source: int
    target: int
    size: int


class SessionStore:
    """See the module. `tiers` are (name, capacity in bytes, reserve in bytes), fastest first; at least one."""

    def __init__(
        self,
        tiers: list[tuple[str, int, int]],
        sessions: int,
        eviction: Callable[[], Eviction],
        prefetch: Prefetch,
        queue: Queue,
        ttl_s: float | None = None,
        rewrite_whole: bool = False,
    ) -> None:
        self.tiers = [Tier(name, capacity, sessions, eviction()) for name, capacity, _ in tiers]
        self.skipped_saves = 0
        self.home = [-1] * sessions
        """Tier index that holds the newest KV of each session, −1 for none."""
        self._reserve = [reserve for *_, reserve in tiers]
        self._wanted = [0] * len(tiers)
        self._wanted_by: list[float | None] = [None] * len(tiers)
        self._pins = [0] * sessions
        self._fetched: dict[int, int] = {}
        self._fetched_total = 0
        self._position: list[float | None] = [None] * sessions
        self._prefetch = prefetch
        self._queue = queue
        self._uses_queue = self.tiers[0].eviction.USES_QUEUE
        self._rewrite_whole = rewrite_whole
        self._ttl_s = ttl_s
        self._released_s: dict[int, float] = {}
        self._expiry: deque[tuple[float, int]] = deque()
        self._claimed_bytes = [0] * sessions
        self._claimed_total = 0
        self._saved_bytes = 0
        self._saves = 0
        names = [tier.name for tier in self.tiers]
        self.fetch_target = names.index("dram") if names[-1] == "ssd" and "dram" in names else None
        """Tier that prefetching fills from the one below it; None when there are not both."""

    # --- what the engine asks -------------------------------------------------------------------------------------------------

    def lookup(self, session: int) -> tuple[int, int]:
        """(tier index, bytes) of the session's KV; (−1, 0) when nothing is kept."""
        home = self.home[session]
        return (home, self.tiers[home].held[session]) if home >= 0 else (-1, 0)

    # --- the life of a turn ---------------------------------------------------------------------------------------------------

    def expect(self, session: int, position: float) -> None:
        """A job of the session has joined the queue."""
        self._position[session] = position
        home = self.home[session]
        if home < 0:
            return
        if self._uses_queue and not self._pins[session]:
            for tier in self.tiers:
                if tier.held[session]:
                    tier.eviction.reposition(session, position)
        if self.fetch_target is not None and home > self.fetch_target:
            self._prefetch.want(session, position)

    def claim(self, session: int, now: float) -> None:
        """The session's job starts: its KV is pinned until `release`."""
        if self._ttl_s is not None:
            self._expire(now)
        self._position[session] = None
        self._prefetch.drop(session)
        if session in self._fetched:
            self._fetched_total -= self._fetched.pop(session)  # the pin passes to the job
        else:
            self._pin(session)
        self._count_claimed(session)

    def truncate(self, session: int, size: int, now: float) -> None:
        """The oldest `size` bytes are cut off; what remains keeps its place, and stays valid with decoupled positions."""
        for index, tier in enumerate(self.tiers):
            held = tier.held[session]
            if held:
                self._cut(index, session, min(size, held), now)
        home = self.home[session]
        if home >= 0 and not self.tiers[home].held[session]:
            self.home[session] = -1
        self._count_claimed(session)

    def void(self, session: int, now: float) -> None:
        """All KV of the session has become useless."""
        for index, tier in enumerate(self.tiers):
            if tier.held[session]:
                self._cut(index, session, tier.held[session], now)
        self.home[session] = -1
        self._count_claimed(session)

    def load(self, session: int, now: float) -> int:
        """A claimed session's KV is read to serve its turn; returns the tier index it is read from.

        KV below the fetch target takes room there on its way, when there is room at once; KV that is being fetched keeps the room
        it has there.
        """
        home, target = self.home[session], self.fetch_target
        size = self.tiers[home].held[session]
        if target is None or home <= target:
            self.tiers[home].read += size
        elif self.tiers[target].held[session]:
            self.tiers[target].read += size
        else:
            self.tiers[home].read += size
            if self._room(target, size, now):
                self.tiers[target].add(session, size, now)
                self._count_claimed(session)
                self._arrived(session, target, now)
        return home

    def save(self, session: int, size: int, now: float) -> int:
        """The KV of a claimed session is now `size` bytes; returns how many of them must be copied to the top tier.

        0 when there is no room: then nothing changes, but for the count of skipped saves.
        """
        self._saved_bytes += size
        self._saves += 1
        top = self.tiers[0]
        missing = size - top.held[session]
        if not self._room(0, missing, now):
            self.skipped_saves += 1
            return 0
        top.add(session, missing, now)
        self.home[session] = 0
        if self._rewrite_whole:
            self._cut_below(0, session, now)
        return missing

    def release(self, session: int, now: float) -> None:
        """The session's turn has ended."""
        self._claimed_total -= self._claimed_bytes[session]
        self._claimed_bytes[session] = 0
        if self._ttl_s is not None:
            self._released_s[session] = now
            self._expiry.append((now, session))
        self._unpin(session)

    # --- moves ----------------------------------------------------------------------------------------------------------------

    def next_demotion(self, source: int, now: float) -> Move | None:
        """The next session to write from tier `source` to the one below; frees on the way what needs no writing."""
        tier, target = self.tiers[source], self.tiers[source + 1]
        while True:
            victim = tier.eviction.victim() if tier.free < max(self._reserve[source], self._wanted[source]) else None
            if victim is None or (tier.free >= self._reserve[source] and self._is_sooner(victim, source)):
                return None
            missing = tier.held[victim] - target.held[victim]
            if missing <= 0:
                self._leave(source, victim, now)
                continue
            if self._rewrite_whole and target.held[victim]:
                self._cut(source + 1, victim, target.held[victim], now)
                missing = tier.held[victim]
            self._pin(victim)  # the evict loop below must not take it
            has_room = self._room(source + 1, missing, now)
            if has_room:
                target.add(victim, missing, now)
                tier.read += missing
                return Move(victim, source, source + 1, missing)
            self._unpin(victim)
            if source + 1 < len(self.tiers) - 1:
                return None  # the tier below must be demoted first
            self._drop_everywhere(victim, now)

    def finish_demotion(self, move: Move, now: float) -> None:
        """The bytes are written. The session leaves the source, unless it was used or grew meanwhile."""
        self._unpin(move.session)
        session, source, target = move.session, self.tiers[move.source], self.tiers[move.target]
        if not self._pins[session] and 0 < source.held[session] <= target.held[session]:
            self._leave(move.source, session, now)

    def next_fetch(self, now: float) -> Move | None:
        """The next session to bring up ahead of its job, if the policy names one and there is room."""
        target = self.fetch_target
        self._wanted[target] = 0
        if not self._saves:
            return None
        tier = self.tiers[target]
        for_waiting = tier.capacity - self._reserve[target] - self._claimed_total
        session = self._prefetch.next(self._queue, for_waiting * self._saves / self._saved_bytes)
        if session is None:
            return None
        size = self.tiers[target + 1].held[session]
        if size > for_waiting - self._fetched_total:
            return None
        self._pin(session)
        self._wanted_by[target] = self._position[session]
        if not self._room(target, size, now, for_fetch=True):
            self._unpin(session)
            self._wanted[target] = size
            return None
        self._prefetch.drop(session)
        self._fetched[session] = size
        self._fetched_total += size
        tier.add(session, size, now)
        self.tiers[target + 1].read += size
        return Move(session, target + 1, target, size)

    def finish_fetch(self, move: Move, now: float) -> None:
        """The bytes have arrived. The session stays pinned for its job."""
        self._arrived(move.session, move.target, now)

    # --- inside ---------------------------------------------------------------------------------------------------------------

    def _room(self, index: int, size: int, now: float, for_fetch: bool = False) -> bool:
        """Whether `size` bytes are free in a tier, after evicting what can leave at once."""
        tier = self.tiers[index]
        last = index == len(self.tiers) - 1
        while tier.free < size:
            victim = tier.eviction.victim()
            if victim is None or (for_fetch and self._is_sooner(victim, index)):
                return False
            if last:
                if self.home[victim] == index:
                    self._drop_everywhere(victim, now)
                else:
                    self._remove(index, victim, now)
            elif self.tiers[index + 1].held[victim] >= tier.held[victim]:
                self._leave(index, victim, now)
            else:
                return False
        return True

    def _is_sooner(self, victim: int, index: int) -> bool:
        """Whether the victim's job comes before the job that a fetch wants room for."""
        mine, wanted = self._position[victim], self._wanted_by[index]
        return mine is not None and wanted is not None and mine < wanted

    def _leave(self, index: int, session: int, now: float) -> None:
        """An evictable session leaves a tier; the tier below holds all of it and becomes its home."""
        tier = self.tiers[index]
        tier.eviction.remove(session)
        tier.eviction.forget(session)
        tier.cut(session, tier.held[session], now, moved=True)
        if self.home[session] == index:
            self.home[session] = index + 1
            position = self._position[session]
            if self.fetch_target == index and position is not None:
                self._prefetch.want(session, position)

    def _remove(self, index: int, session: int, now: float) -> None:
        """An evictable session's copy in one tier goes; its home is elsewhere."""
        tier = self.tiers[index]
        tier.eviction.remove(session)
        tier.eviction.forget(session)
        tier.cut(session, tier.held[session], now)

    def _drop_everywhere(self, session: int, now: float) -> None:
        for index, tier in enumerate(self.tiers):
            if tier.held[session]:
                self._remove(index, session, now)
        self.home[session] = -1
        self._prefetch.drop(session)

    def _cut(self, index: int, session: int, size: int, now: float) -> None:
        """`size` bytes of a session, pinned or not, go from one tier."""
        tier = self.tiers[index]
        if size == tier.held[session]:
            if not self._pins[session]:
                tier.eviction.remove(session)
            tier.eviction.forget(session)
        tier.cut(session, size, now)

    def _cut_below(self, index: int, session: int, now: float) -> None:
        for below in range(index + 1, len(self.tiers)):
            if self.tiers[below].held[session]:
                self._cut(below, session, self.tiers[below].held[session], now)

    def _arrived(self, session: int, target: int, now: float) -> None:
        """All that the home tier holds of a session is in tier `target` now."""
        if self.tiers[target].held[session]:  # not voided on the way
            self.home[session] = target
            if self._rewrite_whole:
                self._cut_below(target, session, now)

    def _pin(self, session: int) -> None:
        self._pins[session] += 1
        if self._pins[session] == 1:
            for tier in self.tiers:
                if tier.held[session]:
                    tier.eviction.remove(session)

    def _unpin(self, session: int) -> None:
        self._pins[session] -= 1
        if not self._pins[session]:
            position = self._position[session]
            for tier in self.tiers:
                if tier.held[session]:
                    tier.eviction.insert(session, position)

    def _count_claimed(self, session: int) -> None:
        """DRAM that running sessions pin is not free for prefetching."""
        if self.fetch_target is not None:
            size = self.tiers[self.fetch_target].held[session]
            self._claimed_total += size - self._claimed_bytes[session]
            self._claimed_bytes[session] = size

    def _expire(self, now: float) -> None:
        while self._expiry and self._expiry[0][0] + self._ttl_s < now:
            released, session = self._expiry.popleft()
            if self._released_s.get(session) == released and not self._pins[session]:
                del self._released_s[session]
                if self.home[session] >= 0:
                    self._drop_everywhere(session, now)
