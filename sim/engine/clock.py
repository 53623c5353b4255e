"""Simulated time: SimPy's environment with absolute times and stated priorities.

Events at equal times run in this order, and among one kind in the order in which they were scheduled:

1. `ARRIVAL`: a turn joins the queue, so that a step that ends at the same instant can admit it.
2. `STEP`: a GPU step, or a run of decode steps, ends.

Background moves of KV (prefetch, write-back) need no events: their ends are known from the links, and before every event the replica
ends those that are due, each at its own time and so before anything else of that instant.

SimPy's own `timeout(delay)` computes `now + delay`; scheduling at an absolute time keeps a finish time that was computed once
bit-for-bit, which is what makes the engine agree with the Lindley recursion to the last digit.
"""

from collections.abc import Callable
from heapq import heappush
from typing import Any

import simpy

ARRIVAL, STEP = 0, 1


class Timer(simpy.Event):
    """An event that calls one function at one time. It has happened as far as SimPy knows: only its time is to come."""

    _ok = True
    _value = None

    def __init__(self, callback: Callable[["Timer"], None], payload: Any) -> None:
        self.callbacks = [callback]
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
        timer = Timer(callback, payload)
        self.scheduled = number = self.scheduled + 1
        heappush(self._queue, (time, priority, number, timer))
        return timer
