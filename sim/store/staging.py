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
        self.most = tier.capacity - tier.reserve
        """That could come at all."""

    def fetch(self, record: Record, size: int) -> None:
        """A fetch starts, of a session that has nothing here."""
        record.fetched = True
        self.fetched += size

    def claim(self, record: Record) -> bool:
        """A job starts, with what is here; returns whether that was fetched for it, and the fetch's pin is the job's now."""
        size = record.held[self.tier.index]
        record.claimed = True
        self.claimed += size
        if not record.fetched:
            return False
        record.fetched = False
        self.fetched -= size
        return True

    def release(self, record: Record) -> None:
        """The job has ended."""
        record.claimed = False
        self.claimed -= record.held[self.tier.index]

    def lose(self, record: Record, size: int) -> None:
        """Bytes of a session have left the tier, whose job may have a part in this."""
        if record.claimed:
            self.claimed -= size
        elif record.fetched:
            self.fetched -= size
