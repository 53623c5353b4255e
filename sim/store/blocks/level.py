"""What a tier of blocks holds over time, for metrics and guards: the sums of `kvplan.sim.store.tier.Tier`, without sessions."""

from kvplan.sim.tiers import TierSpec


class Level:
    """One tier. Bytes are of KV, stored once."""

    def __init__(self, spec: TierSpec) -> None:
        self.spec, self.name, self.capacity = spec, spec.name, spec.capacity
        self.used = self.peak = 0
        """Bytes held now, and at most since the measured span began."""
        self.written = self.read = 0
        """Bytes that came in, and that were read to serve a request or another tier."""
        self._moment = 0.0

    def hold(self, size: int, now: float) -> None:
        """So many bytes are held from now on."""
        self._moment += (size - self.used) * now
        self.used = size
        if size > self.peak:
            self.peak = size

    def begin(self) -> None:
        """The measured span begins: `peak` counts from here."""
        self.peak = self.used

    def byte_seconds(self, now: float) -> float:
        """Integral of `used` over time, from the start to `now`."""
        return self.used * now - self._moment
