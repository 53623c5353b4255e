"""The jobs that wait: the scheduler's queue, and jobs aside, which others pass: held back until their KV has come from SSD, for as long as
the prefetch policy says; or deferred until KV that is under way has come.

A job aside keeps the position that it had, or is given back to a scheduler that follows the KV, which ranks it by where that is now. It
is held once, until its KV has come or can come no more, or its patience is over. It is deferred as often as it heads the queue and
something is under way that it would load. Where neither is done, the queue is all.
"""

import math
from collections.abc import Callable
from heapq import heappop, heappush

from kvplan.sim.engine.agenda import Agenda
from kvplan.sim.engine.clock import ARRIVAL, Timer
from kvplan.sim.metrics.recorder import Recorder
from kvplan.sim.policies.base import Prefetch, Scheduler
from kvplan.sim.store.protocol import Store

Count = Callable[[int], int]
"""Tokens in so many bytes."""


class WaitingRoom:
    """One replica's, in which no job is held."""

    wake: Callable[[float], None]
    """Called with the time when a held job has become ready without any other event."""

    def __init__(self, queue: Scheduler, store: Store, session_of: list[int]) -> None:
        self.queue = queue
        self.head_since = 0.0
        """Since when the head has been the head."""
        self.holds = False
        """Whether jobs may be held at all."""
        self.defers = False
        """Whether jobs may be deferred."""
        self.asked = -1
        """Then the turn that was the last to ask for its KV, and has neither started nor been deferred."""
        self.learns = queue.LEARNS
        """Whether the queue is to hear of answers."""
        self._store, self._session_of = store, session_of
        self.follows = queue.FOLLOWS_KV
        """Whether jobs are ranked by where their KV is."""
        self.watches = self.follows
        """Whether any move of KV may have another job head the queue."""
        self._turn_of: dict[int, int] = {}
        """Queued turn of each session, for schedulers that follow the KV."""

    def push(self, turn: int, now: float) -> float:
        """A turn starts to wait; returns its position."""
        if self.follows:
            self._turn_of[self._session_of[turn]] = turn
        position = self.queue.push(turn)
        if self.queue.head() == turn:
            self.head_since = now
        return position

    def head(self, now: float) -> int | None:
        """The turn to admit next; None when there is none, or none that is ready."""
        return self.queue.head()

    def take(self, now: float) -> float:
        """The head is admitted; returns since when it was the head."""
        self._pop()
        since, self.head_since = self.head_since, now
        return since

    def defer(self, until_s: float, now: float) -> None:
        """Others pass the head until then, where jobs may be deferred."""
        raise NotImplementedError

    def _pop(self) -> int:
        """The head waits no more in the queue; returns its turn."""
        turn = self.queue.pop()
        if self.follows:
            del self._turn_of[self._session_of[turn]]
        return turn

    def kv_moved(self, session: int, now: float) -> bool:
        """A waiting session's KV has moved or gone; returns whether its job was held and is ready now, or another heads the queue."""
        turn = self._turn_of.get(session)
        if turn is not None:
            before = self.queue.head()
            position = self.queue.update(turn)
            self._store.expect(session, position)
            if self.queue.head() != before:
                self.head_since = now
                return True
        return False

    def release(self, session: int) -> bool:
        """A held session's job is ready. Whether one was held."""
        return False

    def release_first(self) -> bool:
        """Nothing can come any more: the soonest held job is ready as it is. Whether one was held."""
        return False

    def held(self) -> list[int]:
        """Sessions whose jobs are held."""
        return []

    @property
    def follows_any(self) -> bool:
        """Whether any job waits whose rank may change."""
        return bool(self._turn_of)

    @property
    def holds_jobs(self) -> bool:
        """Whether any job is held now."""
        return False

    def __len__(self) -> int:
        return len(self.queue)


