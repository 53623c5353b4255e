"""`kvplan simulate`."""

import sys
from functools import partial
from pathlib import Path
from typing import Any

from kvplan.hwmodels.units import parse
from kvplan.sim import config as configuration
from kvplan.sim.analytic.warned import slower_than_recomputing
from kvplan.sim.assumptions import assumptions
from kvplan.sim.cli.deliver import deliver
from kvplan.sim.cli.progress import progress, trace_of, turns_of
from kvplan.sim.cli.talk import say
from kvplan.sim.config import Config, ConfigError
from kvplan.sim.deployment import resolve
from kvplan.sim.files.atomic import write_text
from kvplan.sim.files.ours import begins, check_file, check_folder
from kvplan.sim.files.strictjson import dumps, dumps_flat
from kvplan.sim.inputs import inputs, load_policies
from kvplan.sim.metrics.intervals import intervals
from kvplan.sim.report import rundir, table
from kvplan.sim.settings import in_vain, unused
from kvplan.sim.simulation import Result, simulate
from kvplan.sim.timeline import HEAD, Timeline, window

_TURNS_IN_ONE_PROCESS = 100_000
_SPAN = "60s"


def run(
    config: str | None,
    overrides: list[str],
    out: Path | None,
    json: bool,
    baseline: bool,
    replications: int,
    equal: bool,
    timeline: Path | None,
    timeline_span: str | None,
) -> None:
    """Runs the configuration, and recomputation beside it; prints and writes the result."""
    span_s = _span_s(timeline, timeline_span)
    loaded = configuration.load(config, overrides)
    load_policies(loaded)
    if out is not None:
        check_folder(out, rundir.KIND, inputs(config, loaded))
    if timeline is not None:
        check_file(timeline, begins(HEAD), inputs(config, loaded))
    result, summary, watched = _measured(loaded, configuration.named(overrides), replications, baseline, equal, span_s)
    traced = [] if watched is None else [(timeline, partial(_write_timeline, watched))]
    deliver(partial(_show, summary, json), (out, partial(rundir.write_run, result, summary)), *traced)


def _span_s(timeline: Path | None, text: str | None) -> float | None:
    """Seconds that the timeline has; None without one. Raises ConfigError."""
    if timeline is None:
        if text is not None:
            raise ConfigError("--timeline-span goes with --timeline")
        return None
    try:
        span_s = parse(text or _SPAN, "seconds")
    except ValueError as error:
        raise ConfigError(f"--timeline-span: {error}") from None
    if span_s <= 0:
        raise ConfigError(f"--timeline-span: {text!r} is no span of time")
    return span_s


def _write_timeline(watched: Timeline, path: Path) -> None:
    write_text(path, dumps_flat(watched.trace))
    end_s = watched.end_s if watched.cut_at_s is None else watched.cut_at_s
    say(f"timeline: {watched.events:,} events, from {watched.begin_s:,.0f} s to {end_s:,.0f} s of the run")
    if watched.cut_at_s is not None:
        say("! as many events as a timeline may have: a shorter --timeline-span begins later and reaches further")


def _show(summary: dict, json: bool) -> None:
    if json:
        sys.stdout.write(dumps(summary))
    else:
        table.print_comparison(summary, summary.get("recompute"))


def _measured(
    config: Config, named: list[str], replications: int, baseline: bool, equal: bool, span_s: float | None
) -> tuple[Result, dict, Timeline | None]:
    """The run, and its summary: with recomputation beside it where there is a store, and the load at equal service; and its timeline.
    `named` are the settings that the command names."""
    recorded = trace_of(config)
    workload = turns_of(config, recorded=recorded)
    watched = None if span_s is None else Timeline(*window(workload, span_s))
    with progress("simulating") as report:
        result = simulate(config, workload, report, observer=watched)
    summary: dict[str, Any] = {
        **result.summary,
        "intervals": intervals(result),
        "unused_settings": unused(config, workload),
        "assumptions": assumptions(config),
    }
    summary["warnings"] = [
        *in_vain(named, summary["unused_settings"]),
        *summary["warnings"],
        *slower_than_recomputing(config, resolve(config, workload), workload),
    ]
    if equal:
        with progress("looking for the load at equal service", "runs") as report:
            from kvplan.sim.sweep.equalservice import equal_service

            summary["equal_service"] = equal_service(config, workload, recorded=recorded, report=report)
    if baseline and summary["tiers"]:
        from kvplan.sim.sweep import against
        from kvplan.sim.sweep.pool import pool

        with (
            pool(most=_tasks(result, replications)) as workers,
            progress("recomputing, and both again with other seeds", "replications") as report,
        ):
            summary["recompute"] = against.recomputation(result, replications, recorded, workers, report)
        summary["warnings"] += against.losses(summary["recompute"]["difference"])
    return result, summary, watched


def _tasks(result: Result, replications: int) -> int:
    """How many to do at once at most: one, unless the runs take longer than processes to start."""
    return replications - 1 if result.workload.turns * replications > _TURNS_IN_ONE_PROCESS else 1
