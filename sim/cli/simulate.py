"""`kvplan simulate`."""

import sys
from functools import partial
from pathlib import Path

from kvplan.sim import config as configuration
from kvplan.sim.cli.deliver import deliver
from kvplan.sim.cli.progress import progress, trace_of, turns_of
from kvplan.sim.config import Config
from kvplan.sim.engine.plant import plant
from kvplan.sim.engine.run import Result, simulate
from kvplan.sim.explain import slower_than_recomputing
from kvplan.sim.files.ours import check_folder
from kvplan.sim.files.strictjson import dumps
from kvplan.sim.inputs import inputs, load_policies
from kvplan.sim.metrics.intervals import intervals
from kvplan.sim.report import rundir, table
from kvplan.sim.sweep import against
from kvplan.sim.sweep.equalservice import equal_service

_TURNS_IN_ONE_PROCESS = 100_000


def run(config: str | None, overrides: list[str], out: Path | None, json: bool, baseline: bool, replications: int, equal: bool) -> None:
    """Runs the configuration, and recomputation beside it; prints and writes the result."""
    loaded = configuration.load(config, overrides)
    load_policies(loaded)
    if out is not None:
        check_folder(out, rundir.KIND, inputs(config, loaded))
    result, summary = _measured(loaded, replications, baseline, equal)
    deliver(partial(_show, summary, json), (out, lambda: rundir.write(result, summary, out)))


def _show(summary: dict, json: bool) -> None:
    if json:
        sys.stdout.write(dumps(summary))
    else:
        table.print_comparison(summary, summary.get("recompute"))


def _measured(config: Config, replications: int, baseline: bool, equal: bool) -> tuple[Result, dict]:
    """The run, and its summary: with recomputation beside it where there is a store, and with the load at equal service."""
    recorded = trace_of(config)
    workload = turns_of(config, recorded=recorded)
    with progress("simulating") as report:
        result = simulate(config, workload, report)
    summary = {**result.summary, "intervals": intervals(result)}
    summary["warnings"] = [*summary["warnings"], *slower_than_recomputing(config, plant(config, workload), workload)]
    if equal:
        with progress("looking for the load at equal service", "runs") as report:
            summary["equal_service"] = equal_service(config, workload, recorded=recorded, report=report)
    if baseline and summary["tiers"]:
        with progress("recomputing, and both again with other seeds", "replications") as report:
            summary["recompute"] = against.recomputation(result, replications, recorded, _jobs(result, replications), report)
        summary["warnings"] += against.losses(summary["recompute"]["difference"])
    return result, summary


def _jobs(result: Result, replications: int) -> int:
    """All cores where the runs take longer than processes to start."""
    from joblib import cpu_count

    return cpu_count() if result.workload.turns * replications > _TURNS_IN_ONE_PROCESS else 1
