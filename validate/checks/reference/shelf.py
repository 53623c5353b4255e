"""Chunks of blocks in one tier below a pool, chunk by chunk: who uses each, which are on their way, and when each was used last.

A chunk's name is that of the block that it ends with.
"""

from collections import Counter
from collections.abc import Sequence
from itertools import takewhile
from typing import Any

from kvplan.validate.checks.reference.store import Tier

Names = Sequence[Any]
"""Of the first chunks of a context; of windows with their group."""


class Shelf:
    """One tier's."""

    def __init__(self, tier: Tier, each: int, threshold: int = 1) -> None:
        self.tier, self.each, self.room = tier, each, tier.capacity // each
        self.threshold = threshold  # a chunk is stored when so many jobs have offered it
        self.offers: Counter[Any] = Counter()  # jobs that have, while it was not there
        self.users: Counter[int] = Counter()
        self.stamps: dict[int, tuple[int, int]] = {}  # when its last use ended, and how far from the end; of all that have room
        self.left_s: dict[int, float] = {}  # when the last use of each ended
        self.coming: set[int] = set()
        self.uses = 0

    def there(self, names: Names) -> Names:
        """The first of them that have room."""
        return list(takewhile(self.stamps.__contains__, names))

    def come(self, names: Names) -> Names:
        """The first of them that are there, and not on their way."""
        return list(takewhile(self.is_ready, names))

    def is_ready(self, name: Any) -> bool:
        return name in self.stamps and name not in self.coming

    def most(self, kept: Names) -> int:
        """How many more can come at most, when these and those in use stay."""
        return self.room - len({*kept, *(name for name, users in self.users.items() if users)})

    def wanted(self, names: Names, known: int) -> Names:
        """Those that are there, and those behind them up to the first that too few have offered. Who offers them has offered the first
        `known` before."""
        if self.threshold == 1:
            return names
        there = len(self.there(names))
        self.offers.update(names[max(there, known) :])
        return [*names[:there], *takewhile(lambda name: self.offers[name] >= self.threshold, names[there:])]

    def put(self, names: Names, session: int, now: float) -> Names | None:
        """Those that are missing are on their way, and all in use; which these are. None where they have no room."""
        there = self.there(names)
        missing = [name for name in names if name not in self.stamps]
        self.hold(there)
        if len(missing) > self.most(there):
            self.let_go(there, session, now)
            return None
        gone = max(0, len(self.stamps) + len(missing) - self.room)
        self.evict(gone)
        self.tier.put(0, (len(missing) - gone) * self.each, now)
        for name in missing:
            self.stamps[name] = 0, 0
        self.coming.update(missing)
        self.hold(missing)
        return missing

    def evict(self, count: int) -> None:
        """So many go of those that nobody uses."""
        free = [name for name in self.stamps if not self.users[name]]
        for name in sorted(free, key=self.stamps.__getitem__)[:count]:
            del self.stamps[name]

    def hold(self, names: Names) -> None:
        self.users.update(names)

    def let_go(self, names: Names, session: int, now: float) -> None:
        """A use has ended: the last of them is the first to go."""
        self.uses += 1
        self.users.subtract(names)
        for place, name in enumerate(names):
            if not self.users[name]:
                self.stamps[name], self.left_s[name] = (self.uses, -place), now

    def use(self, names: Names, session: int, now: float) -> None:
        self.hold(names)
        self.let_go(names, session, now)

    def expire(self, ttl_s: float, now: float) -> int:
        """Drops what nobody has used for longer; returns how many."""
        over = [name for name in self.stamps if not self.users[name] and self.left_s[name] + ttl_s < now]
        for name in sorted(over, key=self.stamps.__getitem__):
            self.drop(name)
        if over:
            self.tier.put(0, -len(over) * self.each, now)
        return len(over)

    def drop(self, name: int) -> None:
        del self.stamps[name]

    def expect(self, session: int, place: int) -> None:
        """A job of a session waits."""

    def claim(self, session: int) -> None:
        """It starts."""

    def release(self, session: int, now: float) -> None:
        """It has ended."""