class AsideRoom(WaitingRoom):
    """The same, with jobs aside."""

    def __init__(self, queue: Scheduler, store: Store, session_of: list[int]) -> None:
        super().__init__(queue, store, session_of)
        self._ready: list[tuple[float, int]] = []
        """A heap of (position, turn) that were aside."""

    def push(self, turn: int, now: float) -> float:
        since, first = self.head_since, self._first()
        position = super().push(turn, now)
        self.head_since = since if self._first() == first else now
        return position

    def _first(self) -> int | None:
        """The first of the queue and of those that were aside."""
        return self._ready[0][1] if self._was_aside() else self.queue.head()

    def _was_aside(self) -> bool:
        """Whether the first of all was aside."""
        return bool(self._ready) and self._ready[0][0] <= self._position()

    def _position(self) -> float:
        """Of the queue's head; infinite when there is none."""
        position = self.queue.position_at(0)
        return math.inf if position is None else position

    def _pop(self) -> int:
        return heappop(self._ready)[1] if self._was_aside() else super()._pop()

    def _comes_back(self, position: float, turn: int, now: float) -> None:
        """A job is aside no more."""
        if self.follows:
            self._store.expect(self._session_of[turn], self.push(turn, now))
            return
        heappush(self._ready, (position, turn))
        if self._first() == turn:
            self.head_since = now

    def __len__(self) -> int:
        return len(self.queue) + len(self._ready)


class DeferringRoom(AsideRoom):
    """With jobs that are deferred."""

    def __init__(self, queue: Scheduler, store: Store, session_of: list[int]) -> None:
        super().__init__(queue, store, session_of)
        self.defers = True
        self._deferred: list[tuple[float, float, int]] = []
        """A heap of (until when, position, turn)."""

    def push(self, turn: int, now: float) -> float:
        self.head(now)
        return super().push(turn, now)

    def head(self, now: float) -> int | None:
        deferred = self._deferred
        while deferred and deferred[0][0] <= now:
            until_s, position, turn = heappop(deferred)
            self._comes_back(position, turn, until_s)
        return self._first()

    def defer(self, until_s: float, now: float) -> None:
        position = self._ready[0][0] if self._was_aside() else self._position()
        heappush(self._deferred, (until_s, position, self._pop()))
        self.head_since = now

    def __len__(self) -> int:
        return super().__len__() + len(self._deferred)


class HoldingRoom(AsideRoom):
    """With jobs that are held back."""

    def __init__(
        self,
        agenda: Agenda,
        queue: Scheduler,
        store: Store,
        prefetch: Prefetch,
        recorder: Recorder,
        session_of: list[int],
        tokens_in: Count,
    ) -> None:
        super().__init__(queue, store, session_of)
        self.holds = self.watches = True
        self._agenda, self._prefetch = agenda, prefetch
        self._recorder, self._arrival_s, self._tokens_in = recorder, recorder.arrival_s, tokens_in
        self._held: dict[int, tuple[float, int]] = {}
        """Session -> (position, turn)."""
        self._was_held: set[int] = set()
        """Turns that have been held, and still wait."""

    def head(self, now: float) -> int | None:
        while not self._was_aside():
            turn = self.queue.head()
            if turn is None or not self._hold(turn, now):
                return turn
        return self._ready[0][1]

    def _hold(self, turn: int, now: float) -> bool:
        """Whether the queue's head goes aside to wait for its KV."""
        if turn in self._was_held:
            return False
        session = self._session_of[turn]
        coming = self._store.bytes_to_come(session)
        if not coming:
            return False
        until = self._arrival_s[turn] + self._prefetch.patience_s(self._tokens_in(coming))
        if until <= now:
            return False
        self._was_held.add(turn)
        self._recorder.deferred(turn)
        self._held[session] = self._position(), turn
        WaitingRoom._pop(self)
        self.head_since = now
        if until < math.inf:
            self._agenda.set(Timer(self._patience_ends, turn), until, ARRIVAL)
        return True

    def _pop(self) -> int:
        turn = super()._pop()
        self._was_held.discard(turn)
        return turn

    def kv_moved(self, session: int, now: float) -> bool:
        if session in self._held:
            return not self._store.bytes_to_come(session) and self.release(session)
        return super().kv_moved(session, now)

    def release(self, session: int) -> bool:
        held = self._held.pop(session, None)
        if held is None:
            return False
        self._comes_back(*held, self._agenda.now_s)
        return True

    def release_first(self) -> bool:
        return bool(self._held) and self.release(min(self._held, key=self._held.__getitem__))

    def _patience_ends(self, timer: Timer) -> None:
        session = self._session_of[timer.payload]
        _, turn = self._held.get(session, (0.0, None))
        if turn == timer.payload:
            self.release(session)
            self.wake(self._agenda.now_s)

    def held(self) -> list[int]:
        return list(self._held)

    @property
    def holds_jobs(self) -> bool:
        return bool(self._held)

    def __len__(self) -> int:
        return super().__len__() + len(self._held)
