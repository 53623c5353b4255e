"""All that a comparison says, as plain data with stable keys: what the table, the report and scripts read."""

import platform
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict

import numpy as np

from kvplan.sim.assumptions import assumptions
from kvplan.sim.provenance import version
from kvplan.sim.report import compare_words
from kvplan.sim.report.alike import without_figures
from kvplan.sim.report.metric_names import metric
from kvplan.sim.sweep import stats
from kvplan.sim.sweep.compare import MONEY, SERVICE, Compared, Sweep, baseline_of
from kvplan.sim.sweep.runs import Outcome


def account(compared: Compared) -> dict:
    """Means with intervals, what can be told apart and in which words, as strict JSON."""
    sweep, outcomes = compared.sweep, compared.outcomes
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


def _warnings(sweep: Sweep, outcomes: Mapping[str, Outcome], labels: Iterable[str]) -> list[dict]:
    """What the runs of the labels warn of: text and the variants that it holds for. A warning that another replication gives with other
    figures is the same."""
    found: dict[str, dict[str, list[str]]] = {}
    for label in labels:
        for run in (run for run in sweep.runs if run.variant == label):
            for text in outcomes[run.digest].warnings:
                found.setdefault(without_figures(text), {}).setdefault(label, []).append(text)
    return [
        {"text": next(iter(by_label.values()))[0], "variants": list(by_label), "runs": sum(map(len, by_label.values()))}
        for by_label in found.values()
    ]


def _lacking(labels: Sequence[str], metric: str) -> list[str]:
    """A note on variants that lack the metric."""
    return [f"not ranked, for want of {metric} in some or all replications: {', '.join(labels)}"] if labels else []


def _moved(sweep: Sweep, baseline: str | None) -> list[str]:
    """A note when the differences are not to the baseline that was asked for."""
    wanted = baseline_of(sweep.variants, sweep.question.baseline)
    return [] if baseline in (None, wanted) else [f"the baseline {wanted} has nothing to compare with, so differences are to {baseline}"]


def _failures(sweep: Sweep, outcomes: Mapping[str, Outcome]) -> list[dict]:
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
    baseline = baseline_of(sweep.variants, sweep.question.baseline)
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
    return stats.pairs({label: columns[key] for label, columns in values.items()}, metric(key).relative)


def _words(sweep: Sweep, values: dict[str, dict[str, list[float]]]) -> list[str]:
    """The verdict by the metric; and by money, when nobody asked for a metric of his own."""
    lines = []
    for key in dict.fromkeys([sweep.metric, *[MONEY] * (sweep.question.metric is None)]):
        known = {label: columns for label, columns in values.items() if key in columns}
        means = {label: float(np.mean(columns[key])) for label, columns in known.items()}
        lines += compare_words.verdict(key, means, _pairs(key, known), _losses(key, known))
    return lines


def _losses(key: str, values: dict[str, dict[str, list[float]]]) -> compare_words.Losses:
    """What a variant that is better by a measure costs in service and in money."""

    def losses(better: str, worse: str) -> list[str]:
        others = [other for other in (SERVICE, MONEY) if other != key and other in values[better] and other in values[worse]]
        said = [compare_words.lost(metric(other).name, stats.ratio(values[better][other], values[worse][other])) for other in others]
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
