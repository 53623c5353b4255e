"""A run against recomputation: replications of both, with the same seeds, tell which differences are more than chance.

Replication 0 is the run itself. Another seed draws other sessions; those of a trace are drawn from it with replacement. Measures are
compared by the logarithm of their ratio (`kvplan.sim.sweep.stats.ratio`).
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from typing import Any

from kvplan.sim.build_workload import build_workload
from kvplan.sim.config import Config
from kvplan.sim.metrics.intervals import intervals
from kvplan.sim.metrics.thinned import thinned
from kvplan.sim.simulation import Result, simulate
from kvplan.sim.sweep.measures import numbers
from kvplan.sim.sweep.pool import Failed, Pool, SweepError
from kvplan.sim.sweep.runs import replicated, same_runs, sessions_to_draw
from kvplan.sim.sweep.stats import ratio
from kvplan.traces import Workload

REPLICATIONS = 8
"""Of the default preset they take about five seconds on one core."""
_RANGES = ("ttft_s.mean", "ttft_s.p95")


def recomputation(
    result: Result,
    replications: int = REPLICATIONS,
    recorded: Workload | None = None,
    pool: Pool | None = None,
    report: Callable[[int, int], None] = lambda done, total: None,
) -> dict:
    """The summary of the same run without a store, with its `intervals` and its `series` over time, and under `difference` what tells the
    two apart: `ratio`, of this run to recomputation by the dotted path of a measure, with its 95 % interval and p, and the `range` of TTFT
    over the seeds.

    `recorded`: the trace, where it was read before. Where nothing is drawn at random there is one replication, and no interval.
    `report(done, total)` counts replications. Raises SweepError when one cannot be done.
    """
    config = result.config
    without = simulate(config.recompute(), result.workload)
    report(1, replications)
    seeds, ours, theirs = [config.seed], [numbers(result.summary)], [numbers(without.summary)]
    draw = sessions_to_draw(config, result.workload)
    if not same_runs(config, build_workload(replicated(config, 1, draw), recorded=recorded), result.workload):
        others = [replicated(config, replication, draw) for replication in range(1, replications)]
        found = _all(pool or Pool(), partial(_both, recorded), others, lambda done: report(1 + done, replications))
        for other, (one, same) in zip(others, found, strict=True):
            seeds.append(other.seed)
            ours.append(one)
            theirs.append(same)
    difference = {"replications": len(seeds), "seeds": seeds, **_differences(ours, theirs)}
    return {**without.summary, "intervals": intervals(without), "series": thinned(without.series), "difference": difference}


def _all(pool: Pool, function: Callable, arguments: Sequence, report: Callable[[int], None]) -> list:
    """What a function gives for each argument, in order. Raises SweepError."""
    for place, argument in enumerate(arguments):
        pool.submit(place, function, argument)
    found: dict[int, Any] = {}
    while len(found) < len(arguments):
        place, one = pool.next()
        if isinstance(one, Failed):
            raise SweepError(one.reason)
        found[place] = one
        report(len(found))
    return [found[place] for place in range(len(arguments))]


def _both(recorded: Workload | None, config: Config) -> tuple[dict[str, float], dict[str, float]]:
    """The measures of a run, and of the same without a store."""
    workload = build_workload(config, recorded=recorded)
    return numbers(simulate(config, workload).summary), numbers(simulate(config.recompute(), workload).summary)


def losses(difference: dict) -> list[str]:
    """What a store must not do: TTFT that is worse with it, beyond chance."""
    worse = [name for name, key in (("mean", "ttft_s.mean"), ("p95", "ttft_s.p95")) if _above_one(difference["ratio"].get(key))]
    return [f"TTFT ({' and '.join(worse)}) is worse with this store than with none"] * bool(worse)


def _above_one(found: dict | None) -> bool:
    return found is not None and found["low"] is not None and found["low"] > 1


def _differences(ours: list[dict[str, float]], theirs: list[dict[str, float]]) -> dict:
    """Of the measures that every run has."""
    ratios = {}
    for key in ours[0]:
        if all(key in run for run in [*ours, *theirs]):
            found = ratio([run[key] for run in ours], [run[key] for run in theirs])
            if found is not None:
                ratios[key] = asdict(found)
    ranges = {key: {"this_run": _range(ours, key), "recompute": _range(theirs, key)} for key in _RANGES}
    return {"ratio": ratios, "range": ranges}


def _range(runs: list[dict[str, float]], key: str) -> list[float]:
    values = [run[key] for run in runs]
    return [min(values), max(values)]
