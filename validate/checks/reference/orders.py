"""A tier of chunks that leave in the order of sessions, `fifo` or `lookahead`.

A chunk is of the session whose use of it ended last. What a session's last turn has not used goes before all others; a chunk that others
go on from is of nobody until these have gone.
"""

from collections import Counter

from kvplan.validate.checks.reference.shelf import Names, Shelf
from kvplan.validate.checks.reference.store import Tier

NEW, ASIDE = "new", "aside"


class OrderedShelf(Shelf):
    """One tier's."""

    def __init__(self, tier: Tier, each: int, threshold: int, eviction: str, seen: Counter[str]) -> None:
        super().__init__(tier, each, threshold)
        self.looks_ahead, self.seen = eviction == "lookahead", seen
        self.before: dict[int, int | None] = {}  # of each chunk, the one before it in its context
        self.owner: dict[int, int] = {}  # of chunks in a session's order
        self.next: list[int] = []  # they go first
        self.nobody: set[int] = set()  # others go on from these
        self.sessions: dict[int, int] = {}  # that have an order, and the stamp that they leave by
        self.out: dict[int, str] = {}  # of these, who run and are not in line, and why
        self.running: set[int] = set()
        self.late: set[int] = set()  # whose turn ended while all that they have was in use
        self.waits: dict[int, int] = {}  # places in the queue
        self.awaited: dict[int, int] = {}  # the same, of those in line, until their turn ends
        self.stamp = 0

    def of(self, session: int) -> list[int]:
        """Chunks of a session, the first to go first."""
        return sorted([name for name, owner in self.owner.items() if owner == session], key=self.stamps.__getitem__)

    # --- the life of a turn ---------------------------------------------------------------------------------------------------

    def expect(self, session: int, place: int) -> None:
        self.waits[session] = place
        if session in self.sessions and session not in self.out:
            self.awaited[session] = place

    def claim(self, session: int) -> None:
        self.waits.pop(session, None)
        self.running.add(session)

    def hold(self, names: Names) -> None:
        super().hold(names)
        for name in names:
            self.owner.pop(name, None)
        self.next = [name for name in self.next if name not in names]
        self.nobody -= {*names}

    def let_go(self, names: Names, session: int, now: float) -> None:
        super().let_go(names, session, now)
        self.owner |= {name: session for name in names if not self.users[name]}
        if not self.of(session):
            return
        if session not in self.sessions:
            self.sessions[session] = 0
            if session in self.running:
                self.out[session] = NEW
            else:
                self.insert(session)
        elif session in self.late and session not in self.running:
            self.used(session)

    def release(self, session: int, now: float) -> None:
        self.running.remove(session)
        if session not in self.sessions:
            return
        for name in self.of(session):
            if self.left_s[name] < now:
                del self.owner[name]
                self.next.append(name)
                self.seen["chunks that a turn has not used"] += 1
        if self.of(session):
            self.used(session)
        else:
            self.late.add(session)

    def used(self, session: int) -> None:
        self.late.discard(session)
        if self.out.pop(session, None) == NEW:
            self.insert(session)
        elif self.looks_ahead:
            self.stamp += 1
            self.sessions[session] = self.stamp
            self.awaited.pop(session, None)
            if session in self.waits:
                self.awaited[session] = self.waits[session]

    def insert(self, session: int) -> None:
        self.stamp += 1
        self.sessions[session] = self.stamp
        if session in self.waits:
            self.awaited[session] = self.waits[session]

    # --- room -----------------------------------------------------------------------------------------------------------------

    def evict(self, count: int) -> None:
        while count:
            if self.next:
                count -= self.goes(self.next.pop(0))
                continue
            session = self.victim()
            if mine := self.of(session):
                del self.owner[mine[0]]
                count -= self.goes(mine[0])
            if not self.of(session):
                self.forget(session)

    def victim(self) -> int:
        line = sorted([session for session in self.sessions if session not in self.out], key=self.place)
        for session in line:
            if session not in self.running:
                return session
            self.out[session] = ASIDE
        self.seen["sessions that run and leave"] += 1
        return next(iter(self.out))

    def place(self, session: int) -> tuple[int, int]:
        if self.looks_ahead and session in self.awaited:
            return 1, -self.awaited[session]
        return 0, self.sessions[session]

    def goes(self, name: int) -> bool:
        """Whether it goes, and not only its session."""
        if name in {self.before[each] for each in self.stamps}:
            self.nobody.add(name)
            self.seen["chunks of nobody"] += 1
            return False
        self.drop(name)
        return True

    def drop(self, name: int) -> None:
        owner = self.owner.pop(name, None)
        super().drop(name)
        self.next = [each for each in self.next if each != name]
        self.nobody.discard(name)
        before = self.before.pop(name)
        if before in self.nobody and before not in self.before.values():
            self.nobody.remove(before)
            self.next.insert(0, before)
        if owner is not None and not self.of(owner) and owner not in self.running:
            self.forget(owner)

    def put(self, names: Names, session: int, now: float) -> Names | None:
        missing = super().put(names, session, now)
        places = {name: before for before, name in zip([None, *names], names, strict=False)}
        self.before |= {name: places[name] for name in missing or ()}
        return missing

    def forget(self, session: int) -> None:
        self.out.pop(session, None)
        self.late.discard(session)
        self.awaited.pop(session, None)
        del self.sessions[session]
