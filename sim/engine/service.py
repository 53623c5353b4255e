"""The SimPy engine: `run(RunInput) -> RunOutput`. One service, that is replicas, and the source of the turns that come to them."""

from kvplan.hwmodels.units import parse_bytes
from kvplan.sim.config import Config
from kvplan.sim.deployment import rated_writes
from kvplan.sim.engine import guards
from kvplan.sim.engine.arrivals import Arrivals, Source
from kvplan.sim.engine.clients import Client
from kvplan.sim.engine.clock import Clock
from kvplan.sim.engine.knowledge import EngineJobs, EngineKnowledge
from kvplan.sim.engine.link import Link
from kvplan.sim.engine.replica import Replica
from kvplan.sim.metrics.output import RunInput, RunOutput
from kvplan.sim.metrics.recorder import Recorder
from kvplan.sim.observers import Observers
from kvplan.sim.policies.registry import PolicyError, find
from kvplan.sim.rng import stream
from kvplan.sim.store.sessions import SessionStore
from kvplan.traces import Workload


def run(given: RunInput) -> RunOutput:
    """Replays the workload. Raises PolicyError when a user's own policy fails, or leaves turns unserved."""
    service = _Service(given)
    service.clock.run()
    recorder = service.recorder
    if service.observer is not None:
        service.observer.finish(service.replicas, recorder, service.clock.now)
    lost = given.workload.turns - recorder.completed
    if lost:
        raise PolicyError(
            f"scheduling policy {given.config.scheduler!r}: {lost} of {given.workload.turns} turns came and were never served"
        )
    return recorder.output(service.replicas, service.clock.scheduled)


class _Service:
    """One run: replicas, and the source of the turns that come to them."""

    def __init__(self, given: RunInput) -> None:
        config, deployment, workload = given.config, given.deployment, given.workload
        self.clock = Clock()
        self.recorder = Recorder(workload.turns, config.warmup_turns, given.progress)
        self.recorder.watch = given.watch
        self.recorder.columns["prompt_tokens"][:] = workload.prompt_tokens
        self.recorder.columns["output_tokens"][:] = workload.output_tokens
        hbm, clients = parse_bytes(config.store.hbm), config.workload.clients
        self.guard = guards.Guards(deployment, config.store.ttl_s, hbm, clients) if guards.enabled() else None
        self.observer = self.guard if given.observer is None else Observers(*([self.guard] if self.guard else []), given.observer)
        self._knowledge = EngineKnowledge(self.clock, deployment, workload)
        self._session = self._knowledge.session_of
        self.source: Source = self._source(config, workload)
        context = [0] * workload.sessions
        self.replicas = [self._replica(given, context) for _ in range(config.deployment.replicas)]
        for replica in self.replicas:
            replica.peers = self.replicas

    def _source(self, config: Config, workload: Workload) -> Source:
        if config.workload.clients is None:
            return Arrivals(self.clock, workload, self._session, self.recorder, self._arrive)
        draw = stream(config.seed, "clients").random
        return Client(self.clock, config.workload.clients, workload, self._session, self.recorder, self._arrive, draw)

    def _replica(self, given: RunInput, context: list[int]) -> Replica:
        config, deployment = given.config, given.deployment
        jobs = EngineJobs(self.clock, deployment, self._knowledge, config.tenant_weights)
        queue = find("scheduling", config.scheduler)(jobs)
        eviction, prefetch = find("eviction", config.store.eviction), find("prefetch", config.store.prefetch)()
        store = None
        if deployment.tiers:
            store = SessionStore(
                list(deployment.tiers),
                eviction,
                prefetch,
                queue,
                find("write", config.store.write)(rated_writes(deployment)),
                self._knowledge,
                config.store.ttl_s,
                config.store.ssd_write == "whole",
            )
            store.watch = self.observer
        jobs.replica = replica = Replica(
            self.clock,
            config,
            deployment,
            queue,
            store,
            prefetch,
            find("load", config.store.load)(),
            self._knowledge,
            given.workload,
            context,
            self.recorder,
            self.source.next_arrival,
            self.source.ended,
            Link if self.observer is None else self.observer.make_link,
            self.observer,
            given.longest_run,
        )
        return replica

    def _arrive(self, turn: int) -> None:
        """A turn comes to the replica that its session stays with."""
        self.replicas[self._session[turn] % len(self.replicas)].arrive(turn)
