"""One tier of the store: who holds how many bytes in it, and the sums that the metrics and the guards read."""

from collections import defaultdict

from kvplan.sim.policies.base import Eviction
from kvplan.sim.tiers import TierSpec


class Tier:
    """Bytes by session, with capacity. Conservation: `written − moved − dropped == used`."""

    eviction: Eviction
    """The order in which sessions leave; set by the store, since it needs a view of the tier."""

    def __init__(self, spec: TierSpec) -> None:
        self.spec = spec
        self.name = spec.name
        self.capacity = capacity = spec.capacity
        self.held: defaultdict[int, int] = defaultdict(int)
        """Bytes per session: the KV of its oldest kept tokens."""
        self.free = capacity
        """Bytes not used."""
        self.written = 0
        """Bytes that came in: saved, demoted into or fetched into this tier."""
        self.read = 0
        """Bytes read to serve a turn or to move to another tier."""
        self.moved = 0
        """Bytes that left because another tier holds them."""
        self.dropped = 0
        """Bytes that left and were lost here: evicted, expired, truncated or voided."""
        self._least_free = capacity
        self._moment = 0.0

    @property
    def used(self) -> int:
        """Bytes held."""
        return self.capacity - self.free

    def add(self, session: int, size: int, now: float) -> None:
        """`size` more bytes of the session."""
        self._moment += size * now
        self.free -= size
        if self.free < self._least_free:
            self._least_free = self.free
        self.held[session] += size
        self.written += size

    def cut(self, session: int, size: int, now: float, moved: bool = False) -> None:
        """`size` bytes of the session leave."""
        self._moment -= size * now
        self.free += size
        self.held[session] -= size
        if moved:
            self.moved += size
        else:
            self.dropped += size

    def begin(self) -> None:
        """The measured span begins: `peak` counts from here."""
        self._least_free = self.free

    @property
    def peak(self) -> int:
        """Most bytes held at any time of the measured span."""
        return self.capacity - self._least_free

    def byte_seconds(self, now: float) -> float:
        """Integral of `used` over time, from the start to `now`: each byte has been here since it came."""
        return self.used * now - self._moment
