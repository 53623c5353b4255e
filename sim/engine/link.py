"""Links: FIFO servers whose finish times are computed when a transfer is booked.

A link has bandwidth and latency, and no events of its own. Two kinds of traffic:

- *demand* transfers, for which a job waits, are booked with `book` and served in order;
- one *background* transfer at a time (prefetch, write-back) fills the gaps. It goes a piece at a time, so that demand never waits
  behind more than one piece; every demand transfer pushes its end back, and its owner asks `background_end` again when it is due.
"""

import math
from typing import Any

from kvplan.sim.engine.flow import Flow


class Link:
    """Seconds and bytes of one direction of one wire. `bandwidth` in bytes/s, `latency_s` per transfer, `piece` in bytes."""

    def __init__(self, name: str, bandwidth: float, latency_s: float, piece: int, watch: Any = None) -> None:
        self.name = name
        self.bandwidth = bandwidth
        self.latency_s = latency_s
        self.bytes = 0
        """Bytes of all transfers booked so far."""
        self.busy_s = 0.0
        """Seconds of all transfers booked so far."""
        self.free_at = 0.0
        """When the last demand transfer ends."""
        self.background_end = 0.0
        """When the background transfer ends, as far as is known now."""
        self._background_start = 0.0
        self._background_size = 0
        self._piece_s = piece / bandwidth
        self._flow = Flow()
        self._watch = watch
        """Told of every transfer: who observes the run."""

    def book(self, ready: float, size: int) -> tuple[float, float]:
        """Books a demand transfer that may start at `ready`; returns its start and end."""
        start, end = self.preview(ready, size)
        if self._watch is not None:
            self._watch.booked(self, ready, start, end, size)
        duration = self.latency_s + size / self.bandwidth
        if start < self.background_end:
            delay = duration if start >= self._background_start else max(0.0, end - self._background_start)
            self._background_start += delay
            self.background_end += delay
        self.free_at = end
        self.bytes += size
        self.busy_s += duration
        self._flow.add(ready, start, end, size)
        return start, end

    def preview(self, ready: float, size: int) -> tuple[float, float]:
        """What `book` would give now."""
        free_at = self.free_at
        start = ready if ready > free_at else free_at
        if start > free_at and self.background_end > start > self._background_start:
            # the background transfer is under way: its current piece ends first
            pieces = math.ceil((start - self._background_start) / self._piece_s)
            start = min(max(start, self._background_start + pieces * self._piece_s), self.background_end)
        return start, start + (self.latency_s + size / self.bandwidth)

    def book_background(self, now: float, size: int) -> float:
        """Starts a background transfer, when none is under way; returns its end if no demand comes between."""
        duration = self.latency_s + size / self.bandwidth
        start = self.free_at if self.free_at > now else now
        if self._watch is not None:
            self._watch.booked_behind(self, now, start, start + duration, size)
        self._background_start = start
        self._background_size = size
        self.background_end = end = start + duration
        self.bytes += size
        self.busy_s += duration
        return end

    def background_is_done(self) -> None:
        """The background transfer has ended: demand booked from now on, if for a time before, comes after it."""
        if self.free_at < self.background_end:
            self.free_at = self.background_end

    def end_background(self, now: float, size: int) -> int:
        """Breaks off the background transfer of `size` bytes; returns how many of them have been sent."""
        left = self._background_left_s(now)
        sent = int(size * (1 - left / (self.background_end - self._background_start)))
        self.background_end = now
        self.bytes -= size - sent
        self.busy_s -= left
        if self._watch is not None:
            self._watch.broken_off(self, size, sent)
        return sent

    def occupy(self, start: float, end: float, size: int) -> None:
        """Books a transfer whose times the caller has computed (the layer pipeline): it starts at or after `free_at`."""
        if self._watch is not None:
            self._watch.booked(self, start, start, end, size)
        self.free_at = end
        self.bytes += size
        self.busy_s += self.latency_s + size / self.bandwidth
        self._flow.add(start, start, end, size)

    def _background_left_s(self, now: float) -> float:
        total = self.background_end - self._background_start
        left = self.background_end - now - self._flow.overlap(now, self.background_end)
        return min(total, max(0.0, left))

    def background_left(self, now: float) -> float:
        """Bytes of the background transfer that are still to come."""
        left = self._background_left_s(now)
        return left and self._background_size * left / (self.background_end - self._background_start)

    # --- what has run, of what was booked -------------------------------------------------------------------------------------

    def begin(self, now: float) -> None:
        """The measured span begins; background transfers that are due have ended."""
        self._flow.begin(now)

    def done(self, now: float) -> tuple[float, float]:
        """(bytes, busy seconds) by `now`: of two answers the difference is what ran between, once the span has begun."""
        size, number = self._flow.outside(now)
        busy_s = size / self.bandwidth + number * self.latency_s
        return self.bytes - size - self.background_left(now), self.busy_s - busy_s - self._background_left_s(now)
