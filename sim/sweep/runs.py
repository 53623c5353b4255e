"""The runs of a sweep: replications with common random numbers, in processes, each kept when it is done.

Replication r has the same seed in every variant; replication 0 is the configuration as it stands. In the others generated workloads are
drawn anew, and the sessions of a trace are drawn with replacement (bootstrap). A finished run is one file under its digest
(`kvplan.sim.sweep.digest`), so that a sweep that was cut off goes on where it was.

Processes come from joblib: its workers need no `if __name__ == "__main__"` in a user's script, and can be Dask's or Ray's on a cluster.
"""

import hashlib
import json
import os
import traceback
import warnings
import zlib
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TypeVar

import numpy as np

from kvplan.foreign import files
from kvplan.sim.config import Config
from kvplan.sim.engine.run import simulate
from kvplan.sim.engine.workload import build_workload
from kvplan.sim.files.atomic import WriteError, write_text
from kvplan.sim.files.ours import OutputError
from kvplan.sim.files.strictjson import dumps
from kvplan.sim.policies.registry import PolicyError
from kvplan.sim.sweep import workers
from kvplan.sim.sweep.measures import MeasureError, checked, measure
from kvplan.traces import Workload

RUNS = "runs"
"""Where finished runs are, in the folder of a sweep."""


Item = TypeVar("Item")
Found = TypeVar("Found")


class SweepError(RuntimeError):
    """The runs could not be done."""


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
    return None if config.workload.trace is None or config.workload.rescale.resample is not None else workload.sessions


def same_turns(one: Workload, other: Workload) -> bool:
    """Whether two replications have one workload."""
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


def do(run: Run) -> Outcome:
    """Simulates. A policy, or anything else, that fails is an outcome and not an error, so that the other runs go on."""
    try:
        result = simulate(run.config, _workload(WorkloadKey.of(run.config)))
        return Outcome(run.digest, checked(measure(result)), warnings=tuple(result.summary["warnings"]))
    except (PolicyError, MeasureError) as error:
        return Outcome(run.digest, None, str(error))
    except (Exception, SystemExit) as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{Path(last.filename).name}, line {last.lineno}, in {last.name}"
        return Outcome(run.digest, None, f"{type(error).__name__}: {error} ({where})")


def outcomes(runs: Sequence[Run], jobs: int) -> Generator[Outcome, None, None]:
    """Does the runs in up to `jobs` processes; yields them as they end. Raises SweepError when a process dies.

    Close it when not all are wanted: then the processes have ended.
    """
    return in_processes(do, runs, jobs, "generator_unordered")


def in_processes(work: Callable[[Item], Found], items: Sequence[Item], jobs: int, order: str = "generator") -> Generator[Found, None, None]:
    """What `work` gives for each item, in up to `jobs` processes, in order unless joblib's other `order` is asked for. As `outcomes`."""
    jobs = min(jobs, len(items))
    return _in_processes(work, items, jobs, order) if jobs > 1 else (work(item) for item in items)


def _in_processes(work: Callable[[Item], Found], items: Sequence[Item], jobs: int, order: str) -> Generator[Found, None, None]:
    import joblib
    from joblib.externals.loky import get_reusable_executor
    from joblib.externals.loky.process_executor import TerminatedWorkerError

    pool = joblib.Parallel(n_jobs=jobs, batch_size=1, return_as=order, initializer=workers.end_with, initargs=(os.getpid(),))
    done: Generator[Found, None, None] = (nothing for nothing in ())
    try:
        with workers.deaf():
            done = pool(joblib.delayed(work)(item) for item in items)
        for each in done:  # noqa: UP028 - `yield from` would close it here, where its warning is heard
            yield each
    except TerminatedWorkerError:
        raise SweepError("a process died, perhaps for want of memory: take fewer --jobs") from None
    finally:
        with warnings.catch_warnings(action="ignore", category=UserWarning):  # of runs that are cut off, which is meant
            done.close()
        get_reusable_executor(reuse=True).shutdown(kill_workers=True)  # the next sweep may find other code in a user's policy


def _sha256(values: dict[str, float]) -> str:
    """Of measures: tells a record that lacks some of them, or has others."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


class Records:
    """Finished runs in `out`/runs, one file each, written whole. Without a folder nothing is kept."""

    def __init__(self, out: Path | None = None) -> None:
        self.folder = None if out is None else out / RUNS
        """Made when the first run is kept."""
        self.fault: WriteError | None = None
        """Why a run could not be kept: a sweep goes on without."""

    def count(self, runs: Sequence[Run]) -> int:
        """How many of these runs are kept."""
        return 0 if self.folder is None else sum(self._path(run).exists() for run in runs)

    def load(self, run: Run) -> Outcome | None:
        """The outcome of a run that was done before. Raises OutputError when its record is none."""
        if self.folder is None:
            return None
        path = self._path(run)
        if not os.path.lexists(path):
            return None
        try:
            record = json.loads(files.read_text(path, files.TABLE_BYTES))
            values = checked(record["values"])
            if record["values_sha256"] != _sha256(values):
                raise ValueError("its values are not those that were written")
            return Outcome(run.digest, values, warnings=tuple(map(str, record["warnings"])))
        except files.UnreadableError as error:
            raise OutputError(str(error)) from None
        except KeyError as error:
            raise self._unreadable(run, f"it has no {error}") from None
        except (ValueError, TypeError, RecursionError) as error:
            raise self._unreadable(run, error) from None

    def _unreadable(self, run: Run, why: object) -> OutputError:
        return OutputError(f"cannot read {self._path(run)}: {why}; remove it to do this run again")

    def keep(self, run: Run, outcome: Outcome) -> None:
        """Writes what a run gave, or notes why not."""
        if self.folder is None:
            return
        record = {
            "variant": run.variant,
            "replication": run.replication,
            "seed": run.config.seed,
            "warnings": list(outcome.warnings),
            "values": outcome.values,
            "values_sha256": _sha256(outcome.values),
        }
        try:
            write_text(self._path(run), dumps(record))
        except WriteError as error:
            self.fault = error

    def _path(self, run: Run) -> Path:
        return self.folder / f"{run.digest}.json"


def perform(
    runs: Sequence[Run],
    records: Records,
    jobs: int,
    progress: Callable[[int, int], None] = lambda done, total: None,
    seen: Callable[[Outcome], None] = lambda outcome: None,
) -> dict[str, Outcome]:
    """Outcomes by digest; what `records` has is not done again.

    `progress(done, total)` counts runs; `seen(outcome)` gets each when it is there, and may raise. Raises SweepError and OutputError.
    """
    wanted = {run.digest: run for run in runs}
    found = {name: outcome for name, run in wanted.items() if (outcome := records.load(run))}
    for outcome in found.values():
        seen(outcome)
    missing = in_order([run for name, run in wanted.items() if name not in found])
    progress(len(found), len(wanted))
    with closing(outcomes(missing, jobs)) as done:
        for outcome in done:
            if outcome.values is not None:
                records.keep(wanted[outcome.digest], outcome)
            found[outcome.digest] = outcome
            seen(outcome)
            progress(len(found), len(wanted))
    return found
