"""The runs of a sweep: replications with common random numbers, in a pool, each kept when it is done.

Replication r has the same seed in every variant; replication 0 is the configuration as it stands. In the others generated workloads are
drawn anew, and the sessions of a trace are drawn with replacement (bootstrap). A finished run is one file under its digest
(`kvplan.sim.sweep.digest`), so that a sweep that was cut off goes on where it was.
"""

import json
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from operator import attrgetter

import numpy as np

from kvplan.sim.build_workload import build_workload
from kvplan.sim.config import Config
from kvplan.sim.simulation import simulate
from kvplan.sim.sweep.kept_runs import Kept, KeptRuns
from kvplan.sim.sweep.measures import checked, measure
from kvplan.sim.sweep.pool import Failed, Pool
from kvplan.traces import Workload


@dataclass(frozen=True)
class Run:
    """One variant in one replication."""

    variant: str
    replication: int
    config: Config
    """With the seed of the replication."""
    digest: str
    """Runs of the same digest have the same outcome."""


@dataclass(frozen=True)
class Outcome:
    """What came of a run: its measures, or why it failed."""

    digest: str
    values: dict[str, float] | None
    failure: str | None = None
    warnings: tuple[str, ...] = ()
    """Of the run's summary."""


def replicated(config: Config, replication: int, resample: int | None) -> Config:
    """The configuration of a replication: itself for the first; with `resample`, a bootstrap of so many sessions for the others."""
    if not replication:
        return config
    entropy = np.random.SeedSequence([config.seed, zlib.crc32(b"replication"), replication])
    seed = int(entropy.generate_state(1, np.uint64)[0] >> np.uint64(1))
    if resample is None:
        return config.model_copy(update={"seed": seed})
    rescale = config.workload.rescale.model_copy(update={"resample": resample})
    return config.model_copy(update={"seed": seed, "workload": config.workload.model_copy(update={"rescale": rescale})})


def sessions_to_draw(config: Config, workload: Workload) -> int | None:
    """Sessions to draw for each replication from a trace; None where there is nothing to draw from, or the user says how many."""
    return None if config.workload.trace is None or config.workload.rescale.resample is not None else len(workload.roots)


def same_runs(config: Config, one: Workload, other: Workload) -> bool:
    """Whether two replications of a configuration, of these workloads, are one: no turn differs, and no client draws which goes first."""
    clients = config.workload.clients
    return (clients is None or clients.order != "random") and _same_turns(one, other)


def _same_turns(one: Workload, other: Workload) -> bool:
    columns = ("session", "prompt_tokens", "output_tokens", "arrival_s", "gap_s", "tenant")
    return all(np.array_equal(getattr(one, name), getattr(other, name), equal_nan=name.endswith("_s")) for name in columns)


@dataclass(frozen=True)
class WorkloadKey:
    """Configurations that are equal as keys have the same workload."""

    text: str
    config: Config = field(compare=False)

    @classmethod
    def of(cls, config: Config) -> "WorkloadKey":
        """Everything that `build_workload` reads."""
        parts = config.workload.model_dump(mode="json"), config.seed, config.model, config.deployment.window_tokens, config.catalogue
        return cls(json.dumps(parts, sort_keys=True), config)


@lru_cache(maxsize=1)
def _workload(key: WorkloadKey) -> Workload:
    return build_workload(key.config)


def in_order(runs: Sequence[Run]) -> list[Run]:
    """Runs of one workload after another, so that a process builds each once."""
    return sorted(runs, key=lambda run: (run.replication, WorkloadKey.of(run.config).text))


def outcome_of(run: Run) -> Outcome:
    """Simulates. Raises what a policy, or anything else, does."""
    result = simulate(run.config, _workload(WorkloadKey.of(run.config)))
    return Outcome(run.digest, checked(measure(result)), warnings=tuple(result.summary["warnings"]))


def about(run: Run) -> dict[str, object]:
    """For who looks at a record."""
    return {"variant": run.variant, "replication": run.replication, "seed": run.config.seed}


def perform(
    runs: Sequence[Run],
    records: KeptRuns,
    pool: Pool,
    progress: Callable[[int, int], None] = lambda done, total: None,
    seen: Callable[[Outcome], None] = lambda outcome: None,
) -> dict[str, Outcome]:
    """Outcomes by digest; what `records` has is not done again, and a run that fails is an outcome, so that the others go on.

    `progress(done, total)` counts runs; `seen(outcome)` gets each when it is there, and may raise. Raises SweepError and OutputError.
    """
    wanted = {run.digest: run for run in runs}
    kept = Kept(pool, records, attrgetter("digest"), about)
    found: dict[str, Outcome] = {}
    for run in in_order(list(wanted.values())):
        kept.submit(run.digest, outcome_of, run)
    progress(kept.before, len(wanted))
    while len(found) < len(wanted):
        name, outcome = kept.next()
        found[name] = Outcome(name, None, outcome.reason) if isinstance(outcome, Failed) else outcome
        seen(found[name])
        if len(found) > kept.before:
            progress(len(found), len(wanted))
    return found
