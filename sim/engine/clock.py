"""Simulated time: SimPy's environment with absolute times and stated priorities.

Events at equal times run in this order, and among one kind in the order in which they were scheduled:

1. `ARRIVAL`: a turn joins the queue, so that a step that ends at the same instant can admit it.
2. `STEP`: a GPU step, or a run of decode steps, ends.

Background moves of KV (prefetch, write-back) need no events: their ends are known from the links. Before every event the clock has those
ended that are due (`before`), on all replicas, each at its own time and so before anything else of that instant.

SimPy's own `timeout(delay)` computes `now + delay`; scheduling at an absolute time keeps a finish time that was computed once
bit-for-bit, which is what makes the engine agree with the Lindley recursion to the last digit.
"""

import math
from collections.abc import Callable
from heapq import heappop, heappush
from typing import Any, cast

import simpy
from simpy.core import EmptySchedule
from simpy.events import EventPriority

ARRIVAL, STEP = EventPriority(0), EventPriority(1)


class Timer(simpy.Event):
    """An event that calls one function at one time. It has happened as far as SimPy knows: only its time is to come."""

    _ok = True
    _value = None

    def __init__(self, callback: Callable[["Timer"], None], payload: Any) -> None:
        self.callback = callback
        self.payload = payload
        """What the callback needs to know."""


class Clock(simpy.Environment):
    """The environment of one run; `now` is in seconds."""

    def __init__(self) -> None:
        super().__init__()
        self.scheduled = 0
        """Events scheduled so far."""
        self._timers: list[tuple[float, int, int, Timer]] = cast(Any, self._queue)
        """SimPy's queue, in which there is nothing else."""
        self._due: list[tuple[float, int, Callable[[float], None]]] = []
        self._due_s = math.inf
        self._calls = 0

    def at(self, time: float, priority: EventPriority, callback: Callable[[Timer], None], payload: Any = None) -> Timer:
        """Calls `callback(timer)` at `time`, which must not be in the past."""
        timer = Timer(callback, payload)
        self.set(timer, time, priority)
        return timer

    def set(self, timer: Timer, time: float, priority: EventPriority) -> None:
        """The same for a timer that has called, and is to call again."""
        if time < self._now:
            raise ValueError(f"an event at {time} is scheduled in the past, at {self._now}")
        self.scheduled = number = self.scheduled + 1
        heappush(self._timers, (time, priority, number, timer))

    def before(self, time: float, settle: Callable[[float], None]) -> None:
        """Calls `settle(time)` before the first event at `time` or later; at equal times in the order of these calls."""
        self._calls = number = self._calls + 1
        heappush(self._due, (time, number, settle))
        self._due_s = self._due[0][0]

    def step(self) -> None:
        """The next event, after all that is due before it. Raises EmptySchedule."""
        if not self._timers:
            raise EmptySchedule
        now, _, _, timer = heappop(self._timers)
        self._now = now
        if self._due_s <= now:
            self._end_what_is_due(now)
        timer.callback(timer)

    def run(self, until: Any = None) -> Any:
        """Every event to the last, as `step` has them, without a call for each. `until`: as SimPy has it."""
        if until is not None:
            return super().run(until)
        timers = self._timers
        while timers:
            now, _, _, timer = heappop(timers)
            self._now = now
            if self._due_s <= now:
                self._end_what_is_due(now)
            timer.callback(timer)
        return None

    def _end_what_is_due(self, now: float) -> None:
        while self._due_s <= now:
            time, _, settle = heappop(self._due)
            self._due_s = self._due[0][0] if self._due else math.inf
            settle(time)
