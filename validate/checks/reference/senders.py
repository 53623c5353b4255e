"""Who sends the turns: sessions that come by themselves, or the client of a load test."""

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

from kvplan.sim.config import Clients
from kvplan.validate.checks.reference.turns import Turn

if TYPE_CHECKING:
    from kvplan.validate.checks.reference.service import Service


class Arrivals:
    """Sessions that come by themselves."""

    def __init__(self, service: "Service", open_loop: bool) -> None:
        self.service, self.open_loop = service, open_loop
        self.firsts = sorted((turn for turn in service.turns if not turn.place), key=lambda turn: turn.arrival_s)
        self.coming = [self.firsts.pop(0)]  # known, but not yet here

    def due_s(self) -> float:
        return min((turn.arrival_s for turn in self.coming), default=math.inf)

    def happen(self, now: float) -> None:
        turn = min(self.coming, key=lambda turn: turn.arrival_s)
        self.coming.remove(turn)
        if not turn.place and self.firsts:
            self.coming.append(self.firsts.pop(0))
        self.service.arrive(turn, now)

    def ended(self, turn: Turn, now: float) -> None:
        following = turn.following
        if following is not None:
            following.arrival_s = following.arrival_s if self.open_loop else now + following.gap_s
            if following.arrival_s > now:
                self.coming.append(following)
            else:
                self.service.arrive(following, now)


class Client:
    """A closed population."""

    def __init__(self, service: "Service", settings: Clients, draw: Callable[[], float]) -> None:
        self.service, self.settings, self.draw = service, settings, draw
        firsts = [turn for turn in service.turns if not turn.place]
        active = len(firsts) if settings.active is None else settings.active
        self.unopened = firsts[active:]
        self.ready: list[Turn] = []
        self.held: list[Turn] = []  # until their round begins
        self.sent: list[Turn] = []
        self.events = [(0.0, firsts[:active])]  # when, and who is ready then; nobody: the pace allows another turn

    def due_s(self) -> float:
        return min((when for when, _ in self.events), default=math.inf)

    def happen(self, now: float) -> None:
        event = next(event for event in self.events if event[0] == now)
        self.events.remove(event)
        self.be_ready(event[1], now)
        self.send(now)

    def ended(self, turn: Turn, now: float) -> None:
        if turn.following is not None:
            self.held.append(turn.following)
        elif self.unopened:
            self.be_ready([self.unopened.pop(0)], now)
        if not self.settings.barrier or all(one.done_s <= now for one in self.service.turns if one.place == turn.place):
            if self.settings.pause_s and self.held:
                self.events.append((now + self.settings.pause_s, self.held))
            else:
                self.be_ready(self.held, now)
            self.held = []
        self.send(now)

    def be_ready(self, turns: list[Turn], now: float) -> None:
        for turn in turns:
            turn.ready_s = now
            self.ready.append(turn)

    def send(self, now: float) -> None:
        while self.ready and self.may_send():
            allowed_s = self.sent[-1].arrival_s + 1 / self.settings.rate_per_s if self.sent and self.settings.rate_per_s else now
            if allowed_s > now:
                if (allowed_s, []) not in self.events:
                    self.events.append((allowed_s, []))
                return
            turn = self.next()
            turn.arrival_s = now
            self.sent.append(turn)
            self.service.arrive(turn, now)

    def may_send(self) -> bool:
        unanswered = sum(math.isnan(turn.done_s) for turn in self.sent)
        return self.settings.outstanding is None or unanswered < self.settings.outstanding

    def next(self) -> Turn:
        if self.settings.order == "random":
            place = int(self.draw() * len(self.ready))
            self.ready[place], self.ready[-1] = self.ready[-1], self.ready[place]
            return self.ready.pop()
        return self.ready.pop(0)
