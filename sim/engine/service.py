"""The SimPy engine: `run(RunInput) -> RunOutput`. One service, that is replicas, and the source of the turns that come to them."""

import math
from collections.abc import Callable
from typing import Any

from kvplan.hwmodels.units import parse_bytes
from kvplan.sim.build_workload import token_s
from kvplan.sim.config import Config
from kvplan.sim.deployment import batching_limits, rated_writes
from kvplan.sim.engine import guards
from kvplan.sim.engine.arrivals import Arrivals, Source, over_s
from kvplan.sim.engine.blockguards import BlockGuards
from kvplan.sim.engine.blockkv import BlockFitting, BlockKv, Contexts
from kvplan.sim.engine.clients import Client
from kvplan.sim.engine.clock import Clock
from kvplan.sim.engine.fitting import Fitting
from kvplan.sim.engine.keeping import Forgetting, Keeping
from kvplan.sim.engine.knowledge import EngineJobs
from kvplan.sim.engine.kv import Kv
from kvplan.sim.engine.mover import Mover
from kvplan.sim.engine.paths import Paths
from kvplan.sim.engine.replica import Replica, Watched
from kvplan.sim.engine.routing import EngineRouting, router
from kvplan.sim.engine.run import Run
from kvplan.sim.engine.waiting import DeferringRoom, HoldingRoom, WaitingRoom
from kvplan.sim.keptunit import OWN_ORDER, fetches_ahead
from kvplan.sim.knowledge import ServerKnowledge
from kvplan.sim.metrics.output import RunInput, RunOutput
from kvplan.sim.metrics.recorder import Recorder
from kvplan.sim.observers import Observers
from kvplan.sim.policies.base import Prefetch, Scheduler
from kvplan.sim.policies.registry import PolicyError, find
from kvplan.sim.rng import stream
from kvplan.sim.stepbudget import step_budget
from kvplan.sim.store.blocks.ordered import Orders
from kvplan.sim.store.nothing import Nothing
from kvplan.sim.store.protocol import Store
from kvplan.sim.store.sessions import SessionStore
from kvplan.traces import Workload


def run_service(given: RunInput, make_store: "StoreMaker | None" = None) -> RunOutput:
    """Replays the workload. Raises PolicyError when a user's own policy fails, or leaves turns unserved."""
    service = _Service(given, make_store or session_store)
    clock, recorder, observer = service.run.clock, service.run.recorder, service.run.observer
    clock.run()
    if observer is not None:
        observer.finish(service.replicas, recorder, clock.now)
    lost = given.workload.turns - recorder.completed
    if lost:
        raise PolicyError(
            f"scheduling policy {given.config.scheduler!r}: {lost} of {given.workload.turns} turns came and were never served"
        )
    return recorder.output(clock.agenda.scheduled)


StoreMaker = Callable[[Run, Scheduler, Prefetch], Store]
"""Makes a replica's store, that fetches as the prefetch policy says, and looks at the queue for that."""


def session_store(run: Run, queue: Scheduler, prefetch: Prefetch) -> Store:
    """KV of whole sessions in the deployment's tiers, where it has any."""
    settings, deployment = run.given.config.store, run.given.deployment
    if not deployment.tiers:
        return Nothing()
    store = SessionStore(
        deployment.tiers,
        find("eviction", settings.eviction),
        prefetch,
        queue,
        find("write", settings.write)(rated_writes(deployment)),
        run.knowledge,
        settings.ttl_s,
        settings.ssd_write == "whole",
        deployment.kv,
    )
    store.watch = run.observer
    return store


