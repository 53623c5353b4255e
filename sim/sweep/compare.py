"""Variants side by side: a question becomes runs, in replications, and they are done."""

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from typing import Any

from kvplan.sim import config as configuration
from kvplan.sim.build_workload import build_workload
from kvplan.sim.config import Config, ConfigError
from kvplan.sim.settings import in_vain, unused
from kvplan.sim.sweep.axes import Axis
from kvplan.sim.sweep.digest import digest
from kvplan.sim.sweep.kept_runs import KeptRuns
from kvplan.sim.sweep.pool import Pool
from kvplan.sim.sweep.runs import Outcome, Run, perform, replicated, same_runs, sessions_to_draw
from kvplan.sim.sweep.variants import Variant, read_workloads, variants
from kvplan.traces import Workload

SERVICE, MONEY = "ttft_s.p95", "cost_usd.per_million_output_tokens"
"""What a verdict goes by when nobody names a metric or an objective."""
_NAMED = 3


@dataclass(frozen=True)
class Question:
    """What to compare."""

    source: Config | str | PathLike[str] | None = None
    """Preset, file or configuration, as `kvplan.sim.config.load` takes it."""
    overrides: tuple[str | tuple[str, Any], ...] = ()
    """On top of it, as `kvplan.sim.config.load` takes them."""
    axes: tuple[Axis, ...] = ()
    replications: int = 5
    resample: bool = True
    """Whether the sessions of a trace are drawn anew for each replication."""
    metric: str | None = None
    """What to rank by; when not given goodput where the configuration has objectives, else TTFT."""
    baseline: str | None = None
    """A label, or `path=value` that only one variant has; the first variant when not given."""


@dataclass(frozen=True)
class Sweep:
    """Runs that are ready to be done."""

    question: Question
    variants: tuple[Variant, ...]
    runs: tuple[Run, ...]
    replications: int
    notes: tuple[str, ...]
    metric: str
    """What variants are ranked by."""
    unused: tuple[str, ...] = ()
    """Paths of settings that no variant reads."""


@dataclass(frozen=True)
class Compared:
    """A sweep with its runs done."""

    sweep: Sweep
    outcomes: Mapping[str, Outcome]
    """By the digest of the run."""


def prepare(question: Question, read: Callable[[Config], Workload] = build_workload) -> Sweep:
    """Resolves and checks everything, and reads the workloads once. Raises ConfigError and TraceError."""
    found = variants(question.source, question.overrides, question.axes)
    baseline_of(found, question.baseline)
    workloads = read_workloads(found, read)
    runnable = [variant for variant in found if variant.failure is None]
    sessions = {variant.label: _bootstrap(variant.config, workloads[variant.label], question.resample) for variant in runnable}
    count, notes = question.replications, list(dict.fromkeys(variant.note for variant in found if variant.note))
    if count == 1:
        notes.append("1 replication: no intervals. --replications gives them.")
    elif runnable and not any(_varies(variant.config, sessions[variant.label]) for variant in runnable):
        count = 1
        notes.append("nothing is drawn at random, so there is only one replication")
    unread = _unused(runnable, workloads)
    varied = [path for axis in question.axes for path in axis.paths]
    notes += in_vain([*configuration.named(question.overrides), *varied], unread)
    runs = []
    for variant in runnable:
        for replication in range(count):
            config = replicated(variant.config, replication, sessions[variant.label])
            runs.append(Run(variant.label, replication, config, digest(config)))
    return Sweep(
        question,
        tuple(found),
        tuple(runs),
        count,
        tuple(notes),
        question.metric or _objective(found[0].config),
        unread,
    )


def _unused(found: Sequence[Variant], workloads: dict[str, Workload]) -> tuple[str, ...]:
    """Settings that none of them reads."""
    each = [set(unused(variant.config, workloads[variant.label])) for variant in found]
    return tuple(sorted(set.intersection(*each))) if each else ()


def _objective(config: Config) -> str:
    """What to rank by when nobody says: what the configuration aims at."""
    return "goodput_per_s" if config.slo.model_dump(exclude_none=True) else SERVICE


def compare(
    sweep: Sweep, records: KeptRuns, pool: Pool | None = None, progress: Callable[[int, int], None] = lambda done, total: None
) -> Compared:
    """Does the runs. Raises ConfigError for an unknown metric, SweepError and OutputError."""
    return Compared(sweep, perform(sweep.runs, records, pool or Pool(), progress, _Seeker(sweep)))


def _bootstrap(config: Config, workload: Workload, wanted: bool) -> int | None:
    """Sessions to draw for each replication from a trace; None where there is nothing to draw from, or the user says how many."""
    return sessions_to_draw(config, workload) if wanted else None


def _varies(config: Config, sessions: int | None) -> bool:
    """Whether two replications are two."""
    one, other = (build_workload(replicated(config, replication, sessions)) for replication in (0, 1))
    return not same_runs(config, one, other)


def baseline_of(found: Sequence[Variant], wanted: str | None) -> str:
    """The label that is meant. Raises ConfigError."""
    if wanted is None:
        return found[0].label
    labels = [variant.label for variant in found]
    matching = [variant.label for variant in found if wanted == variant.label or wanted in variant.point.texts]
    if len(matching) == 1:
        return matching[0]
    near = difflib.get_close_matches(wanted, labels, n=_NAMED, cutoff=0.3) or labels[:_NAMED]
    problem = f"{len(matching)} variants have" if matching else "no variant is"
    raise ConfigError(f"--baseline {wanted}: {problem} this; write a label, for example {' or '.join(map(repr, near))}")


class _Seeker:
    """Looks for the metric in every outcome; raises ConfigError when each variant has had a run and none of them has it."""

    def __init__(self, sweep: Sweep) -> None:
        self._metric = sweep.metric
        self._variants: dict[str, set[str]] = {}
        """Digest of a run -> the variants that it is a run of."""
        for run in sweep.runs:
            self._variants.setdefault(run.digest, set()).add(run.variant)
        self._unseen = {run.variant for run in sweep.runs}
        self._measures: set[str] = set()

    def __call__(self, outcome: Outcome) -> None:
        self._unseen -= self._variants[outcome.digest]
        self._measures.update(outcome.values or ())
        if self._measures and not self._unseen and self._metric not in self._measures:
            near = difflib.get_close_matches(self._metric, sorted(self._measures), n=1)
            hint = f"did you mean {near[0]!r}? " if near else ""
            raise ConfigError(
                f"--metric {self._metric}: no run has such a measure: {hint}for example hit_rate.resumed, {SERVICE}, cost_usd.total"
            )
