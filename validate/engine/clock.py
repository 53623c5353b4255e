"""What time it is on the server, and waiting for what comes next.

`WallClock` is real time. `ProcessorClock` is for machines that others use too: it counts the processor time of the thread that
computes, and the real time of its waits for transfers; waits with nothing under way take no time at all, but are counted. What it
leaves out is the time in which other programs had the core.
"""

import time
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import TypeVar

Answer = TypeVar("Answer")


class Stuck(RuntimeError):
    """Nothing is under way, nothing will come, and work is left: an error of the server."""


class WallClock:
    """Seconds since it was made."""

    NAME = "wall"

    def __init__(self) -> None:
        self._start = time.perf_counter()

    @property
    def now(self) -> float:
        """Seconds."""
        return time.perf_counter() - self._start

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


class ProcessorClock:
    """Seconds that the thread which made it has computed or waited."""

    NAME = "processor"

    def __init__(self) -> None:
        self._start = time.thread_time()
        self._waited = 0.0

    @property
    def now(self) -> float:
        """Seconds."""
        return time.thread_time() - self._start + self._waited

    def blocked(self, work: Callable[[], Answer]) -> Answer:
        """The answer of `work`, which waits for another thread; its real time counts."""
        started, computed = time.perf_counter(), time.thread_time()
        try:
            return work()
        finally:
            self._waited += max(0.0, time.perf_counter() - started - (time.thread_time() - computed))

    def stopped(self, work: Callable[[], Answer]) -> Answer:
        """The answer of `work`, which takes no time."""
        before = time.thread_time()
        answer = work()
        self._start += time.thread_time() - before
        return answer

    def until(self, end: float, posted: SimpleQueue, moving: bool) -> object | None:
        """As WallClock's; when nothing is under way, `end` is now."""
        _refuse_endless(end, moving)
        left = max(0.0, end - self.now)
        if not moving:
            self._waited += left
            return None
        try:
            return self.blocked(lambda: posted.get(timeout=None if left == float("inf") else left))
        except Empty:
            return None


CLOCKS = {clock.NAME: clock for clock in (WallClock, ProcessorClock)}
"""Name -> class."""


def _refuse_endless(end: float, moving: bool) -> None:
    if end == float("inf") and not moving:
        raise Stuck("the server waits for something that will never come")
