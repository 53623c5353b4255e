"""Sessions that come by themselves: at the workload's times, and on after think times or at recorded times."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator

import numpy as np

from kvplan.sim.engine.agenda import Agenda
from kvplan.sim.engine.clock import ARRIVAL, Timer
from kvplan.sim.metrics.output import RunInput
from kvplan.sim.metrics.recorder import Recorder
from kvplan.traces import Workload
from kvplan.traces.context import contexts
from kvplan.traces.reuse import starts

_ROUNDING_S = 1e-6


def over_s(given: RunInput, token_s: float) -> float:
    """When the last of the turns that take no time comes (`RunInput.passing`), where each token of an answer takes so long: sessions come
    by themselves, and nothing holds them up."""
    workload, passing = given.workload, given.passing
    if passing == 0:
        return -math.inf
    answers = contexts(workload, given.deployment.window, given.config.deployment.truncation_ratio)[2]
    comes_s = starts(workload, token_s * answers)
    last = min(passing, workload.turns) - 1
    return float(np.partition(comes_s, last)[last]) - _ROUNDING_S


class Source(ABC):
    """Who brings the turns of a run. Whoever it is hears of every answer, and calls `arrive(turn)` for every turn, once."""

    @abstractmethod
    def next_arrival(self, turn: int, now: float) -> float:
        """When the session's next turn comes, as far as is known when `turn` ends `now`: at the earliest; infinity when there is none."""

    @abstractmethod
    def ended(self, turn: int, now: float) -> None:
        """A turn has its answer."""


class Arrivals(Source):
    """See the module. A session's turn that comes without think time joins the queue within the step that ended the one before."""

    def __init__(self, agenda: Agenda, workload: Workload, recorder: Recorder, arrive: Callable[[int], None]) -> None:
        self._agenda = agenda
        self._recorded = recorder.arrival_s
        self._arrive = arrive
        self._arrival_s = np.ascontiguousarray(workload.arrival_s).data
        self._gap_s = np.ascontiguousarray(workload.gap_s).data
        self._open_loop = workload.open_loop
        firsts = workload.first_turn[:-1]
        lasts = np.zeros(workload.turns, np.int8)
        lasts[workload.first_turn[1:] - 1] = 1
        self._is_last = lasts.tobytes()
        self._firsts: Iterator[int] = iter(firsts[np.argsort(workload.arrival_s[firsts], kind="stable")].data)
        self._schedule_next_session()

    def _schedule_next_session(self) -> None:
        turn = next(self._firsts, None)
        if turn is not None:
            self._agenda.set(Timer(self._session_arrives, turn), self._arrival_s[turn], ARRIVAL)

    def _session_arrives(self, timer: Timer) -> None:
        turn = timer.payload
        self._recorded[turn] = self._arrival_s[turn]
        self._schedule_next_session()
        self._arrive(turn)

    def _turn_arrives(self, timer: Timer) -> None:
        self._arrive(timer.payload)

    def next_arrival(self, turn: int, now: float) -> float:
        """When the session's next turn comes, `turn` having ended now: a think time later (closed loop), or at its recorded time (open
        loop); infinity when there is none."""
        if self._is_last[turn]:
            return math.inf
        return self._arrival_s[turn + 1] if self._open_loop else now + self._gap_s[turn + 1]

    def ended(self, turn: int, now: float) -> None:
        """The session goes on, if it does; of answers that take no time of the server when they would have ended."""
        arrival = self.next_arrival(turn, now)
        if arrival == math.inf:
            return
        turn += 1
        self._recorded[turn] = arrival
        if arrival > self._agenda.now_s:
            self._agenda.set(Timer(self._turn_arrives, turn), arrival, ARRIVAL)
        else:
            self._arrive(turn)
