"""What the recorder asks of a server: sums so far, and samples."""

from collections.abc import Sequence

from kvplan.sim.metrics.output import Books, TierBooks
from kvplan.sim.policies.base import Scheduler
from kvplan.sim.store.protocol import Store
from kvplan.validate.calibration.clock import Clock
from kvplan.validate.miniserver.batch import Batch
from kvplan.validate.miniserver.ledger import Ledger
from kvplan.validate.miniserver.meter import Meter


class Account:
    """That of one server. Its links are timed in real seconds, and their books are in those of its clock."""

    def __init__(self, clock: Clock, ledger: Ledger, batch: Batch, queue: Scheduler, store: Store, links: Sequence[Meter]) -> None:
        self._clock, self._ledger, self._batch, self._queue, self._store, self._links = clock, ledger, batch, queue, store, links

    def begin(self, now: float) -> None:
        """The measured span begins."""
        self._ledger.begin(now)
        for tier in self._store.tiers:
            tier.begin()

    def books(self, now: float) -> Books:
        """Every running sum."""
        pace, tiers = self._clock.pace, self._store.tiers
        return Books.of(
            self._ledger.spent | {"skipped_saves": self._store.skipped_saves},
            {link.name: (link.bytes, link.busy_s * pace) for link in self._links},
            [TierBooks(tier.name, tier.byte_seconds(now), tier.written, tier.read, tier.peak) for tier in tiers],
        )

    def sample(self, now: float) -> tuple:
        """A row of the time series."""
        used = [tier.used for tier in self._store.tiers]
        return (now, 0, len(self._queue), len(self._batch.running), self._batch.hbm_used, *used)
