"""What is to come in a run: the timers in SimPy's queue, and what ends before an event without being one.

SimPy's queue is a heap, and most of what is to come are turns whose users think: thousands, in the way of the few that are next. So the
queue has the timers of the second under way; those of each later one wait apart, in no order, until it begins (a calendar queue, Brown,
CACM 1988). All come in the same order, since each is compared with all that come in the same second.

It is apart from the clock, which inherits from SimPy's and so cannot be compiled.
"""

import math
from abc import ABC, abstractmethod
from heapq import heapify, heappop, heappush
from typing import Any


class Ending(ABC):
    """What ends at a time that is known, without an event."""

    @abstractmethod
    def settle(self, at_s: float) -> None:
        """That time has come."""


class Agenda:
    """One run's."""

    def __init__(self, timers: list[tuple[float, int, int, Any]]) -> None:
        self._timers = timers
        """A heap of (time, priority, number, timer): SimPy's queue, in which there is nothing else. Of times before `_open_s`."""
        self._open_s = 1.0
        self._later: dict[int, list[tuple[float, int, int, Any]]] = {}
        """Those of each second from then on …"""
        self._seconds: list[int] = []
        """… which are in this heap."""
        self.scheduled = 0
        """Events scheduled so far."""
        self.now_s = 0.0
        """Of the event under way."""
        self.due_s = math.inf
        """When the first of those ends that have no event."""
        self._endings: list[tuple[float, int, Ending]] = []
        self._listed = 0

    def set(self, timer: Any, time: float, priority: int) -> None:
        """The timer calls at `time`, which must not be in the past."""
        if time < self.now_s:
            raise ValueError(f"an event at {time} is scheduled in the past, at {self.now_s}")
        self.scheduled = number = self.scheduled + 1
        if time < self._open_s:
            heappush(self._timers, (time, priority, number, timer))
            return
        second = int(time)
        waiting = self._later.get(second)
        if waiting is None:
            self._later[second] = waiting = []
            heappush(self._seconds, second)
        waiting.append((time, priority, number, timer))

    def goes_on(self) -> bool:
        """The queue is empty: it has the timers of the next second that has any. False when there is none."""
        if not self._seconds:
            return False
        second = heappop(self._seconds)
        self._open_s = second + 1.0
        self._timers += self._later.pop(second)
        heapify(self._timers)
        return True

    def before(self, time: float, ending: Ending) -> None:
        """Has `ending` settled before the first event at `time` or later; at equal times in the order of these calls."""
        self._listed = number = self._listed + 1
        heappush(self._endings, (time, number, ending))
        self.due_s = self._endings[0][0]

    def settle(self, now: float) -> None:
        """Ends what is due before an event at `now`."""
        endings = self._endings
        while self.due_s <= now:
            time, _, ending = heappop(endings)
            self.due_s = endings[0][0] if endings else math.inf
            ending.settle(time)
