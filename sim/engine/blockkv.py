"""One replica's KV in blocks: a pool in HBM that running jobs and what others left share, and tiers of chunks below it.

A job enters when the pool has the blocks that `deployment.admission` asks for free, those apart that it finds in use, and takes more as its
answer grows. Its prompt's blocks are found by others when its prefill has ended, and offered to the tier below then; its answer's when it
ends. What it finds below is loaded as `store.load` and the connector say: it has its blocks meanwhile, and others find them when they have
come. With `store.defers` it starts when nothing that it would load is under way (`comes_s`). One that gives way leaves its full
blocks in the pool like one that has ended, and looks for them when it comes back; what windows of jobs that decode leave is free. With
`store.ttl_s` blocks and chunks whose last use ended longer ago go when a turn comes or starts; who waits does not use them yet.

Left out: who looks into the pool while jobs decode finds blocks that a run of steps is about to take.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from kvplan.sim.blockpool import BlockPool, block_pool
from kvplan.sim.config import Config
from kvplan.sim.deployment import Deployment
from kvplan.sim.engine.agenda import Agenda
from kvplan.sim.engine.batch import Job
from kvplan.sim.engine.blockfetch import Fetches
from kvplan.sim.engine.fitting import Fitting
from kvplan.sim.engine.growth import Growth, InBlocks, Uneven
from kvplan.sim.engine.keeping import Arrived, Keeping, Moved, Stalls
from kvplan.sim.engine.leaving import Leaving
from kvplan.sim.engine.loader import Loader
from kvplan.sim.engine.offloading import Found, Offloading
from kvplan.sim.engine.paths import Paths
from kvplan.sim.metrics.recorder import Recorder
from kvplan.sim.policies.base import Load, Prefetch, Queue
from kvplan.sim.store.blocks.level import Level
from kvplan.sim.store.blocks.ordered import Orders
from kvplan.sim.store.blocks.pool import Pool, Use, Windows
from kvplan.sim.store.blocks.runs import Pieces
from kvplan.sim.store.nothing import Nothing
from kvplan.traces import Workload
from kvplan.traces.blockkeys import TurnKeys
from kvplan.traces.blockpaths import turn_paths
from kvplan.traces.context import contexts


class Contexts:
    """Of all turns, in blocks, and which turn of each session comes next; one for all replicas."""

    def __init__(self, config: Config, deployment: Deployment, workload: Workload, recorder: Recorder) -> None:
        self.pool = pool = block_pool(config, deployment, workload)
        self.stored_bytes: int = pool.stored_bytes
        """Of a block."""
        self.saves_answers: bool = deployment.connection.saves_answers
        ratio = config.deployment.truncation_ratio
        history, prompt, _ = contexts(workload, deployment.window, ratio)
        self.paths: list[TurnKeys] = list(turn_paths(workload, pool.block_tokens, deployment.window, ratio))
        self.prompts: list[int] = (history + prompt).tolist()
        """Tokens, with the history."""
        self.next_turn: list[int] = [0] * workload.sessions
        for session, first in zip(workload.session[workload.first_turn[:-1]].tolist(), workload.first_turn[:-1].tolist(), strict=True):
            self.next_turn[session] = first
        self.found: list[Any] = [recorder.also_counts(f"{tier.name}_tokens") for tier in deployment.tiers]
        """Tokens that each turn had from each tier."""


class _Running:
    """What a job has."""

    def __init__(self, use: Use, loaded: Pieces) -> None:
        self.use, self.loaded = use, loaded
        """`loaded`: chunks of the first tier below that may not go before its prefill has ended."""


class Lookups(Nothing):
    """What a replica's policies see: what its pool has of the next turn of each session."""

    fetches: Fetches | None = None
    below: Offloading

    def __init__(self, pool: Pool, contexts: Contexts, deployment: Deployment) -> None:
        super().__init__()
        self._pool, self._contexts, self._stored = pool, contexts, deployment.stored
        self._tokens: int = contexts.pool.block_tokens

    def lookup(self, session: int) -> tuple[int, int]:
        turn = self._contexts.next_turn[session]
        if turn >= len(self._contexts.paths):
            return -1, 0
        hit, _ = self._pool.reach(self._contexts.paths[turn], self._contexts.prompts[turn])
        return (0, self._stored(hit * self._tokens)) if hit else (-1, 0)

    def arrived(self, session: int) -> tuple[int, int]:
        return self.lookup(session)

    def expect(self, session: int, position: float) -> None:
        self.below.expect(session, position)

    def bytes_to_come(self, session: int) -> int:
        return 0 if self.fetches is None else self._stored(self.fetches.to_come(session))


