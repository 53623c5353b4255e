"""Room for more sessions: the load at which a configuration with a store still serves as well as recomputation does at the present one.

Below saturation a cache shortens waiting, not the hours that are paid for; at equal service the same shows as sessions, and dollars, that
are saved. Service is TTFT's p95. Load is sessions per second, with think times and sessions as they are (`workload.rescale.rate`). In each
replication, with the same seed for all of its runs, recomputation at the present load sets the p95, and the largest load that keeps it is
found by bisection of the load's logarithm; a fixed number of runs, so that the result is the same anywhere. What is given is the geometric
mean over replications.

Left out: other objectives than TTFT's p95, servers of other sizes (see `deployment.replicas`), and that faster arrivals make the same
sessions a shorter run, in which a queue grows for less long.
"""

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass

import numpy as np

from kvplan.sim.build_workload import build_workload
from kvplan.sim.config import Config, ConfigError, without_clients
from kvplan.sim.deployment import resolve
from kvplan.sim.metrics.schema import Summary
from kvplan.sim.simulation import simulate
from kvplan.sim.sweep.runs import replicated, same_runs, sessions_to_draw
from kvplan.sim.sweep.stats import ratio
from kvplan.traces import Workload, rescale

REACH = 8.0
"""Loads are tried from an eighth of the present one to eight times it."""
STEPS = 6
"""Bisections of a replication: the next load that was tried, and missed the target, is 3 % higher."""
REPLICATIONS = 5
"""Of the default preset they take half a minute on one core."""


@dataclass(frozen=True)
class _Found:
    """Of one replication."""

    target_s: float
    """TTFT p95 of recomputation at the present load."""
    load: float
    """The largest tried that keeps the target, times the present one."""
    usd: float
    """Per million output tokens, at that load."""
    recompute_usd: float
    beyond: bool
    """Whether the answer lies beyond the loads that were tried."""
    overloaded: bool
    """Whether recomputation cannot keep up at the present load."""


def equal_service(
    config: Config,
    workload: Workload,
    replications: int = REPLICATIONS,
    recorded: Workload | None = None,
    report: Callable[[int, int], None] = lambda done, total: None,
) -> dict:
    """`load`: times the present load that the configuration bears at recomputation's TTFT p95; `cost`: its dollars per million output
    tokens there (for all of its work, where there are no answers), against recomputation's at the present load; both with a 95 % interval
    and p.

    `workload` is the configuration's, `recorded` the trace, where it was read before. `report(done, total)` counts runs. Raises ConfigError
    when there is no store, or no load to scale.
    """
    _check(config, workload)
    runs, done = STEPS + 2, 0

    def seen() -> None:
        nonlocal done
        done += 1
        report(done, runs * replications)

    draw, found, seeds = sessions_to_draw(config, workload), [], []
    for replication in range(replications):
        again = replicated(config, replication, draw)
        turns = build_workload(again, recorded=recorded) if replication else workload
        if replication and same_runs(config, turns, workload):
            break
        found.append(_search(again, turns, seen))
        seeds.append(again.seed)
    dollars = [one.usd for one in found], [one.recompute_usd for one in found]
    answers = bool(workload.output_tokens.any())
    return {
        "ttft_p95_s": found[0].target_s,
        "load": _ratio([one.load for one in found], [1.0] * len(found)),
        "loads": [one.load for one in found],
        "at_the_reach": sum(one.beyond for one in found),
        "usd_per_million_output_tokens": float(np.mean(dollars[0])) if answers else None,
        "recompute_usd_per_million_output_tokens": float(np.mean(dollars[1])) if answers else None,
        "cost": _ratio(*dollars),
        "recompute_overloaded": sum(one.overloaded for one in found),
        "replications": len(found),
        "seeds": seeds,
        "simulations": runs * len(found),
    }


def _ratio(ours: list[float], theirs: list[float]) -> dict | None:
    found = ratio(ours, theirs)
    return None if found is None else asdict(found)


def _check(config: Config, workload: Workload) -> None:
    without_clients(config, "equal service scales the sessions per second")
    if not resolve(config).tiers:
        raise ConfigError("equal service compares a store with recomputation, but no tier is switched on: set store.dram or store.ssd")
    if not np.ptp(workload.arrival_s[workload.first_turn[:-1]]):
        raise ConfigError("equal service scales the sessions per second, but all sessions arrive at one instant: set workload.arrival")


def _search(config: Config, turns: Workload, seen: Callable[[], None]) -> _Found:
    """Bisects between the present load and the end of the reach on the side where the answer lies."""

    def run(settings: Config, log_load: float) -> Summary:
        summary = simulate(settings, rescale.scaled_rate(turns, math.exp(log_load))).summary
        seen()
        return summary

    recompute, ours = run(config.recompute(), 0.0), run(config, 0.0)
    target = recompute["ttft_s"]["p95"]
    low, high = (0.0, math.log(REACH)) if ours["ttft_s"]["p95"] <= target else (-math.log(REACH), 0.0)
    for _ in range(STEPS):
        middle = (low + high) / 2
        tried = run(config, middle)
        if tried["ttft_s"]["p95"] <= target:
            low, ours = middle, tried
        else:
            high = middle
    costs = ours["cost_usd"], recompute["cost_usd"]
    usd, recompute_usd = (
        cost["total"] if cost["per_million_output_tokens"] is None else cost["per_million_output_tokens"] for cost in costs
    )
    overloaded = any(warning.startswith("overloaded") for warning in recompute["warnings"])
    return _Found(target, math.exp(low), usd, recompute_usd, math.log(REACH) in (-low, high), overloaded)
