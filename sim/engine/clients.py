"""A load test's client: a closed population that sends turns as answers come, instead of sessions that come by themselves.

A turn is *ready* when its session can go on: at the start, a pause after the answer before, or when the round before is over (`barrier`).
It is *sent* when the order says so, fewer than `outstanding` turns are without an answer, and the pace allows it; the server knows of it
from then on. There is one client for all replicas. An answer first makes turns ready, and then what may be sent is, all within the step
that ended it; what becomes ready later, and the pace, are events of their own, arrivals as far as equal times go.

Left out: clients that give up, retry, or have a pool of sessions each; a pace or pauses that vary; the way to the server and back.
"""

import math
from collections import deque
from collections.abc import Callable, Iterable

import numpy as np

from kvplan.sim.config import Clients
from kvplan.sim.engine.agenda import Agenda
from kvplan.sim.engine.arrivals import Source
from kvplan.sim.engine.clock import ARRIVAL, Timer
from kvplan.sim.metrics.recorder import Recorder
from kvplan.traces import Workload


class Client(Source):
    """See the module. `arrive(turn)` hands a turn to its replica; `draw()` gives the next number of its own stream, from 0 to below 1."""

    _earliest_s = 0.0
    """When the pace allows the next turn."""
    _waits_for_pace = False

    def __init__(
        self,
        agenda: Agenda,
        settings: Clients,
        workload: Workload,
        session_of: list[int],
        recorder: Recorder,
        arrive: Callable[[int], None],
        draw: Callable[[], float],
    ) -> None:
        self._agenda = agenda
        self._arrive = arrive
        self._sent_s = recorder.arrival_s
        self._ready_s = recorder.also("ready_s")
        self._session = session_of
        self._pause_s = settings.pause_s
        self._interval_s = 0.0 if settings.rate_per_s is None else 1 / settings.rate_per_s
        self._free = math.inf if settings.outstanding is None else settings.outstanding
        self._ready: _Fifo | _Random = _Fifo() if settings.order == "fifo" else _Random(draw)
        self._rounds = _Rounds(workload) if settings.barrier else None
        firsts = workload.first_turn[:-1].tolist()
        active = len(firsts) if settings.active is None else settings.active
        self._unopened = iter(firsts[active:])
        agenda.set(Timer(self._rested, firsts[:active]), 0.0, ARRIVAL)

    def next_arrival(self, turn: int, now: float) -> float:
        """When the session's next turn is ready, which is the earliest that it comes; infinity when there is none."""
        return now + self._pause_s if self._goes_on(turn) else math.inf

    def ended(self, turn: int, now: float) -> None:
        """A turn has its answer: another one may be sent."""
        self._free += 1
        following = [turn + 1] if self._goes_on(turn) else []
        if not following:
            self._open_next(now)
        self._rest(following if self._rounds is None else self._rounds.ended(following), now)
        self._send(now)

    def _open_next(self, now: float) -> None:
        """A session has ended, and the next one may begin."""
        first = next(self._unopened, None)
        if first is not None:
            self._make_ready([first], now)

    def _rest(self, turns: list[int], now: float) -> None:
        """Turns that are ready after the pause."""
        if turns and self._pause_s:
            self._agenda.set(Timer(self._rested, turns), now + self._pause_s, ARRIVAL)
        else:
            self._make_ready(turns, now)

    def _goes_on(self, turn: int) -> bool:
        return turn + 1 < len(self._session) and self._session[turn + 1] == self._session[turn]

    def _rested(self, timer: Timer) -> None:
        now = self._agenda.now_s
        self._make_ready(timer.payload, now)
        self._send(now)

    def _make_ready(self, turns: Iterable[int], now: float) -> None:
        for turn in turns:
            self._ready_s[turn] = now
            self._ready.push(turn)

    def _send(self, now: float) -> None:
        """Sends what may be sent."""
        while self._ready and self._free > 0:
            if now < self._earliest_s:
                self._await_pace()
                return
            self._free -= 1
            self._earliest_s = now + self._interval_s
            turn = self._ready.pop()
            self._sent_s[turn] = now
            self._arrive(turn)

    def _await_pace(self) -> None:
        if not self._waits_for_pace:
            self._waits_for_pace = True
            self._agenda.set(Timer(self._pace_allows), self._earliest_s, ARRIVAL)

    def _pace_allows(self, timer: Timer) -> None:
        self._waits_for_pace = False
        self._send(self._agenda.now_s)


class _Fifo:
    """Ready turns; the one that has been ready for longest goes first."""

    def __init__(self) -> None:
        self._turns: deque[int] = deque()
        self.push, self.pop = self._turns.append, self._turns.popleft

    def __len__(self) -> int:
        return len(self._turns)


class _Random:
    """Ready turns in a row; any is as likely to go as any other, and the last one takes its place."""

    def __init__(self, draw: Callable[[], float]) -> None:
        self._turns: list[int] = []
        self._draw = draw
        self.push = self._turns.append

    def pop(self) -> int:
        turns = self._turns
        place = int(self._draw() * len(turns))
        turns[place], turns[-1] = turns[-1], turns[place]
        return turns.pop()

    def __len__(self) -> int:
        return len(self._turns)


class _Rounds:
    """Turns that are held until all turns of their round have ended."""

    def __init__(self, workload: Workload) -> None:
        self._left = iter(np.bincount(workload.turn).tolist())
        self._without_answer = next(self._left)
        self._held: list[int] = []

    def ended(self, following: list[int]) -> list[int]:
        """A turn has ended that `following` follows, or nothing; returns what is free to go on: nothing, or the next round."""
        self._held += following
        self._without_answer -= 1
        if self._without_answer:
            return []
        self._without_answer = next(self._left, 0)
        freed, self._held = self._held, []
        return freed
