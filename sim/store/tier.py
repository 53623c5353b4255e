"""One tier of the store: who holds how many bytes in it, and the sums that the metrics and the guards read."""

from sim.policies.base import Eviction


class Tier:
    """Bytes by session, with capacity. Conservation: `written − moved − dropped == used`."""

    def __init__(self, name: str, capacity: int, sessions: int, eviction: Eviction) -> None:
        self.name = name
        self.capacity = capacity
        self.eviction = eviction
        self.held = [0] * sessions
        """Bytes per session: the KV of its oldest kept tokens."""
        self.free = capacity
        """Bytes not used."""
        self.peak = 0
        self.written = 0
        """Bytes that came in: saved, demoted into or fetched into this tier."""
        self.read = 0
        """Bytes read to serve a turn or to move to another tier."""
        self.moved = 0
        """Bytes that left because another tier holds them."""
        self.dropped = 0
        """Bytes that left and were lost here: evicted, expired, truncated or voided."""
        self._area = 0.0
        self._since = 0.0

    @property
    def used(self) -> int:
        """Bytes held."""
        return self.capacity - self.free

    def add(self, session: int, size: int, now: float) -> None:
        """`size` more bytes of the session."""
        used = self.capacity - self.free
        self._area += used * (now - self._since)
        self._since = now
        self.free -= size
        if used + size > self.peak:
            self.peak = used + size
        self.held[session] += size
        self.written += size

    def cut(self, session: int, size: int, now: float, moved: bool = False) -> None:
        """`size` bytes of the session leave."""
        self._area += (self.capacity - self.free) * (now - self._since)
        self._since = now
        self.free += size
        self.held[session] -= size
        if moved:
            self.moved += size
        else:
            self.dropped += size

    def byte_seconds(self, now: float) -> float:
        """Integral of `used` over time, from the start to `now`."""
        return self._area + self.used * (now - self._since)
