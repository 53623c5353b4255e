"""What the tiers hold, who leaves them, and what has become void."""

import math
from collections import Counter, defaultdict
from fractions import Fraction
from itertools import accumulate

from kvplan.sim.config import Store as Settings
from kvplan.sim.deployment import Deployment
from kvplan.validate.checks.reference.jobs import Jobs
from kvplan.validate.checks.reference.spans import Span
from kvplan.validate.checks.reference.turns import Turn

NOBODY = -1


class Tier:
    """Bytes by session, and the stamps that they leave by: of their last use, or of when they came."""

    def __init__(self, name: str, capacity: int, reserve: int, share: Fraction) -> None:
        self.name, self.capacity, self.reserve, self.share = name, capacity, reserve, share
        self.held: Counter[int] = Counter()
        self.stamp: Counter[int] = Counter()
        self.changes: list[tuple[float, int]] = []  # when, and by how many bytes
        self.came: list[tuple[Span, int]] = []  # transfers, and the bytes of KV in each
        self.went: list[tuple[Span, int]] = []

    def free(self) -> int:
        return self.capacity - sum(self.held.values())

    def put(self, session: int, size: int, now: float) -> None:
        self.held[session] += size
        self.changes.append((now, size))

    def cut(self, session: int, size: int, now: float) -> None:
        before = self.held[session]
        self.held[session] = max(0, before - size)
        self.changes.append((now, self.held[session] - before))
        if not self.held[session]:
            del self.held[session], self.stamp[session]

    def sent(self, size: int) -> int:
        """Bytes on a link of so many bytes of KV, in the dtype of this tier."""
        return math.floor(size * self.share + Fraction(1, 2))

    def peak(self, since: int) -> int:
        """Most bytes at any time after so many changes."""
        levels = list(accumulate((size for _, size in self.changes), initial=0))
        return max(levels[since:])

    def sums(self, now: float) -> dict[str, float]:
        """What the books say of it."""
        byte_seconds = sum(size * (now - when) for when, size in self.changes if when < now)
        return {
            f"{self.name}.byte_seconds": byte_seconds,
            f"{self.name}.written": sum(size * transfer.share(now) for transfer, size in self.came),
            f"{self.name}.read": sum(size * transfer.share(now) for transfer, size in self.went),
        }


def tiers_of(deployment: Deployment) -> list[Tier]:
    """All of them, empty."""
    each = deployment.kv_bytes
    return [Tier(tier.name, tier.capacity, tier.reserve, Fraction(tier.taken(each), each)) for tier in deployment.tiers]


