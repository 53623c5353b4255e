"""`simulate(config) -> Result`: the pure function in the middle of kvplan."""

from collections.abc import Callable
from dataclasses import dataclass
from os import PathLike
from typing import TYPE_CHECKING

import numpy as np

from kvplan.hwmodels.units import parse_bytes
from kvplan.sim import guards
from kvplan.sim.config import Config, load
from kvplan.sim.deployment import Deployment, rated_writes, resolve
from kvplan.sim.engine.arrivals import Arrivals, Source
from kvplan.sim.engine.clients import Client
from kvplan.sim.engine.clock import Clock
from kvplan.sim.engine.knowledge import EngineJobs, EngineKnowledge
from kvplan.sim.engine.link import Link
from kvplan.sim.engine.replica import Replica
from kvplan.sim.metrics.recorder import Recorder
from kvplan.sim.metrics.schema import Summary
from kvplan.sim.metrics.summary import summarize
from kvplan.sim.observers import Observers
from kvplan.sim.policies.registry import PolicyError, find
from kvplan.sim.rng import stream
from kvplan.sim.store.sessions import SessionStore
from kvplan.sim.workload import build_workload
from kvplan.traces import Workload

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, repr=False)
class Result:
    """What a run gave."""

    config: Config
    workload: Workload
    summary: Summary
    """summary.json, key by key in `kvplan.sim.metrics.schema`."""
    columns: dict[str, np.ndarray]
    """Per turn, in the workload's order; seconds since the start of the trace, tokens. Turns of the warm-up are included."""
    series: dict[str, np.ndarray]
    """Time series: replica, waiting and running jobs, HBM bytes of running jobs, bytes per tier."""
    events: int
    """Events that the run scheduled."""

    def to_frame(self) -> "pd.DataFrame":
        """One row per turn: `columns` as a table."""
        import pandas as pd

        return pd.DataFrame(self.columns)

    def __repr__(self) -> str:
        from kvplan.sim.report import table

        return f"<Result: {table.title(self.summary)}, {self.summary['hit_rate']['resumed']:.1%} of resumed turns hit>"

    def _repr_html_(self) -> str:
        """For notebooks: what `kvplan simulate` prints."""
        from kvplan.sim.report import console, table

        return console.html(table.comparison(self.summary, None))


def simulate(
    config: Config | str | PathLike[str] | None = None,
    workload: Workload | None = None,
    progress: Callable[[int, int], None] | None = None,
    longest_run: int | None = None,
    watch: Callable[[Recorder], None] | None = None,
    observer: object | None = None,
) -> Result:
    """Replays the configuration's workload (or the one given) through the simulated server. `config`: as `kvplan.load` takes it.

    `progress(completed, turns)` is called now and then. `longest_run` bounds the decode steps of one event; the result does not
    depend on it but for rounding, which is what the tests use it for. `watch(recorder)` is called as often as `progress`, and ends the run
    by raising what it likes. `observer` hears what happens (`kvplan.sim.observers`). Raises ConfigError and TraceError, and PolicyError
    when a user's own policy fails.
    """
    config = load(config)
    if workload is None:
        workload = build_workload(config)
    deployment = resolve(config, workload)
    run = _Run(config, deployment, workload, progress, longest_run, observer)
    run.recorder.watch = watch
    run.clock.run()
    if run.observer is not None:
        run.observer.finish(run.replicas, run.recorder, run.clock.now)
    lost = workload.turns - run.recorder.completed
    if lost:
        raise PolicyError(f"scheduling policy {config.scheduler!r}: {lost} of {workload.turns} turns came and were never served")
    output = run.recorder.output(run.replicas, run.clock.scheduled)
    summary = summarize(config, deployment, workload, output)
    if run.guard is not None:
        guards.check_summary(summary)
    columns = {"session": workload.session, "turn": workload.turn, **output.columns}
    return Result(config, workload, summary, columns, dict(output.series), output.events)


class _Run:
    """One run: replicas, and the source of the turns that come to them."""

    def __init__(self, config: Config, deployment: Deployment, workload: Workload, progress, longest_run, observer) -> None:
        self.clock = Clock()
        self.recorder = Recorder(workload.turns, config.warmup_turns, progress)
        self.recorder.columns["prompt_tokens"][:] = workload.prompt_tokens
        self.recorder.columns["output_tokens"][:] = workload.output_tokens
        hbm, clients = parse_bytes(config.store.hbm), config.workload.clients
        self.guard = guards.Guards(deployment, config.store.ttl_s, hbm, clients) if guards.enabled() else None
        self.observer = self.guard if observer is None else Observers(*([self.guard] if self.guard else []), observer)
        self._knowledge = EngineKnowledge(self.clock, deployment, workload)
        self._session = self._knowledge.session_of
        self.source: Source = self._source(config, workload)
        context = [0] * workload.sessions
        self.replicas = [self._replica(config, deployment, workload, longest_run, context) for _ in range(config.deployment.replicas)]
        for replica in self.replicas:
            replica.peers = self.replicas

    def _source(self, config: Config, workload: Workload) -> Source:
        if config.workload.clients is None:
            return Arrivals(self.clock, workload, self._session, self.recorder, self._arrive)
        draw = stream(config.seed, "clients").random
        return Client(self.clock, config.workload.clients, workload, self._session, self.recorder, self._arrive, draw)

    def _replica(self, config: Config, deployment: Deployment, workload: Workload, longest_run, context: list[int]) -> Replica:
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
            workload,
            context,
            self.recorder,
            self.source.next_arrival,
            self.source.ended,
            Link if self.observer is None else self.observer.make_link,
            self.observer,
            longest_run,
        )
        return replica

    def _arrive(self, turn: int) -> None:
        """A turn comes to the replica that its session stays with."""
        self.replicas[self._session[turn] % len(self.replicas)].arrive(turn)
