"""What a replica asks of whatever keeps its KV: whole sessions (`kvplan.sim.engine.kv`) or blocks (`kvplan.sim.engine.blockkv`)."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Protocol

from kvplan.sim.deployment import Deployment
from kvplan.sim.engine.batch import Job
from kvplan.sim.engine.growth import Growth, growth_of
from kvplan.sim.engine.paths import Paths
from kvplan.sim.store.protocol import Store
from kvplan.sim.tiers import TierSpec

Arrived = Callable[[int], object]
"""Hears the session when a fetch has ended."""
Moved = Callable[[int, float], None]
"""Hears of a session that waits and whose KV has another home, or none, and since when."""


class Held(Protocol):
    """What a tier holds over time. Bytes of KV, stored once."""

    spec: TierSpec
    name: str
    capacity: int
    written: int
    read: int
    """Of what is booked into it, and out of it."""

    @property
    def used(self) -> int:
        """Held now."""

    @property
    def peak(self) -> int:
        """The most since the measured span began."""

    def begin(self) -> None:
        """The measured span begins."""

    def byte_seconds(self, now: float) -> float:
        """Integral of `used` over time."""


class Stalls:
    """When the GPUs must wait for KV that leaves HBM: never."""

    def __init__(self, write_buffer: int = 0) -> None:
        self.stall_until = 0.0
        """When the GPU may go on."""
        self.write_buffer = write_buffer
        """HBM bytes that what is to be saved may take."""

    def make_room(self, left: int) -> None:
        """The GPU may not go on before so many bytes of HBM are enough for the KV of ended jobs that waits to be saved."""


class Keeping(ABC):
    """One replica's."""

    heeds: bool = False
    """Whether it is to hear of every turn that comes, and not only of those that go on from less than their history."""

    def __init__(self, store: Store, paths: Paths, saver: Stalls, hbm_bytes: int, growth: Growth) -> None:
        self.store, self.paths, self.saver = store, paths, saver
        self.tiers: Sequence[Held] = store.tiers
        """For metrics and observers."""
        self.hbm_bytes = hbm_bytes
        """For the KV of running jobs."""
        self.growth = growth
        """How their HBM grows."""
        self.elsewhere: list[Store] = []
        """Stores of other replicas that may hold KV of the sessions that come here: of all where sessions do not stay."""
        self.changed = False
        """Whether a job has started or ended since `settle`, or a turn come."""
        self.follows = False
        """Whether it is to hear of jobs between their start and their end: `grew` and `prefilled`."""

    @property
    def lessens(self) -> int:
        """A job that waits may come to need less HBM when answers have begun another block of so many tokens; 0: it does not."""
        return 0

    def less(self, job: Job) -> int:
        """Bytes that it is at most."""
        return 0

    @property
    def foresees(self) -> bool:
        """Whether who leaves a tier goes by when sessions come back."""
        return any("future" in tier.eviction.NEEDS for tier in self.store.tiers)

    def listen(self, arrived: Arrived, moved: Moved | None) -> None:
        """Who is told of sessions whose KV moves ahead of their jobs."""

    def moves_end_s(self, held_only: bool) -> float:
        """When the next such move ends, of those that somebody who is held may wait for or of all; infinite when there is none."""
        return math.inf

    def come(self, session: int, kept: int | None, now: float) -> None:
        """A turn has come, which can use the first `kept` tokens of its session's history; None: all."""

    @abstractmethod
    def start(self, job: Job, cut: int, head_since: float, free: int, now: float) -> int:
        """A job starts, without the oldest `cut` tokens of its session's history: finds what is kept, and loads it. It has headed the
        queue since `head_since`, with `free` bytes of HBM. Returns the tier that it loads from, −1 for none."""

    def comes_s(self, job: Job, now: float) -> float:
        """A job that may be deferred asks for what it would load; returns when all of it has come that is under way."""
        return now

    def loaded(self, job: Job, now: float) -> int:
        """What a job loads asynchronously has come. Returns the bytes of its HBM that it gives back, since others have the same."""
        return 0

    def grew(self, hbm_used: int, now: float, began: float, steps: int) -> None:
        """Jobs have so many bytes of HBM now: answers have grown, step by step in as many as began then; in none, one has entered."""

    def gives_back(self, job: Job, tokens: int, held: int, now: float) -> int:
        """A job gives way that has so many tokens, in `held` bytes of HBM. Returns those of them that nobody else has."""
        return held

    @abstractmethod
    def again(self, job: Job, free: int, now: float) -> None:
        """A job that had to give way starts again, with `free` bytes of HBM."""

    def prefilled(self, job: Job, now: float) -> int:
        """Its first token is out, or the next one of a job that gave way; for those that follow. Returns the bytes of its HBM that it
        gives back, since others have the same."""
        return 0

    @abstractmethod
    def save(self, job: Job, since: float, now: float) -> int:
        """A job that started at `since` has ended: what is kept of its KV is saved, and `hbm_bytes` of the job are what it gives back.
        Returns the tier that takes it, −1 for none."""

    def passes(self, job: Job, now: float, again: bool) -> None:
        """A job takes no time: what is kept of its KV is there at once. `again`: its session's next one passes, too."""
        raise NotImplementedError

    def settle(self, now: float) -> None:
        """Moves that are due start."""

    def fetch_next(self, now: float) -> bool:
        """Starts a fetch, where none is under way and one is due; whether one is now."""
        return False

    # --- what the metrics read

    @property
    def skipped_saves(self) -> int:
        """Saves for which no tier had room."""
        return self.store.skipped_saves

    def traffic(self, now: float) -> list[tuple[float, float]]:
        """(bytes written to it, bytes read from it) of each tier by `now`, as far as they have gone."""
        flows = zip(self.tiers, self.paths.saved, self.paths.loaded, strict=True)
        return [(tier.written - saved.outside(now)[0], tier.read - loaded.outside(now)[0]) for tier, saved, loaded in flows]

    def begin(self, now: float) -> None:
        """The measured span begins: peaks count from here."""
        self.paths.begin(now)
        for tier in self.tiers:
            tier.begin()


class Forgetting(Keeping):
    """An engine without tiers: nothing is kept, and every job computed whole."""

    def __init__(self, deployment: Deployment, store: Store, paths: Paths) -> None:
        super().__init__(store, paths, Stalls(), deployment.hbm_budget, growth_of(deployment.hbm_kv))
        self._prefill_s = deployment.steps.prefill

    def start(self, job: Job, cut: int, head_since: float, free: int, now: float) -> int:
        job.new = job.left = known = job.known
        job.compute_s = job.prefill_s = self._prefill_s(known)
        return -1

    def again(self, job: Job, free: int, now: float) -> None:
        self.start(job, 0, now, free, now)

    def save(self, job: Job, since: float, now: float) -> int:
        return -1
