"""Chunks that come up to the first tier below HBM ahead of the jobs that wait for them, as HiCache fetches from its storage.

When a turn comes, what tiers below the first have of its prompt is looked up, and wanted where it is `LEAST_TOKENS` or more. What is wanted
comes in order of arrival, one turn's after the other's, a batch of chunks at a time. A job starts with what has come of it, when its
prefetch policy lets it, and computes the rest: a batch under way then comes for others, and what is behind it does not.

Left out: that what is wanted takes at most 0.8 of the host memory beyond HBM's; that host memory is taken for all of it at once.
Source: SGLang 0.5, srt/mem_cache/hiradix_cache.py, srt/managers/cache_controller.py.
"""

import math
from dataclasses import dataclass
from typing import Final

from kvplan.sim.engine.agenda import Agenda, Ending
from kvplan.sim.engine.keeping import Arrived
from kvplan.sim.engine.offloading import Offloading
from kvplan.sim.policies.base import Prefetch
from kvplan.sim.policies.base import Queue as Waiting
from kvplan.sim.store.blocks.base import Context

LEAST_TOKENS: Final = 256
"""`prefetch_threshold`."""
BATCH: Final = 128
"""Chunks, which are pages there: `storage_batch_size`."""


@dataclass
class _Wanted:
    path: Context
    prompt: int
    """Tokens, with the history."""
    tokens: int
    """Of these, that were to come when the turn did."""


class Fetches(Ending):
    """One replica's."""

    arrived: Arrived
    """Called with the session when all has come of it that can."""

    def __init__(self, below: Offloading, policy: Prefetch, queue: Waiting, agenda: Agenda) -> None:
        self._below, self._policy, self._queue, self._agenda = below, policy, queue, agenda
        self._wanted: dict[int, _Wanted] = {}
        """By session."""
        self._stops: dict[int, list[int]] = {}
        """What tiers had when a turn came, of those that wait and wanted something."""
        self.ends_s = math.inf
        """When the batch under way has come; infinite when there is none."""

    def want(self, session: int, path: Context, prompt: int, hit: int, now: float) -> None:
        """A turn has come, of whose prompt the pool has `hit` tokens."""
        tokens, stops = self._below.to_come(path, prompt, hit, now)
        if tokens >= LEAST_TOKENS:
            self._wanted[session], self._stops[session] = _Wanted(path, prompt, tokens), stops
            self._policy.want(session, None)

    def to_come(self, session: int) -> int:
        """Tokens that a waiting turn's fetch is to bring, or has begun to; 0 when it has ended."""
        wanted = self._wanted.get(session)
        return 0 if wanted is None else wanted.tokens

    def starts(self, session: int) -> list[int] | None:
        """A turn's job starts: what comes of it from now on is for others. Returns what each tier had when it came, where it wanted
        something: see `kvplan.sim.store.blocks.chunks.reached`."""
        self._end(session)
        return self._stops.pop(session, None)

    def _end(self, session: int) -> None:
        """Nothing more comes for a turn."""
        if self._wanted.pop(session, None) is not None:
            self._policy.drop(session)

    def next(self, now: float) -> bool:
        """The next batch begins to come, where none is under way; whether one is now."""
        while self.ends_s == math.inf and (session := self._policy.next(self._queue, 0.0)) is not None:
            wanted = self._wanted[session]
            end = self._below.bring(wanted.path, wanted.prompt, BATCH, now)
            if end is None:
                self._end(session)
                self.arrived(session)
            else:
                self.ends_s = end
                self._agenda.before(end, self)
        return self.ends_s < math.inf

    def settle(self, at_s: float) -> None:
        self.ends_s = math.inf
        self._below.settle(at_s)
        self.next(at_s)
