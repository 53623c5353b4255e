"""Variants side by side: replications, means with intervals, what can be told apart, and all of it as plain data."""

import difflib
import platform
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from sim.config import Config, ConfigError
from sim.engine.workload import build_workload
from sim.provenance import version
from sim.sweep import stats, words
from sim.sweep.axes import Axis
from sim.sweep.digest import digest
from sim.sweep.runs import Outcome, Records, Run, perform, replicated
from sim.sweep.variants import Variant, read_workloads, variants
from traces import Workload

MAIN = "hit_rate.resumed"
_NAMED = 3


@dataclass(frozen=True)
class Question:
    """What to compare."""

    source: str | None = None
    """Preset or file, as `sim.config.load` takes it."""
    overrides: tuple[str, ...] = ()
    axes: tuple[Axis, ...] = ()
    replications: int = 5
    resample: bool = True
    """Whether the sessions of a trace are drawn anew for each replication."""
    metric: str = MAIN
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


def prepare(question: Question, read: Callable[[Config], Workload] = build_workload) -> Sweep:
    """Resolves and checks everything, and reads the workloads once. Raises ConfigError and TraceError."""
    found = variants(question.source, question.overrides, question.axes)
    _baseline(found, question.baseline)
    workloads = read_workloads(found, read)
    runnable = [variant for variant in found if variant.failure is None]
    sessions = {variant.label: _bootstrap(variant.config, workloads[variant.label], question.resample) for variant in runnable}
    count, notes = question.replications, []
    if count > 1 and runnable and not any(_varies(variant.config, sessions[variant.label]) for variant in runnable):
        count = 1
        notes.append("nothing is drawn at random, so there is only one replication")
    runs = []
    for variant in runnable:
        for replication in range(count):
            config = replicated(variant.config, replication, sessions[variant.label])
            runs.append(Run(variant.label, replication, config, digest(config)))
    return Sweep(question, tuple(found), tuple(runs), count, tuple(notes))


def compare(sweep: Sweep, records: Records, jobs: int = 1, progress: Callable[[int, int], None] = lambda done, total: None) -> dict:
    """Does the runs and says what they mean, as strict JSON. Raises ConfigError for an unknown metric, SweepError and OutputError."""
    outcomes = perform(sweep.runs, records, jobs, progress, lambda outcome: _check_metric(outcome, sweep.question.metric))
    failures = _failures(sweep, outcomes)
    failed = {failure["variant"] for failure in failures}
    values = {
        variant.label: _columns([outcomes[run.digest].values for run in sweep.runs if run.variant == variant.label])
        for variant in sweep.variants
        if variant.label not in failed
    }
    return {
        "metric": sweep.question.metric,
        "replications": sweep.replications,
        "axes": [{"paths": list(axis.paths), "values": [list(point) for point in axis.points]} for axis in sweep.question.axes],
        **_judged(sweep, values),
        "failures": failures,
        "notes": list(sweep.notes),
        "provenance": _provenance(sweep),
    }


def _bootstrap(config: Config, workload: Workload, wanted: bool) -> int | None:
    """Sessions to draw for each replication from a trace; None where there is nothing to draw from, or the user says how many."""
    if not wanted or config.workload.trace is None or config.workload.rescale.resample is not None:
        return None
    return workload.sessions


def _varies(config: Config, sessions: int | None) -> bool:
    """Whether two seeds give two workloads."""
    if config.workload.trace is None or sessions is not None:
        return True
    one, other = (build_workload(replicated(config, replication, None)) for replication in (0, 1))
    columns = ("session", "prompt_tokens", "output_tokens", "arrival_s", "gap_s")
    return not all(np.array_equal(getattr(one, name), getattr(other, name), equal_nan=name.endswith("_s")) for name in columns)


def _baseline(found: Sequence[Variant], wanted: str | None) -> str:
    """The label that is meant. Raises ConfigError."""
    if wanted is None:
        return found[0].label
    labels = [variant.label for variant in found]
    matching = [variant.label for variant in found if wanted == variant.label or wanted in variant.point.overrides]
    if len(matching) == 1:
        return matching[0]
    near = difflib.get_close_matches(wanted, labels, n=_NAMED, cutoff=0.3) or labels[:_NAMED]
    problem = f"{len(matching)} variants have" if matching else "no variant is"
    raise ConfigError(f"--baseline {wanted}: {problem} this; write a label, for example {' or '.join(map(repr, near))}")


def _check_metric(outcome: Outcome, metric: str) -> None:
    if outcome.values is not None and metric not in outcome.values:
        near = difflib.get_close_matches(metric, outcome.values, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise ConfigError(f"--metric {metric}: a run has no such measure: {hint}for example {MAIN}, ttft_s.p95, cost_usd.total")


def _failures(sweep: Sweep, outcomes: dict[str, Outcome]) -> list[dict]:
    """One entry for each variant that cannot run (0 replications), or failed in any replication."""
    found = []
    for variant in sweep.variants:
        reasons = [variant.failure] if variant.failure else []
        reasons += [failure for run in sweep.runs if run.variant == variant.label and (failure := outcomes[run.digest].failure)]
        if reasons:
            settings = dict(variant.point.settings)
            count = 0 if variant.failure else len(reasons)
            found.append({"variant": variant.label, "settings": settings, "replications": count, "reason": reasons[0]})
    return found


def _columns(records: Sequence[dict[str, float]]) -> dict[str, list[float]]:
    """Measure -> its value in each replication, where all have one."""
    return {key: [record[key] for record in records] for key in records[0] if all(key in record for record in records)}


def _judged(sweep: Sweep, values: dict[str, dict[str, list[float]]]) -> dict:
    """Baseline, variants, pairs and words."""
    metric, replications = sweep.question.metric, sweep.replications
    if not values:
        return {"baseline": None, "variants": [], "pairs": [], "words": []}
    baseline = _baseline(sweep.variants, sweep.question.baseline)
    baseline = baseline if baseline in values else next(iter(values))
    pairs = stats.pairs({label: columns[metric] for label, columns in values.items()})
    means = {label: float(np.mean(columns[metric])) for label, columns in values.items()}
    points = {variant.label: variant.point for variant in sweep.variants}
    return {
        "baseline": baseline,
        "variants": [
            {
                "label": label,
                "settings": dict(points[label].settings),
                "runs": [run.digest for run in sweep.runs if run.variant == label],
                "seeds": [run.config.seed for run in sweep.runs if run.variant == label],
                "values": columns,
                "mean": {key: float(np.mean(numbers)) for key, numbers in columns.items()},
                "half_width": {key: stats.estimate(numbers).half_width for key, numbers in columns.items()},
                "difference": {
                    key: _plain(stats.paired(numbers, values[baseline][key])) for key, numbers in columns.items() if key in values[baseline]
                },
            }
            for label, columns in values.items()
        ],
        "pairs": [
            {"first": pair.first, "second": pair.second, **_plain(pair.difference), "p_holm": pair.p_holm, "apart": pair.apart}
            for pair in pairs
        ],
        "words": words.verdict(metric, means, pairs, replications),
    }


def _plain(difference: stats.Estimate) -> dict[str, float | None]:
    return {"mean": difference.mean, "half_width": difference.half_width, "p": difference.p}


def _provenance(sweep: Sweep) -> dict:
    config = sweep.variants[0].config
    return {
        "kvplan": version(),
        "python": platform.python_version(),
        "seed": config.seed,
        "resampled": any(run.config.workload.rescale.resample is not None for run in sweep.runs),
        "statistics": "paired t over replications with common random numbers, intervals 95 %, Holm over all pairs at 5 %",
        "config": config.resolved(),
    }
