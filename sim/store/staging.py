"""The books of the fetch target: how much of it belongs to running jobs, how much was fetched for those that wait, and what is left."""

from kvplan.sim.store.record import Record
from kvplan.sim.store.tier import Tier


class Staging:
    """Bytes. `tier` is the fetch target."""

    def __init__(self, tier: Tier) -> None:
        self.tier = tier
        self.claimed = 0
        """Of running jobs."""
        self.fetched = 0
        """For jobs that wait."""

    def for_waiting(self) -> int:
        """That jobs which wait may have there, what they have included."""
        return self.tier.capacity - self.tier.reserve - self.claimed

    def takes(self, size: int) -> bool:
        """Whether so much could come at all."""
        return size <= self.tier.capacity - self.tier.reserve

    def fetch(self, record: Record, size: int) -> None:
        """A fetch starts."""
        record.fetched = size
        self.fetched += size

    def claim(self, record: Record) -> bool:
        """A job starts, with what is here; returns whether that was fetched for it, and the fetch's pin is the job's now."""
        record.claimed = size = record.held[self.tier.index]
        self.claimed += size
        if record.fetched is None:
            return False
        self.fetched -= record.fetched
        record.fetched = None
        return True

    def release(self, record: Record) -> None:
        """The job has ended."""
        assert record.claimed is not None, "a job that ends has started"
        self.claimed -= record.claimed
        record.claimed = None

    def gain(self, record: Record, size: int) -> None:
        """Bytes have come into the tier of a session whose job runs."""
        assert record.claimed is not None, "a job that runs has started"
        record.claimed += size
        self.claimed += size

    def lose(self, record: Record, size: int) -> None:
        """Bytes of a session have left the tier, whose job may have a part in this."""
        if record.claimed is not None:
            record.claimed -= size
            self.claimed -= size
        elif record.fetched is not None:
            record.fetched -= size
            self.fetched -= size