class Store:
    """That of one replica. `seen` counts what happened, so that it can be shown that it did."""

    def __init__(self, settings: Settings, deployment: Deployment, jobs: Jobs, seen: Counter[str]) -> None:
        self.settings, self.sizes, self.jobs, self.seen = settings, jobs.sizes, jobs, seen
        self.block = deployment.connection.block
        self.tiers = tiers_of(deployment)
        self.home: dict[int, Tier] = {}  # per session: where its newest KV is
        self.ready_s: defaultdict[int, float] = defaultdict(float)  # per session: when its KV is complete where it is
        self.idle_since: dict[int, float] = {}  # per session: the end of its last turn, until the next one comes
        self.fetching: int | None = None
        self.demoting: int | None = None
        self.starved: int | None = None  # waits for room to be fetched to
        self.fetched: list[int] = []  # sessions with KV that came, or comes, for a job that waits
        self.offered: list[int] = []  # bytes of each save, done or skipped
        self.stamps = 0

    # --- turns come, start and end --------------------------------------------------------------------------------------------

    def come(self, turn: Turn, now: float) -> None:
        """A turn comes: what it does not go on from is of no use."""
        self.expire(now, turn.session)
        self.idle_since.pop(turn.session, None)
        if turn.dropped:
            self.jobs.context[turn.session] = max(0, self.jobs.context[turn.session] - turn.dropped)
            self.keep_first(turn.session, self.jobs.context[turn.session] // self.block * self.block, now)
            self.seen["turns that drop history"] += 1

    def claim(self, session: int, cut: int, now: float) -> int:
        """A job starts, with so many tokens of its history cut; returns the tokens of the rest that are here."""
        self.fetched = [other for other in self.fetched if other != session]
        self.expire(now)
        voids = cut and self.settings.positions == "embedded"
        blocks = -(-cut // self.block)
        for tier in self.tiers:
            self.keep(tier, session, 0 if voids else self.sizes.without(tier.held[session], blocks * self.block), now)
        if session in self.home and not self.home[session].held[session]:
            del self.home[session]
        if session not in self.home and self.fetching == session:
            self.fetching = NOBODY
        return self.sizes.tokens(self.home[session].held[session]) if session in self.home else 0

    def ended(self, session: int, now: float) -> None:
        self.idle_since[session] = now
        self.use(session, [tier for tier in self.tiers if tier.held[session]])

    def use(self, session: int, tiers: list[Tier]) -> None:
        self.stamps += 1
        for tier in tiers:
            if self.settings.eviction != "fifo" or not tier.stamp[session]:
                tier.stamp[session] = self.stamps

    # --- what is void ---------------------------------------------------------------------------------------------------------

    def expire(self, now: float, coming: int | None = None) -> None:
        """Drops what has been idle for longer than the TTL; what moves, once it does not, and at the latest when its turn comes."""
        ttl_s = self.settings.ttl_s
        for session in [one for one, since in sorted(self.idle_since.items()) if ttl_s is not None and since + ttl_s < now]:
            if session != self.demoting or session == coming:
                self.seen["sessions that expire"] += session in self.home
                del self.idle_since[session]
                self.keep_first(session, 0, now)

    def keep_first(self, session: int, tokens: int, now: float) -> None:
        """What any tier holds of a session beyond its first tokens is dropped, and all whose windows are."""
        for tier in self.tiers:
            self.keep(tier, session, self.sizes.first(tier.held[session], tokens), now)
        if session in self.home and not self.home[session].held[session]:
            self.seen["older copies that outlive a newer one"] += bool(self.tiers[-1].held[session])
            del self.home[session]
            if self.tiers[-1].held[session]:
                self.home[session] = self.tiers[-1]

    def keep(self, tier: Tier, session: int, size: int, now: float) -> None:
        if tier.held[session]:
            tier.cut(session, tier.held[session] - size, now)

    def arrived(self, session: int, now: float) -> None:
        """All that there is of a session is in DRAM now."""
        self.home[session] = self.tiers[0]
        if self.settings.ssd_write == "whole":
            self.leave_below(session, self.tiers[0], now)

    def leave_below(self, session: int, tier: Tier, now: float) -> None:
        for below in self.tiers[self.tiers.index(tier) + 1 :]:
            self.seen["sessions moved whole"] += bool(below.held[session])
            below.cut(session, below.held[session], now)

    # --- room -----------------------------------------------------------------------------------------------------------------

    def staying(self) -> set[int | None]:
        """Who leaves no tier."""
        return {*(turn.session for turn in self.jobs.started()), *self.fetched, self.demoting}

    def victim(self, tier: Tier, wanted_by: int | None = None) -> int | None:
        """Who leaves a tier next; None also when its job comes sooner than that of the session that wants the room."""
        waiting = [turn.session for turn in self.jobs.queue]

        def order(session: int) -> tuple[int, int]:
            if self.settings.eviction == "lookahead" and session in waiting:
                return 1, -waiting.index(session)
            return 0, tier.stamp[session]

        first = min((session for session in tier.held if session not in self.staying()), key=order, default=None)
        sooner = waiting[: waiting.index(wanted_by)] if wanted_by is not None else []
        return None if first in sooner else first

    def make_room(self, tier: Tier, size: int, now: float, wanted_by: int | None = None) -> bool:
        """Whether so many bytes are free in a tier, after those have left that can at once."""
        last = self.tiers[-1]
        if tier is last and size > tier.free() + sum(tier.held[session] for session in tier.held if session not in self.staying()):
            return False
        while tier.free() < size:
            session = self.victim(tier, wanted_by)
            if session is None or (tier is not last and tier.held[session] > last.held[session]):
                return False
            self.leave(session, tier, now)
        return True

    def leave(self, session: int, tier: Tier, now: float) -> None:
        self.seen["evictions"] += 1
        tier.cut(session, tier.held[session], now)
        if not self.home[session].held[session]:
            del self.home[session]
            if self.tiers[-1].held[session]:
                self.home[session] = self.tiers[-1]