def _growth(pool: BlockPool, empty: Pool) -> Growth:
    if pool.groups is None:
        return InBlocks(pool.block_tokens, pool.block_bytes)
    each, needed = pool.block_bytes, empty.needed
    return Uneven(lambda tokens: needed(tokens) * each, (pool.groups.full + pool.groups.windowed) * each, pool.block_tokens)


class BlockKv(Keeping):
    """See the module."""

    heeds = True
    block_tokens: int
    block_bytes: int
    """In the HBM of all ranks."""

    def __init__(
        self, config: Config, deployment: Deployment, turns: Contexts, load: Load, paths: Paths, observer: Any, orders: Orders | None
    ) -> None:
        pool = turns.pool
        self._pool: Pool = pool.empty()
        self._lookups = Lookups(self._pool, turns, deployment)
        super().__init__(self._lookups, paths, Stalls(), pool.bytes, _growth(pool, self._pool))
        self.follows = True
        self._levels = [Level(tier) for tier in deployment.tiers]
        self.tiers = self._levels
        self._below = self._lookups.below = Offloading(deployment, pool, config.store.threshold, paths, self._levels, orders)
        self._turns, self._observer = turns, observer
        self.block_tokens, self.block_bytes = pool.block_tokens, pool.block_bytes
        self._running: dict[int, _Running] = {}
        self._leaving, self._ttl_s = Leaving(), config.store.ttl_s
        self._fetches: Fetches | None = None
        self.loads_once = config.store.defers and pool.most_kept > 0
        """Whether jobs are deferred for what another loads: they find it in HBM then."""
        self._asked: dict[int, list[int]] = {}
        """What tiers had when turns asked first for chunks of lower ones, of those that wait."""
        if config.store.defers:
            self._below.defers()
        self._asynchronous: bool = deployment.connection.asynchronous
        self._loader, self._load_policy = Loader(deployment, config.store, paths, pool.block_tokens, pool.loaded), load

    @property
    def foresees(self) -> bool:
        return self._below.foresees

    def fetches_ahead(self, policy: Prefetch, queue: Queue, agenda: Agenda) -> None:
        """What tiers below the first have comes up to it ahead of jobs, as the policy says, or not at all."""
        self._below.fetches_ahead()
        self._fetches = self._lookups.fetches = Fetches(self._below, policy, queue, agenda)
        self._lookups.fetch_target = 1

    def listen(self, arrived: Arrived, moved: Moved | None) -> None:
        if self._fetches is not None:
            self._fetches.arrived = arrived

    def moves_end_s(self, held_only: bool) -> float:
        return math.inf if self._fetches is None else self._fetches.ends_s

    def settle(self, now: float) -> None:
        self.changed = False
        self.fetch_next(now)

    def fetch_next(self, now: float) -> bool:
        return self._fetches is not None and self._fetches.next(now)

    @property
    def skipped_saves(self) -> int:
        return self._below.dropped

    def needs(self, job: Job) -> int:
        """Bytes of free HBM that a job would take until its end, if it entered now."""
        return self._pool.taken(self._turns.paths[job.turn], job.known, job.context) * self.block_bytes

    @property
    def lessens(self) -> int:
        return self.block_tokens if self._pool.LESSENS else 0

    def less(self, job: Job) -> int:
        if not self._pool.LESSENS:
            return 0
        return job.hbm_bytes - self._pool.least(self._turns.paths[job.turn], job.known, job.context) * self.block_bytes

    def come(self, session: int, kept: int | None, now: float) -> None:
        self._below.settle(now)  # before its place in the queue is known
        if self._ttl_s is not None:
            self._expire(self._ttl_s, now)
        if self._fetches is not None:
            turn = self._turns.next_turn[session]
            path, prompt = self._turns.paths[turn], self._turns.prompts[turn]
            self._fetches.want(session, path, prompt, self._pool.reach(path, prompt)[0] * self.block_tokens, now)
            self.changed = True

    def _expire(self, ttl_s: float, now: float) -> None:
        """What nobody has used for longer goes."""
        self._below.expire(ttl_s, now)
        gone = self._pool.expire(ttl_s, now)
        if gone:
            self._fill(now)
        if self._observer is not None:
            for run in gone:
                self._observer.blocks_expired(self, run.path, run.start, run.stop, now)

    def start(self, job: Job, cut: int, head_since: float, free: int, now: float) -> int:
        before = self._asked.pop(job.turn, None) if self._fetches is None else self._fetches.starts(job.session)
        local, found = self._begin(job, head_since, free, now)
        return self._served(job, local, found.shares(job.cached - local, before))

    def again(self, job: Job, free: int, now: float) -> None:
        self._asked.pop(job.turn, None)
        self._begin(job, now, free, now)

    def comes_s(self, job: Job, now: float) -> float:
        if self._ttl_s is not None:
            self._expire(self._ttl_s, now)
        path, tokens = self._turns.paths[job.turn], job.known
        comes_s, stops = self._below.ask(path, tokens, self._pool.reach(path, tokens)[0] * self.block_tokens, now)
        if comes_s > now and len(set(stops[1:])) > 1:
            self._asked.setdefault(job.turn, stops)
        return comes_s

    def loaded(self, job: Job, now: float) -> int:
        before = self._pool.in_use
        self._computed(self._running[job.turn].use, job.cached, now)
        self._fill(now)
        return (before - self._pool.in_use) * self.block_bytes

    def _begin(self, job: Job, head_since: float, free: int, now: float) -> tuple[int, Found]:
        """A job uses what there is of its context, and is to compute the rest. Returns the tokens that the pool has, and what was found
        below."""
        path, tokens = self._turns.paths[job.turn], job.known
        if self._ttl_s is not None:
            self._expire(self._ttl_s, now)
        self._below.claim(job.session, now)
        use = self._pool.begin(path, tokens, job.history + job.prompt)
        local = use.hit * self.block_tokens
        found = self._below.find(path, tokens, local, now)
        job.compute_s = job.prefill_s = self._loader.steps.prefill(tokens - local, local)
        if found.tokens:
            self._load(job, found, local, head_since, free, now)
        running = self._running[job.turn] = _Running(use, self._below.raise_all(found, now) if job.cached else [])
        if job.cached:
            self._pool.loads(use, local + job.cached)
            if self._observer is not None:
                self._observer.windows_held(self, found, running.loaded)
        job.cached += local
        job.new = job.left = tokens - job.cached
        if self._observer is not None:
            self._observer.blocks_found(self, use, job.cached // self.block_tokens, now)
        self._levels[0].read += use.found * self._turns.stored_bytes
        return local, found

    def grew(self, hbm_used: int, now: float, began: float, steps: int) -> None:
        for step, tokens, use in self._leaving.after(steps):
            self._moves_on(use, tokens, self._pool.goes_on, now)
            self._fill(began + (now - began) * step / steps)
        pool, taken = self._pool, hbm_used // self.block_bytes - self._pool.in_use
        empty, before = pool.empty, pool.filled
        pool.grow(taken)
        if taken > 0 and steps:
            new = min(taken, empty)
            self._hold(before + new, began + (now - began) * 0.5 * (new / taken + 1 / steps))
            now = began + (now - began) * new / taken
        self._fill(now)

    def gives_back(self, job: Job, tokens: int, held: int, now: float) -> int:
        running = self._running.pop(job.turn)
        self._below.let_go(self._turns.paths[job.turn], running.loaded, now)
        return self._leaves(running.use, job.in_hbm if job.left else tokens, tokens, now)

    def _load(self, job: Job, found: Found, local: int, head_since: float, free: int, now: float) -> None:
        """A job loads what its load policy says of what was found below, beyond the tokens that the pool has."""
        loader = self._loader
        loader.begin(1, found.tokens, job.known - local - found.tokens, now, found.ready_s, head_since, math.inf, free, local)
        job.cached, job.compute_s, job.prefill_s = self._load_policy.loads(loader)
        if job.cached:
            size = self._turns.pool.loaded(job.cached)
            start, end = loader.take(job.cached)
            self.paths.loaded[1].add(now, start, end, size)
            self._levels[1].read += size
            if self._asynchronous:
                job.since_s, job.prefill_s = end, job.compute_s
                if self.loads_once:
                    self._below.loads(found, job.cached, end)
                if self._observer is not None:
                    self._observer.chunks_loaded(self, found.parts(job.cached), now, end)

    def _served(self, job: Job, local: int, below: Sequence[int]) -> int:
        """Writes down where a job's tokens come from; returns the lowest of these tiers, −1 for none."""
        tier = -1
        for each, tokens in enumerate([local, *below]):
            if tokens:
                self._turns.found[each][job.turn], tier = tokens, each
        return tier

    def prefilled(self, job: Job, now: float) -> int:
        running, before, path = self._running[job.turn], self._pool.in_use, self._turns.paths[job.turn]
        self._computed(running.use, job.known, now)
        if job.context > job.known + 1:
            self._moves_on(running.use, job.known + 1, self._pool.decodes, now)
            self._fill(now)
        self._below.let_go(path, running.loaded, now)
        running.loaded = []
        if not job.made:
            self._below.offer(path, 0, job.known, now, running.use)
        return (before - self._pool.in_use) * self.block_bytes

    def save(self, job: Job, since: float, now: float) -> int:
        use, path = self._running.pop(job.turn).use, self._turns.paths[job.turn]
        self._turns.next_turn[job.session] = job.turn + 1
        prompt = job.history + job.prompt
        saved = job.context if self._turns.saves_answers else prompt
        self._below.offer(path, prompt, saved, now)
        self._below.renew(path, use, saved, now)
        job.hbm_bytes = self._leaves(use, job.context, job.context, now)
        return 0

    def passes(self, job: Job, now: float, again: bool) -> None:
        path, pool = self._turns.paths[job.turn], self._pool
        if again and self._leaves_no_trace(path, self._turns.paths[job.turn + 1]):
            self._turns.next_turn[job.session] = job.turn + 1
            return
        if self._ttl_s is not None:
            self._expire(self._ttl_s, now)
        use = pool.begin(path, job.known)
        if self._observer is not None:
            self._observer.blocks_found(self, use, use.hit, now)
        self._computed(use, job.known, now)
        windows = self._windows(use)
        pool.decoded(use, job.known, job.context, now)
        if self._observer is not None:
            self._observer.windows_changed(self, windows, use.windows, now)
        self._turns.next_turn[job.session] = job.turn + 1
        self._below.passes(path, use, job.context if self._turns.saves_answers else job.known, now)
        self._leaves(use, job.context, job.context, now)

    def _leaves_no_trace(self, path: TurnKeys, then: TurnKeys) -> bool:
        """Whether all that a request leaves is used, or stored, by one with the context `then` anew: where last uses alone say who goes,
        and that one has room, tiers are the same after it."""
        blocks, most = len(path), len(then)
        if not self._pool.JOINS or blocks > most or not self._below.by_last_use(most):
            return False
        return not blocks or path[blocks - 1] == then[blocks - 1]

    def _leaves(self, use: Use, computed: int, tokens: int, now: float) -> int:
        """A job with so many tokens has ended, or given way, of which so many are computed; returns the bytes that nobody has any more."""
        before = self._pool.in_use
        self._computed(use, computed, now)
        windows = self._windows(use)
        self._pool.end(use, tokens, now)
        if self._observer is not None:
            self._observer.windows_changed(self, windows, use.windows, now)
            self._observer.blocks_left(self, use, now)
        self._fill(now)
        return (before - self._pool.in_use) * self.block_bytes

    def _computed(self, use: Use, tokens: int, now: float) -> None:
        """So many tokens of a job are in HBM."""
        windows = self._windows(use)
        named = self._pool.computed(use, tokens)
        if self._observer is not None:
            self._observer.blocks_computed(self, use, tokens // self.block_tokens)
            self._observer.windows_changed(self, windows, use.windows, now)
        self._levels[0].written += named * self._turns.stored_bytes

    def _moves_on(self, use: Use, tokens: int, move: Callable[[Use, int, float], int | None], now: float) -> None:
        """A job that decodes has blocks for so many tokens by now: its windows leave some of the others."""
        windows = self._windows(use)
        self._leaving.wait(use, tokens, move(use, tokens, now))
        if self._observer is not None:
            self._observer.windows_changed(self, windows, use.windows, now)

    def _windows(self, use: Use) -> Windows:
        return {} if self._observer is None else use.windows

    def _fill(self, now: float) -> None:
        self._hold(self._pool.filled, now)

    def _hold(self, blocks: int, now: float) -> None:
        self._levels[0].hold(blocks * self._turns.stored_bytes, now)

    def counted(self, tokens: Mapping[int, int]) -> tuple[int, int, list[tuple[int, int]]]:
        """For guards, who say how many tokens of each turn have HBM: blocks of the pool that are in use, and free; and (chunks, chunks that
        there is room for) of each tier below."""
        used, free = self._pool.counted([(running.use, tokens[turn]) for turn, running in self._running.items()])
        return used, free, self._below.counted()

    def traffic(self, now: float) -> list[tuple[float, float]]:
        self._below.settle(now)
        return super().traffic(now)


class BlockFitting(Fitting):
    """What a turn takes of a pool of blocks."""

    def __init__(
        self, config: Config, deployment: Deployment, recorder: Recorder, session_of: list[int], context: list[int], kv: BlockKv
    ) -> None:
        super().__init__(config, deployment, recorder, session_of, context, kv.store)
        self._kv = kv

    def job(self, turn: int) -> Job:
        job = super().job(turn)
        return self.again(job)

    def again(self, job: Job) -> Job:
        job.hbm_bytes = self._kv.needs(job)
        return job
