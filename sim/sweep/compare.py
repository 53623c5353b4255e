"""Variants side by side: replications, means with intervals, what can be told apart, and all of it as plain data."""

import difflib
import platform
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from os import PathLike
from typing import Any

import numpy as np

from kvplan.sim.assumptions import assumptions
from kvplan.sim.config import Config, ConfigError
from kvplan.sim.provenance import version
from kvplan.sim.settings import unused
from kvplan.sim.sweep import measures, stats, words
from kvplan.sim.sweep.axes import Axis
from kvplan.sim.sweep.digest import digest
from kvplan.sim.sweep.pool import Pool
from kvplan.sim.sweep.records import Records
from kvplan.sim.sweep.runs import Outcome, Run, perform, replicated, same_runs, sessions_to_draw
from kvplan.sim.sweep.variants import Variant, read_workloads, variants
from kvplan.sim.workload import build_workload
from kvplan.traces import Workload

SERVICE, MONEY = "ttft_s.p95", "cost_usd.per_million_output_tokens"
"""What a verdict goes by when nobody names a metric or an objective."""
_NAMED = 3
_FIGURES = re.compile(r"[0-9][0-9.,]*")


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


def prepare(question: Question, read: Callable[[Config], Workload] = build_workload) -> Sweep:
    """Resolves and checks everything, and reads the workloads once. Raises ConfigError and TraceError."""
    found = variants(question.source, question.overrides, question.axes)
    _baseline(found, question.baseline)
    workloads = read_workloads(found, read)
    runnable = [variant for variant in found if variant.failure is None]
    sessions = {variant.label: _bootstrap(variant.config, workloads[variant.label], question.resample) for variant in runnable}
    count, notes = question.replications, []
    if count == 1:
        notes.append("1 replication: no intervals. --replications gives them.")
    elif runnable and not any(_varies(variant.config, sessions[variant.label]) for variant in runnable):
        count = 1
        notes.append("nothing is drawn at random, so there is only one replication")
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
        _unused(runnable, workloads),
    )


def _unused(found: Sequence[Variant], workloads: dict[str, Workload]) -> tuple[str, ...]:
    """Settings that none of them reads."""
    each = [set(unused(variant.config, workloads[variant.label])) for variant in found]
    return tuple(sorted(set.intersection(*each))) if each else ()


def _objective(config: Config) -> str:
    """What to rank by when nobody says: what the configuration aims at."""
    return "goodput_per_s" if config.slo.model_dump(exclude_none=True) else SERVICE


def compare(
    sweep: Sweep, records: Records, pool: Pool | None = None, progress: Callable[[int, int], None] = lambda done, total: None
) -> dict:
    """Does the runs and says what they mean, as strict JSON. Raises ConfigError for an unknown metric, SweepError and OutputError."""
    outcomes = perform(sweep.runs, records, pool or Pool(), progress, _Seeker(sweep))
    failures = _failures(sweep, outcomes)
    failed = {failure["variant"] for failure in failures}
    values = {
        variant.label: _columns([found for run in sweep.runs if run.variant == variant.label and (found := outcomes[run.digest].values)])
        for variant in sweep.variants
        if variant.label not in failed
    }
    lacking = [label for label, columns in values.items() if sweep.metric not in columns]
    judged = _judged(sweep, values, [label for label in values if label not in lacking])
    return {
        "metric": sweep.metric,
        "replications": sweep.replications,
        "axes": [{"paths": list(axis.paths), "values": [list(point) for point in axis.points]} for axis in sweep.question.axes],
        **judged,
        "warnings": _warnings(sweep, outcomes, values),
        "failures": failures,
        "notes": [*sweep.notes, *_lacking(lacking, sweep.metric), *_moved(sweep, judged["baseline"])],
        "unused_settings": list(sweep.unused),
        "assumptions": assumptions(sweep.variants[0].config),
        "provenance": _provenance(sweep),
    }


def _bootstrap(config: Config, workload: Workload, wanted: bool) -> int | None:
    """Sessions to draw for each replication from a trace; None where there is nothing to draw from, or the user says how many."""
    return sessions_to_draw(config, workload) if wanted else None


def _varies(config: Config, sessions: int | None) -> bool:
    """Whether two replications are two."""
    one, other = (build_workload(replicated(config, replication, sessions)) for replication in (0, 1))
    return not same_runs(config, one, other)


