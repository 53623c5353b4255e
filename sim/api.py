"""Comparisons, curves and plans for scripts and notebooks: `kvplan.compare`, `kvplan.curve` and `kvplan.plan`.

They prepare and do the same runs as the commands of these names, and give what `--json` prints, in an object that knows how to be a table.
"""

import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from operator import attrgetter
from os import PathLike
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from kvplan.sim.config import Config, Overrides, load
from kvplan.sim.inputs import load_policies
from kvplan.sim.planner import plan as plans
from kvplan.sim.planner.plan import Plan
from kvplan.sim.planner.probe import Seen
from kvplan.sim.planner.sensitivity import robustness
from kvplan.sim.replay.blockcurve import block_curve, why_sessions
from kvplan.sim.report import blockcurve_account, compare_account, curve_account
from kvplan.sim.sweep import compare as sweeps
from kvplan.sim.sweep import curve as curves
from kvplan.sim.sweep.axes import Axis
from kvplan.sim.sweep.compare import Question
from kvplan.sim.sweep.kept_runs import Kept, KeptRuns
from kvplan.sim.sweep.pool import pool
from kvplan.sim.sweep.runs import Outcome
from kvplan.sim.sweep.variants import eviction_policies

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

Progress = Callable[[int, int], None]
"""Called with the runs that are done, and with their number."""


def _silent(done: int, total: int) -> None:
    """No progress."""


@dataclass(frozen=True, repr=False)
class Comparison:
    """Variants side by side."""

    data: dict[str, Any]
    """What `kvplan compare --json` prints: variants with their means and intervals, pairs, words, failures."""

    def to_frame(self) -> "pd.DataFrame":
        """One row per run: variant, settings, replication, seed, and every measure; the rows of compare.csv."""
        import pandas as pd

        from kvplan.sim.report import compare as report

        return pd.DataFrame(report.run_rows(self.data))

    def figure(self) -> "Figure":
        """The picture of `kvplan compare --figure`: hits, TTFT, throughput and cost of each variant, with intervals."""
        from kvplan.sim.report import compare_figures

        return compare_figures.draw(self.data)

    def __repr__(self) -> str:
        from kvplan.sim.report import compare as report

        return f"<Comparison: {report.title(self.data)}>"

    def _repr_html_(self) -> str:
        """For notebooks: what `kvplan compare` prints."""
        from kvplan.sim.report import compare as report

        return report.html(self.data)


@dataclass(frozen=True, repr=False)
class Curve:
    """Hit rate and TTFT over the size of a tier, or of blocks (`store.unit: block`) the hit rate of all prompt tokens."""

    data: dict[str, Any]
    """What `kvplan curve --json` prints."""

    @property
    def _words(self) -> ModuleType:
        from kvplan.sim.report import curves as report

        return report.words(self.data)

    def to_frame(self) -> "pd.DataFrame":
        """One row per policy and size, means over replications with the half-widths of their intervals; the rows of curve.csv."""
        import pandas as pd

        return pd.DataFrame(self._words.point_rows(self.data))

    def figure(self) -> "Figure":
        """The picture of `kvplan curve --figure`: hits and TTFT over the size, a line a policy."""
        return self._words.draw(self.data)

    def __repr__(self) -> str:
        return f"<Curve: {self._words.title(self.data)}, {len(self.data['lines'])} policies at {len(self.data['sizes'])} sizes>"

    def _repr_html_(self) -> str:
        """For notebooks: what `kvplan curve` prints."""
        from kvplan.sim.report import curves as report

        return report.html(self.data)


def compare(
    config: Config | str | PathLike[str] | None = None,
    vary: Mapping[str, Iterable[Any]] | None = None,
    *,
    replications: int = 5,
    jobs: int | None = None,
    cluster: str | None = None,
    metric: str | None = None,
    baseline: str | None = None,
    resample: bool = True,
    keep: Path | None = None,
    progress: Progress = _silent,
) -> Comparison:
    """Runs variants of a configuration (as `kvplan.load` takes it) side by side.

    `vary`: values by path, `{"store.eviction": ["lru", "fifo"], "store.dram+store.ssd": [("64GB", "1TB"), ("0GB", "0GB")]}`; all eviction
    policies when not given. `jobs`: processes, all cores when not given. `cluster`: "dask" or "ray" (`kvplan.sim.sweep.pool`). `keep`: a
    folder for finished runs, so that the same call goes on from there; what cannot be kept is a warning. Raises ConfigError, TraceError,
    SweepError and OutputError.
    """
    axes = tuple(Axis.of(paths, values) for paths, values in vary.items()) if vary else (eviction_policies(),)
    sweep = sweeps.prepare(Question(config, (), axes, replications, resample, metric, baseline))
    return Comparison(_compared(sweep, keep, jobs, cluster, progress))


