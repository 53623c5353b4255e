"""Bytes on their way: what has been booked is not yet done, and some of it was done before the measured span began."""

import math

_MOST = 64
"""Transfers that are added before those are dropped that have ended."""


class Flow:
    """Transfers whose times are known when they are booked, each at an even pace."""

    def __init__(self) -> None:
        self._ahead: list[tuple[float, float, int]] = []
        self._most = _MOST
        self._begin = -math.inf
        self._earlier = 0.0, 0.0

    def add(self, ready: float, start: float, end: float, size: int) -> None:
        """A transfer from `start` to `end`, either of which may be past. Nobody will ask about a time before `ready`:
        what has ended by then is not kept."""
        if end > ready:
            ahead = self._ahead
            ahead.append((start, end, size))
            if len(ahead) > self._most:
                self._ahead = ahead = [each for each in ahead if each[1] > ready]
                self._most = len(ahead) + _MOST
        if start < self._begin:
            share = min(1.0, (self._begin - start) / (end - start))
            self._earlier = self._earlier[0] + share * size, self._earlier[1] + share

    def begin(self, now: float) -> None:
        """The measured span begins."""
        self._begin = now

    def outside(self, now: float) -> tuple[float, float]:
        """(bytes, transfers) of all that was booked that run after `now`, or ran before the span and were booked within it."""
        size, number = self._earlier
        for start, end, each in self._ahead:
            if end > now:
                share = 1.0 if start >= now else (end - now) / (end - start)
                size += share * each
                number += share
        return size, number

    def overlap(self, start: float, end: float) -> float:
        """Seconds between two times in which transfers run; none overlap each other."""
        return sum(max(0.0, min(end, until) - max(start, since)) for since, until, _ in self._ahead)
