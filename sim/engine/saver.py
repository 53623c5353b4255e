"""How the KV of ended jobs is saved: what goes over which link when, and how long the GPU must wait for it.

Asynchronously it goes layer by layer since the job started, and what is left at the job's end waits in the write buffer; the GPU waits
only when the buffer is too full for its next step. Synchronously the GPU waits for the copy: of the prefill's KV after the prefill, and
of the rest at the end.
"""

import math

from kvplan.sim.deployment import Deployment
from kvplan.sim.engine.batch import Job
from kvplan.sim.engine.keeping import Stalls
from kvplan.sim.engine.link import Link
from kvplan.sim.engine.paths import Paths


class Saver(Stalls):
    """One replica's, asynchronous."""

    early = False
    """Whether the KV of a prefill is saved when that has ended."""

    def __init__(self, deployment: Deployment, paths: Paths) -> None:
        super().__init__(deployment.write_buffer)
        self._steps = deployment.steps
        self._stored, self._tokens_in = deployment.stored, deployment.tokens_in
        self._since = self._now = 0.0
        self._links, self._flows, self._taken = paths.saves, paths.saved, paths.taken
        self._slowest = paths.saves[-1]
        """Links to the last tier."""
        token = deployment.stored(1)
        last = zip(self._taken, self._links, strict=True)
        self._last_token_s = [max([taken(token) / link.bandwidth for link in links], default=0.0) for taken, links in last]
        """By tier, of an idle link."""

    def prefilled(self, job: Job, now: float) -> None:
        """A prefill has ended: its KV has gone layer by layer."""

    def begin(self, since: float, now: float) -> None:
        """A job that started at `since` has ended now, and its KV is to be saved."""
        self._since, self._now = since, now

    def spills(self, tier: int, size: int) -> bool:
        """Whether a tier below one that has no room takes a save of so much: unless the GPU would have to wait for longer than to compute
        it again."""
        buffer, sent = self.write_buffer, self._taken[tier](size)
        until = max(link.preview(self._since, sent)[1] - buffer / link.bandwidth for link in self._links[tier])
        return until - self._now <= self._steps.prefill(self._tokens_in(size), 0)

    def save(self, job: Job, tier: int, size: int) -> float | None:
        """Saves `size` bytes of that job to a tier; returns when they are there, where that is not now."""
        links, now = self._links[tier], self._now
        if not size or not links:
            return None
        start, end, sent = 0.0, -math.inf, self._taken[tier](size)
        for link in links:
            booked = link.book(self._since, sent)
            if booked[1] > end:
                start, end = booked
        self._flows[tier].add(now, start, end, size)
        self.make_room(self.write_buffer)
        last = now + self._last_token_s[tier]
        return end if end > last else last

    def make_room(self, left: int) -> None:
        for link in self._slowest:
            until = link.free_at - left / link.bandwidth
            if until > self.stall_until:
                self.stall_until = until


class WaitingSaver(Saver):
    """Synchronous: the GPU waits for every copy."""

    def __init__(self, deployment: Deployment, paths: Paths) -> None:
        super().__init__(deployment, paths)
        self.early = bool(paths.saves[0])
        self._whole, self._grown = deployment.connection.whole, deployment.kv.grown
        self._early: dict[int, int] = {}
        """Bytes per running turn that were saved after its prefill."""

    def prefilled(self, job: Job, now: float) -> None:
        self._early[job.turn] = early = self._stored(self._whole(job.known) - job.cached)
        self._save_now(self._links[0] if early else [], self._taken[0](early), now)

    def spills(self, tier: int, size: int) -> bool:
        return True

    def save(self, job: Job, tier: int, size: int) -> float | None:
        """Of `size` bytes the links to the first tier have had some since the prefill."""
        links, now = self._links[tier], self._now
        if not size or not links:
            return None
        early = self._early.pop(job.turn, 0)
        for link in links:
            self._save_now([link], self._taken[tier](max(0, self._grown(early, size)) if link in self._links[0] else size), now)
        self._flows[tier].add(now, now, max(link.free_at for link in links), size)
        return None

    def _save_now(self, links: list[Link], size: int, now: float) -> None:
        for link in links:
            self.stall_until = max(self.stall_until, link.book(now, size)[1])
