"""KV that a job starts with comes layer by layer under its prefill."""

from typing import NamedTuple

from kvplan.sim.deployment import Deployment
from kvplan.validate.checks.reference.links import Links
from kvplan.validate.checks.reference.spans import Span
from kvplan.validate.checks.reference.store import Store, Tier


class Pace(NamedTuple):
    """How layers come."""

    delay: float
    """Seconds until the first one starts to move that has not yet."""
    each: float
    """Seconds of each."""
    early: float
    """Layers that are in HBM already."""


class Loading:
    """That of one replica."""

    def __init__(self, deployment: Deployment, store: Store, links: Links) -> None:
        self.deployment, self.store, self.h2d, self.ssd_read = deployment, store, links.h2d, links.ssd_read
        self.layers, self.connection = deployment.steps.layers, deployment.connection

    def load(self, session: int, size: int, compute: float, since: float, now: float) -> tuple[float, float]:
        """The session's job has headed the queue `since` then; returns when its KV has come, and the seconds to the end of a prefill that
        waits for it and computes for `compute`."""
        tier = self.store.home[session]
        fetching = tier.name != "dram" and self.store.fetching == session
        coming_s = self.ssd_read.slow_end_s if fetching else None
        pace = self.pace(tier, size, self.store.ready_s[session], since, now, coming_s)
        transfer = self.book(pace, tier.sent(size), now)
        self._count(session, transfer, size, now)
        return transfer.end_s, self.seconds(pace, compute)

    def pace(self, tier: Tier, size: int, ready_s: float, since: float, now: float, coming_s: float | None = None) -> Pace:
        """KV that is complete in a tier from `ready_s` on, or that a fetch brings until `coming_s`."""
        h2d, sent, seen = self.h2d, tier.sent(size), self.store.seen
        latencies = 1 if self.connection.asynchronous else self.layers
        each, early = sent / self.layers / h2d.bandwidth + h2d.latency_s * latencies / self.layers, 0.0
        ready = max(h2d.free_s, ready_s)
        asked = self.connection.ahead_s(sent) + (since if tier.name == "dram" and self._reads_ahead() else now)
        delay = max(0.0, ready - now, asked - now)
        if tier.name == "dram":
            early = self._early(size, each, max(ready, asked), now)
        elif coming_s is not None:
            each = max(each, (coming_s - now) / self.layers)
            seen["loads of what was being fetched"] += 1
        else:
            read = self.ssd_read.send(asked, sent)
            from_ssd = (read.end_s - read.start_s) / self.layers
            each, delay = max(each, from_ssd), max(read.start_s, ready) - now + min(each, from_ssd)
            seen["loads from SSD"] += 1
        return Pace(delay, each, early)

    def book(self, pace: Pace, sent: int, now: float) -> Span:
        """The transfer of so many bytes to the GPU."""
        start_s = now + pace.delay - pace.early * pace.each
        return self.h2d.take(Span(start_s, now + pace.delay + (self.layers - pace.early) * pace.each, sent))

    def seconds(self, pace: Pace, compute: float) -> float:
        """To the end of a prefill that computes for `compute`."""
        if not self.connection.layerwise:
            return pace.delay + self.layers * pace.each + compute
        return self._pipeline_s(compute, pace.delay, pace.each, pace.early)

    def _reads_ahead(self) -> bool:
        return self.connection.layerwise and self.store.settings.read_buffer_layers > 0

    def _early(self, size: int, each: float, start: float, now: float) -> float:
        """Layers that are in HBM when the job starts: as many as there was time for, and room."""
        buffer = self.store.settings.read_buffer_layers if self._reads_ahead() else 0
        most = min(buffer, self.layers, max(0.0, now - start) / each)
        jobs, sizes = self.store.jobs, self.store.sizes
        free = (self.deployment.hbm_budget - jobs.hbm_in_step) * self.layers / sizes.in_hbm[sizes.tokens(size)]
        self.store.seen["preloads that full HBM cuts short"] += free < most
        self.store.seen["partial preloads"] += 0 < min(most, free) < self.layers
        return min(most, free)

    def _count(self, session: int, transfer: Span, size: int, now: float) -> None:
        """Where it is read from, and that what comes from SSD stays in DRAM where there is room."""
        store, first = self.store, self.store.tiers[0]
        comes_up = store.home[session] is not first
        source = first if comes_up and store.fetching == session else store.home[session]
        source.went.append((transfer, size))
        if comes_up and store.fetching != session and store.make_room(first, size, now):
            first.put(session, size, now)
            first.came.append((transfer, size))
            store.arrived(session, now)

    def _pipeline_s(self, compute: float, delay: float, each: float, early: float) -> float:
        """Seconds until the last layer is computed, each one once it has come and the one before it is done."""
        end = 0.0
        for layer in range(1, self.layers + 1):
            end = max(end, delay + (layer - early) * each if layer > early else 0.0) + compute / self.layers
        return end
