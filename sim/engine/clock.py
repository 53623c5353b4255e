"""Simulated time: SimPy's environment with absolute times and stated priorities.

Events at equal times run in this order, and among one kind in the order in which they were scheduled:

1. `TRANSFER`: KV has arrived somewhere, so that who looks at the same instant finds it.
2. `ARRIVAL`: a turn joins the queue, so that a step that ends at the same instant can admit it.
3. `STEP`: a GPU step, or a run of decode steps, ends.

SimPy's own `timeout(delay)` computes `now + delay`; scheduling at an absolute time keeps a finish time that was computed once
bit-for-bit, which is what makes the engine agree with the Lindley recursion to the last digit.
"""

from collections.abc import Callable
from heapq import heappush
from typing import Any

import simpy

TRANSFER, ARRIVAL, STEP = 0, 1, 2


class Timer(simpy.Event):
    """An event that calls one function at one time."""

    def __init__(self, clock: "Clock", callback: Callable[["Timer"], None], payload: Any) -> None:
        self.env = clock
        self.callbacks = [callback]
        self._ok = True
        self._value = payload
        self.payload = payload
        """What the callback needs to know."""


class Clock(simpy.Environment):
    """The environment of one run; `now` is in seconds."""

    scheduled = 0
    """Events scheduled so far."""

    def at(self, time: float, priority: int, callback: Callable[[Timer], None], payload: Any = None) -> Timer:
        """Calls `callback(timer)` at `time`, which must not be in the past."""
        if time < self._now:
            raise ValueError(f"an event at {time} is scheduled in the past, at {self._now}")
        timer = Timer(self, callback, payload)
        self.scheduled += 1
        heappush(self._queue, (time, priority, self.scheduled, timer))
        return timer
