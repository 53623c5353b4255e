"""One replica's KV: what its store holds of a job's history, how that reaches the GPU, and where the job's own KV goes when it has ended.

The store says what is where and what is due; the mover, the loader and the saver book it on the links. What the store has moved of
sessions that wait is passed on (`moved`) after each call that may have moved something.
"""

import math
from typing import Any

import numpy as np

from kvplan.sim.engine.batch import Job
from kvplan.sim.engine.growth import growth_of
from kvplan.sim.engine.keeping import Arrived, Keeping, Moved
from kvplan.sim.engine.loader import Loader
from kvplan.sim.engine.mover import Mover
from kvplan.sim.engine.paths import Paths
from kvplan.sim.engine.run import Run
from kvplan.sim.engine.saver import Saver, WaitingSaver
from kvplan.sim.policies.base import Load, Prefetch
from kvplan.sim.store.protocol import ALL, Store, Useful


class Kv(Keeping):
    """See the module."""

    def __init__(self, run: Run, store: Store, prefetch: Prefetch, load: Load, paths: Paths, mover: Mover) -> None:
        config, deployment = run.given.config, run.given.deployment
        self._saver = (WaitingSaver if config.store.save == "sync" else Saver)(deployment, paths)
        super().__init__(store, paths, self._saver, deployment.hbm_budget, growth_of(deployment.hbm_kv))
        self.follows, self.heeds = self._saver.early, config.store.ttl_s is not None
        self.mover = mover
        self._moved = store.moved
        self._loader = Loader(deployment, config.store, paths, deployment.connection.block, deployment.stored)
        self._load_policy = load
        self._steps, self._kv = deployment.steps, deployment.kv
        self._loads_late = prefetch.LOADS_LATE
        self._connection = connection = deployment.connection
        self._saves_all, self._asynchronous = connection.saves_all, connection.asynchronous
        self._unit = None if deployment.kv.is_checkpoint else deployment.stored(connection.block)
        """Bytes of KV that are of use alone."""
        self._embedded = config.store.positions == "embedded"
        self._observer = run.observer
        self._complete_s: Any = np.zeros(run.given.workload.sessions).data
        """When each session's KV is complete in its top tier."""

    def listen(self, arrived: Arrived, moved: Moved | None) -> None:
        self.mover.arrived, self._arrived = self._fetched, arrived
        self.store.tells = moved is not None
        if moved is not None:
            self.mover.moved = moved

    def moves_end_s(self, held_only: bool) -> float:
        mover = self.mover
        fetches_end_s = mover.fetches_end_s
        return fetches_end_s if held_only and fetches_end_s < math.inf else min(fetches_end_s, mover.demotions_end_s)

    def settle(self, now: float) -> None:
        self.changed = False
        self.mover.start(now)

    def prefilled(self, job: Job, now: float) -> int:
        if not job.made:
            self._saver.prefilled(job, now)
        return 0

    def come(self, session: int, kept: int | None, now: float) -> None:
        if kept is None:
            self.store.come(session, now)
        else:
            useful = Useful(stop=self._kv.of(self._connection.whole(kept)))
            self.store.come(session, now, useful)
            self._keep_elsewhere(session, now, useful)
            if self._observer is not None:
                self._observer.kept_only(session, kept)
        if self._moved:
            self.mover.heed(now)

    def start(self, job: Job, cut: int, head_since: float, free: int, now: float) -> int:
        store, mover, session = self.store, self.mover, job.session
        self.changed = True
        if not self._loads_late:
            mover.break_off(session, self._unit, now)
        useful = self._useful(cut) if cut else ALL
        tier, size = store.claim(session, now, useful)
        if cut:
            self._keep_elsewhere(session, now, useful)
        if self._moved:
            mover.heed(now)
        if not size:
            mover.abandon(session)
        if self._observer is not None:
            self._observer.found(store, session, cut, self._embedded, self._kv.tokens_in(size))
        if not self._loads_late:
            tier, size = store.arrived(session)
        self._begin(job, tier, self._kv.tokens_in(size), head_since, free, now)
        return tier if job.cached else -1

    def again(self, job: Job, free: int, now: float) -> None:
        """What the store keeps of its history is pinned still, and loaded as at first."""
        store = self.store
        tier, size = store.lookup(job.session) if self._loads_late else store.arrived(job.session)
        self._begin(job, tier, self._kv.tokens_in(size), now, free, now)

    def _begin(self, job: Job, tier: int, cached: int, head_since: float, free: int, now: float) -> None:
        """A job loads of the `cached` tokens in a tier, and is to compute the rest."""
        known = job.known
        if cached:
            self._load(job, tier, cached, known - cached, head_since, free, now)
        else:
            job.compute_s = job.prefill_s = self._steps.prefill(known, 0)
        job.new = job.left = known - job.cached

    def _keep_elsewhere(self, session: int, now: float, useful: Useful) -> None:
        """What a history has lost is of no use anywhere."""
        for store in self.elsewhere:
            store.keep_only(session, now, useful)

    def _useful(self, cut: int) -> Useful:
        """Of a history that has lost its oldest `cut` tokens: with positions in the keys, nothing."""
        return Useful(stop=0) if self._embedded else Useful(start=self._kv.of(self._connection.begun(cut)))

    def _load(self, job: Job, tier: int, cached: int, new: int, head_since: float, free: int, now: float) -> None:
        """A job loads what its load policy says of the `cached` tokens; `new` ones come in any case."""
        store, session = self.store, job.session
        if store.tiers[tier].spec.on_device:
            store.load(session, self._kv.of(cached), now)
            job.cached = cached
            job.compute_s = job.prefill_s = self._steps.prefill(new, cached)
            return
        loader = self._loader
        loader.begin(tier, cached, new, now, self._complete_s[session], head_since, self.mover.comes_s(session), free)
        job.cached, job.compute_s, job.prefill_s = self._load_policy.loads(loader)
        if job.cached:
            end = self._take(session, tier, job.cached, now)
            if self._asynchronous:
                job.since_s, job.prefill_s = end, job.compute_s
        if self._observer is not None:
            self._observer.served(self.store, session, job.cached)

    def _take(self, session: int, tier: int, tokens: int, now: float) -> float:
        """Books the load of so many tokens; returns when it ends."""
        size = self._kv.of(tokens)
        start, end = self._loader.take(tokens)
        self.paths.loaded[tier].add(now, start, end, size)
        into = self.store.load(session, size, now)
        if into is not None:
            self.paths.saved[into].add(now, start, end, size)
            self.mover.heed(now)
        return end

    def save(self, job: Job, since: float, now: float) -> int:
        self.changed = True
        saver, tokens = self._saver, job.context if self._saves_all else self._connection.saved(job.context, job.output)
        if not tokens:
            return -1
        saver.begin(since, now)
        tier, missing = self.store.save(job.session, self._kv.of(tokens), now, saver.spills)
        if self._moved:
            self.mover.heed(now)
        complete_s = saver.save(job, tier, missing)
        if complete_s is not None:
            self._complete_s[job.session] = complete_s
        return tier

    def _fetched(self, session: int, at_s: float) -> None:
        """What a fetch brought of a session is complete."""
        self._complete_s[session] = at_s
        self._arrived(session)

    def fetch_next(self, now: float) -> bool:
        if self.mover.fetching is None:
            self.mover.start(now)
        return self.mover.fetching is not None

    # --- what the metrics read ------------------------------------------------------------------------------------------------

    def traffic(self, now: float) -> list[tuple[float, float]]:
        found = [list(each) for each in super().traffic(now)]
        for move, left in self.mover.to_come(now):
            found[move.target][0] -= left
            found[move.source][1] -= left
        return [(written, read) for written, read in found]
