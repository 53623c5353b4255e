"""What time it is for what is measured and served, and waiting for what comes next.

`WallClock` is real time. `SteadyClock` is for machines that others use too. It counts the processor time of the thread that computes, as
it would be at the machine's usual speed, and the real time of its waits for transfers; waits with nothing under way take no time at all,
but are counted. What it leaves out is the time in which other programs had the core, or slowed it down.
"""

import time
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import TypeVar

from kvplan.validate.calibration.speed import Speed

Answer = TypeVar("Answer")
_BETWEEN_PROBES_S = 0.008
"""Processor seconds at least; a probe takes about one millisecond."""


class Stuck(RuntimeError):
    """Nothing is under way, nothing will come, and work is left: an error of the server."""


class WallClock:
    """Seconds since it was made."""

    NAME = "wall"
    pace = 1.0
    """Its seconds per second of real time, waits with nothing under way left out."""

    def __init__(self) -> None:
        self._start = time.perf_counter()

    @property
    def now(self) -> float:
        """Seconds."""
        return time.perf_counter() - self._start

    def tick(self) -> None:
        """Computing goes on: called every few milliseconds."""

    def blocked(self, work: Callable[[], Answer]) -> Answer:
        """The answer of `work`, which waits for another thread."""
        return work()

    def stopped(self, work: Callable[[], Answer]) -> Answer:
        """The answer of `work`, which takes no time."""
        before = time.perf_counter()
        answer = work()
        self._start += time.perf_counter() - before
        return answer

    def until(self, end: float, posted: SimpleQueue, moving: bool) -> object | None:
        """Waits for the next thing that is posted, until `end` at most. `moving`: whether anything is under way that will post."""
        _refuse_endless(end, moving)
        left = end - self.now
        try:
            return posted.get(timeout=None if left == float("inf") else max(0.0, left))
        except Empty:
            return None


class SteadyClock:
    """Seconds that the thread which made it has computed, at the usual speed of `speed`, or waited."""

    NAME = "steady"

    def __init__(self, speed: Speed) -> None:
        self._speed = speed
        speed.look()
        self._passed = self._skipped = 0.0
        self._started, self._since = time.perf_counter(), time.thread_time()

    @property
    def now(self) -> float:
        """Seconds."""
        return self._passed + (time.thread_time() - self._since) / self._speed.slowness

    @property
    def pace(self) -> float:
        """As WallClock's: so many of its seconds fit into one that other threads, which know real time only, take for something."""
        return (self.now - self._skipped) / (time.perf_counter() - self._started)

    def tick(self) -> None:
        """Computing goes on: looks now and then how fast."""
        if time.thread_time() - self._since >= _BETWEEN_PROBES_S:
            self.stopped(self._speed.probe)

    def blocked(self, work: Callable[[], Answer]) -> Answer:
        """The answer of `work`, which waits for another thread; its real time counts."""
        started, computed = time.perf_counter(), time.thread_time()
        try:
            return work()
        finally:
            self._passed += max(0.0, time.perf_counter() - started - (time.thread_time() - computed))

    def stopped(self, work: Callable[[], Answer]) -> Answer:
        """The answer of `work`, which takes no time."""
        self._passed = self.now
        try:
            return work()
        finally:
            self._since = time.thread_time()

    def until(self, end: float, posted: SimpleQueue, moving: bool) -> object | None:
        """As WallClock's; when nothing is under way, `end` is now."""
        _refuse_endless(end, moving)
        left = max(0.0, end - self.now)
        if not moving:
            self._passed += left
            self._skipped += left
            return None
        try:
            return self.blocked(lambda: posted.get(timeout=None if left == float("inf") else left))
        except Empty:
            return None


Clock = WallClock | SteadyClock
CLOCKS = ("wall", "steady")


def maker(name: str, usual_s: float | None = None) -> Callable[[], Clock]:
    """What makes clocks of that name of CLOCKS. `usual_s` is that of the `Speed` of steady ones; wall clocks need none."""
    if name == "wall":
        return WallClock
    speed = Speed(usual_s)
    return lambda: SteadyClock(speed)


def _refuse_endless(end: float, moving: bool) -> None:
    if end == float("inf") and not moving:
        raise Stuck("the server waits for something that will never come")