class _Service:
    """One run: replicas, and the source of the turns that come to them."""

    def __init__(self, given: RunInput, make_store: StoreMaker) -> None:
        config, workload = given.config, given.workload
        clock = Clock()
        recorder = Recorder(workload.turns, config.warmup_turns, given.progress)
        recorder.watch = given.watch
        recorder.columns["prompt_tokens"][:] = workload.prompt_tokens
        recorder.columns["output_tokens"][:] = workload.output_tokens
        knowledge = ServerKnowledge(clock, given.deployment, workload)
        self.run = run = Run(given, clock, recorder, knowledge, _observer(given), [0] * workload.sessions)
        self._session, self._replica_of = knowledge.session_of, recorder.replica
        turns = Contexts(config, given.deployment, workload, recorder) if given.deployment.pooled else None
        self.replicas = recorder.replicas = [_replica(run, index, make_store, turns) for index in range(config.deployment.replicas)]
        self._router = router(config, EngineRouting(run, self.replicas))
        alone = len(self.replicas) == 1 and self._router.FIXED
        self._passing, self._arrives = given.passing, self.replicas[0].arrive if alone else self._arrive
        self._token_s = token_s(config, given.deployment, workload) if given.passing else 0.0
        """Of answers that take no time of the server: as long as those of sessions that were under way when the workload begins."""
        self._over_s = over_s(given, self._token_s) if alone and config.workload.clients is None else -math.inf
        """Whose session comes again before then is not the last of it to pass; replicas that share a router are not told."""
        run.source = self._source(config, workload, self._pass if given.passing else self._arrives)
        for replica in self.replicas if not self._router.STICKY else ():
            replica.kv.elsewhere = [other.kv.store for other in self.replicas if other is not replica]

    def _source(self, config: Config, workload: Workload, arrive: Callable[[int], None]) -> Source:
        """Brings the turns to a router, or where it has no choice to the one replica."""
        run = self.run
        if config.workload.clients is None:
            return Arrivals(run.clock.agenda, workload, run.recorder, arrive)
        draw = stream(config.seed, "clients").random
        return Client(run.clock.agenda, config.workload.clients, workload, self._session, run.recorder, arrive, draw)

    def _pass(self, turn: int) -> None:
        """The first turns take no time, and the others do."""
        if self._passing:
            self._passing -= 1
            self._replica_of[turn] = replica = self._router.route(self._session[turn], turn)
            self.replicas[replica].passes(turn, self._token_s, self._over_s)
        else:
            self._arrives(turn)

    def _arrive(self, turn: int) -> None:
        """A turn comes, and goes to a replica."""
        self._replica_of[turn] = replica = self._router.route(self._session[turn], turn)
        self.replicas[replica].arrive(turn)


def _observer(given: RunInput) -> Any:
    """Who watches the run: the guards, where they are on, and whoever the caller has sent; None when nobody does."""
    config, watching = given.config, [] if given.observer is None else [given.observer]
    if guards.enabled():
        hbm = parse_bytes(config.store.hbm)
        guarding = BlockGuards if given.deployment.pooled else guards.Guards
        budget = step_budget(config, given.deployment)
        watching.insert(0, guarding(given.deployment, config.store.ttl_s, hbm, budget, config.workload.clients))
    return Observers(*watching) if watching else None


def _replica(run: Run, index: int, make_store: StoreMaker, turns: Contexts | None) -> Replica:
    config, deployment = run.given.config, run.given.deployment
    jobs = EngineJobs(run.clock, deployment, run.knowledge, config.tenant_weights)
    queue = find("scheduling", config.scheduler)(jobs)
    prefetch = find("prefetch", config.store.prefetch if turns is None or fetches_ahead(config.store) else "none")()
    fitting: Fitting
    kv: Keeping
    if turns is None:
        kv, fitting = _of_sessions(run, make_store(run, queue, prefetch), prefetch)
    else:
        kv, fitting = _of_blocks(run, turns, queue, prefetch)
    jobs.store, jobs.fitting = kv.store, fitting.job
    waiting = _waiting(run, queue, kv.store, prefetch)
    batching = find("batching", config.batching)(batching_limits(config, deployment))
    kind = Replica if run.observer is None else Watched
    return kind(run, index, kv, waiting, fitting, batching, prefetch)


def _waiting(run: Run, queue: Scheduler, store: Store, prefetch: Prefetch) -> WaitingRoom:
    """Jobs are held back for KV that can be fetched, where the policy says so, or deferred for chunks under way."""
    session_of = run.knowledge.session_of
    if run.given.deployment.pooled and run.given.config.store.defers:
        return DeferringRoom(queue, store, session_of)
    if not prefetch.HOLDS or store.fetch_target is None:
        return WaitingRoom(queue, store, session_of)
    return HoldingRoom(run.clock.agenda, queue, store, prefetch, run.recorder, session_of, run.given.deployment.tokens_in)


def _of_sessions(run: Run, store: Store, prefetch: Prefetch) -> tuple[Keeping, Fitting]:
    config, deployment = run.given.config, run.given.deployment
    fitting = Fitting(config, deployment, run.recorder, run.knowledge.session_of, run.context, store)
    paths = Paths(deployment, [tier.spec for tier in store.tiers], run.observer)
    if not store.tiers:
        return Forgetting(deployment, store, paths), fitting
    return Kv(run, store, prefetch, find("load", config.store.load)(), paths, Mover(run.clock.agenda, store, paths)), fitting


def _of_blocks(run: Run, turns: Contexts, queue: Scheduler, prefetch: Prefetch) -> tuple[BlockKv, BlockFitting]:
    config, deployment = run.given.config, run.given.deployment
    paths = Paths(deployment, deployment.tiers, run.observer)
    eviction, ages = config.store.eviction, config.store.ttl_s is not None
    orders = None if eviction == OWN_ORDER else Orders(find("eviction", eviction), run.knowledge, ages)
    kv = BlockKv(config, deployment, turns, find("load", config.store.load)(), paths, run.observer, orders)
    if fetches_ahead(config.store):
        kv.fetches_ahead(prefetch, queue, run.clock.agenda)
    return kv, BlockFitting(config, deployment, run.recorder, run.knowledge.session_of, run.context, kv)
