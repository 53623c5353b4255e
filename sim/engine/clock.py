"""Simulated time: SimPy's environment with absolute times and stated priorities.

Events at equal times run in this order, and among one kind in the order in which they were scheduled:

1. `ARRIVAL`: a turn joins the queue, so that a step that ends at the same instant can admit it.
2. `STEP`: a GPU step, or a run of decode steps, ends.

Background moves of KV (prefetch, write-back) need no events: their ends are known from the links. Before every event the clock has those
ended that are due (`Agenda.before`), on all replicas, each at its own time and so before anything else of that instant.

SimPy's own `timeout(delay)` computes `now + delay`; scheduling at an absolute time keeps a finish time that was computed once
bit-for-bit, which is what makes the engine agree with the Lindley recursion to the last digit.
"""

from collections.abc import Callable
from heapq import heappop
from typing import Any, cast

import simpy
from simpy.events import EventPriority

from kvplan.sim.engine.agenda import Agenda

ARRIVAL, STEP = EventPriority(0), EventPriority(1)


class Timer(simpy.Event):
    """An event that calls one function at one time. It has happened as far as SimPy knows: only its time is to come."""

    _ok = True
    _value = None

    def __init__(self, callback: Callable[["Timer"], None], payload: Any = None) -> None:
        self.callback = callback
        self.payload = payload
        """What the callback needs to know."""


class Clock(simpy.Environment):
    """The environment of one run; `now` is in seconds."""

    def __init__(self) -> None:
        super().__init__()
        self._timers: list[tuple[float, int, int, Timer]] = cast(Any, self._queue)
        self.agenda = Agenda(self._timers)

    @property
    def now(self) -> float:
        """Of the event under way."""
        return self.agenda.now_s

    def run(self, until: Any = None) -> None:
        """Every event to the last, each after all that is due before it; `until`, which SimPy has, is None."""
        if until is not None:
            raise NotImplementedError("a run goes on to its last event")
        timers, agenda = self._timers, self.agenda
        while timers or agenda.goes_on():
            now, _, _, timer = heappop(timers)
            agenda.now_s = now
            if agenda.due_s <= now:
                agenda.settle(now)
            timer.callback(timer)