def _baseline(found: Sequence[Variant], wanted: str | None) -> str:
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


def _warnings(sweep: Sweep, outcomes: dict[str, Outcome], labels: Iterable[str]) -> list[dict]:
    """What the runs of the labels warn of: text and the variants that it holds for. A warning that another replication gives with other
    figures is the same."""
    found: dict[str, dict[str, list[str]]] = {}
    for label in labels:
        for run in (run for run in sweep.runs if run.variant == label):
            for text in outcomes[run.digest].warnings:
                found.setdefault(_FIGURES.sub("#", text), {}).setdefault(label, []).append(text)
    return [
        {"text": next(iter(by_label.values()))[0], "variants": list(by_label), "runs": sum(map(len, by_label.values()))}
        for by_label in found.values()
    ]


def _lacking(labels: Sequence[str], metric: str) -> list[str]:
    """A note on variants that lack the metric."""
    return [f"not ranked, for want of {metric} in some or all replications: {', '.join(labels)}"] if labels else []


def _moved(sweep: Sweep, baseline: str | None) -> list[str]:
    """A note when the differences are not to the baseline that was asked for."""
    wanted = _baseline(sweep.variants, sweep.question.baseline)
    return [] if baseline in (None, wanted) else [f"the baseline {wanted} has nothing to compare with, so differences are to {baseline}"]


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


def _judged(sweep: Sweep, values: dict[str, dict[str, list[float]]], ranked: Sequence[str]) -> dict:
    """Baseline, variants, pairs and words; the pairs and words of those that have the metric."""
    metric = sweep.metric
    if not values:
        return {"baseline": None, "variants": [], "pairs": [], "words": []}
    baseline = _baseline(sweep.variants, sweep.question.baseline)
    baseline = baseline if baseline in ranked else next(iter(ranked or values))
    pairs = _pairs(metric, {label: values[label] for label in ranked})
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
                "ratio": {
                    key: asdict(found)
                    for key, numbers in columns.items()
                    if key in values[baseline] and (found := stats.ratio(numbers, values[baseline][key]))
                },
            }
            for label, columns in values.items()
        ],
        "pairs": [
            {
                "first": pair.first,
                "second": pair.second,
                **_plain(pair.difference),
                "ratio": pair.ratio and asdict(pair.ratio),
                "p_holm": pair.p_holm,
                "apart": pair.apart,
            }
            for pair in pairs
        ],
        "words": _words(sweep, {label: values[label] for label in ranked}),
    }


def _pairs(key: str, values: dict[str, dict[str, list[float]]]) -> list[stats.Pair]:
    return stats.pairs({label: columns[key] for label, columns in values.items()}, measures.metric(key).relative)


def _words(sweep: Sweep, values: dict[str, dict[str, list[float]]]) -> list[str]:
    """The verdict by the metric; and by money, when nobody asked for a metric of his own."""
    lines = []
    for key in dict.fromkeys([sweep.metric, *[MONEY] * (sweep.question.metric is None)]):
        known = {label: columns for label, columns in values.items() if key in columns}
        means = {label: float(np.mean(columns[key])) for label, columns in known.items()}
        lines += words.verdict(key, means, _pairs(key, known), _losses(key, known))
    return lines


def _losses(key: str, values: dict[str, dict[str, list[float]]]) -> words.Losses:
    """What a variant that is better by a measure costs in service and in money."""

    def losses(better: str, worse: str) -> list[str]:
        others = [other for other in (SERVICE, MONEY) if other != key and other in values[better] and other in values[worse]]
        said = [words.lost(measures.metric(other).name, stats.ratio(values[better][other], values[worse][other])) for other in others]
        return [text for text in said if text]

    return losses


def _plain(difference: stats.Estimate) -> dict[str, float | None]:
    return {"mean": difference.mean, "half_width": difference.half_width, "p": difference.p}


def _provenance(sweep: Sweep) -> dict:
    config = sweep.variants[0].config
    return {
        "kvplan": version(),
        "python": platform.python_version(),
        "seed": config.seed,
        "resampled": any(run.config.workload.rescale.resample is not None for run in sweep.runs),
        "statistics": "paired t over replications with common random numbers, on logarithms of ratios for latencies, throughputs and costs;"
        " intervals 95 %, Holm over all pairs at 5 %",
        "config": config.resolved(),
    }
