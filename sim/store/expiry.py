"""Time to live: sessions that have been idle for too long. It counts from the end of a turn to the next one's arrival."""

from collections import deque

from kvplan.sim.store.record import Records


class Expiry:
    """`ttl_s` seconds."""

    def __init__(self, ttl_s: float, records: Records) -> None:
        self._ttl_s = ttl_s
        self._records = records
        self._ends: deque[tuple[float, int]] = deque()
        self._overdue: set[int] = set()
        """Sessions whose time was over while a move pinned them."""

    def released(self, session: int, now: float) -> None:
        """A turn has ended."""
        self._records[session].released_s = now
        self._ends.append((now, session))

    def came(self, session: int) -> bool:
        """The next turn has come; returns whether that was too late, and the session has not ended yet."""
        self._records[session].released_s = None
        if session not in self._overdue:
            return False
        self._overdue.remove(session)
        return True

    def due(self, now: float) -> list[int]:
        """Sessions that end now: what is pinned by a move does as soon as it is not, and at the latest when its turn comes."""
        records, ends = self._records, self._ends
        while ends and ends[0][0] + self._ttl_s < now:
            released_s, session = ends.popleft()
            if records[session].released_s == released_s:
                self._overdue.add(session)
        if not self._overdue:
            return []
        ended = [session for session in sorted(self._overdue) if not records[session].pins]
        self._overdue.difference_update(ended)
        return ended