def _compared(sweep: sweeps.Sweep, keep: Path | None, jobs: int | None, cluster: str | None, progress: Progress) -> dict[str, Any]:
    records = KeptRuns(keep, Outcome)
    with pool(jobs, cluster, len(sweep.runs) - records.count(run.digest for run in sweep.runs)) as workers:
        found = compare_account.account(sweeps.compare(sweep, records, workers, progress))
    if records.fault is not None:
        warnings.warn(str(records.fault), stacklevel=3)
    return found


def curve(
    config: Config | str | PathLike[str] | None = None,
    tier: str | None = None,
    sizes: Sequence[str] = (),
    policies: Sequence[str] = (),
    *,
    replications: int = 5,
    jobs: int | None = None,
    cluster: str | None = None,
    resample: bool = True,
    keep: Path | None = None,
    progress: Progress = _silent,
) -> Curve:
    """Hit rate and TTFT against the size of `dram` or `ssd`, for several eviction policies.

    `sizes`: with units, `["64GB", "128GB"]`; powers of two when not given. The rest is as for `compare`. Where servers keep
    blocks (`store.unit: auto`), and with `store.unit: block`, requests are replayed through caches of blocks, by the rules of `store.mode`;
    nothing is simulated, and what is said of runs is of no use. Policies are then the engine's own and those of `store.eviction`, and
    `optimal`, the most that any could hit.
    """
    loaded = config if isinstance(config, Config) else load(config)
    if why_sessions(loaded, tier) is None:
        return Curve(blockcurve_account.account(block_curve(loaded, tier, sizes, policies)))
    asked = curves.prepare_curves(
        Question(config, replications=replications, resample=resample), tier or curves.TIER, sizes, policies or curves.POLICIES
    )
    return Curve(curve_account.account(asked, _compared(asked.sweep, keep, jobs, cluster, progress)))


PLANNED = "chat-2026"
"""The preset that is planned for when nobody says."""


def plan(
    config: Config | str | PathLike[str] | None = None,
    vary: Mapping[str, Iterable[Any]] | None = None,
    *,
    overrides: Overrides = (),
    sessions_per_s: float | None = None,
    sensitivity: bool = False,
    jobs: int | None = None,
    cluster: str | None = None,
    keep: Path | None = None,
    progress: Progress = _silent,
    **objectives: float,
) -> Plan:
    """The fewest GPUs, and the cheapest DRAM and SSD, that meet a target at a load; what `kvplan plan` prints.

    `objectives`: settings of `slo`, `ttft_p95_s=0.5`, on top of the configuration's. `sessions_per_s`: of the whole service, else the
    configuration's. `vary`: stores to try; sizes that the node offers when not given. `sensitivity`: also plans again with other inputs.
    The rest is as for `compare`.
    """
    axes = tuple(Axis.of(paths, values) for paths, values in (vary or {}).items())
    records = KeptRuns(keep, Seen)
    found = answer(asked(config, overrides, axes, sessions_per_s, **objectives), records, sensitivity, jobs, cluster, progress)
    if records.fault is not None:
        warnings.warn(str(records.fault), stacklevel=2)
    return found


def asked(
    config: Config | str | PathLike[str] | None,
    overrides: Overrides,
    axes: Sequence[Axis],
    sessions_per_s: float | None,
    **objectives: float,
) -> plans.Question:
    """What a plan is the answer to."""
    given = overrides.items() if isinstance(overrides, Mapping) else overrides
    aims = [(f"slo.{name}", limit) for name, limit in objectives.items()]
    return plans.Question(PLANNED if config is None else config, (*given, *aims), sessions_per_s, tuple(axes))


def answer(
    question: plans.Question, records: KeptRuns, sensitivity: bool, jobs: int | None, cluster: str | None, progress: Progress
) -> Plan:
    """Answers it. Simulations that are done are taken from `records`, and kept there."""
    load_policies(question.config())
    with pool(jobs, cluster) as workers:
        kept = Kept(workers, records, attrgetter("digest"), lambda probe: {"seed": probe.config.seed})
        found = plans.plan(question, kept, progress)
        if sensitivity and found.cheapest is not None:
            found = replace(found, robust=robustness(found, kept, progress))
    return found
