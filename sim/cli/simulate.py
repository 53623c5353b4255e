"""`kvplan simulate`."""

import sys
from pathlib import Path

from kvplan.sim import config as configuration
from kvplan.sim.cli.progress import progress, trace_of, turns_of
from kvplan.sim.config import Config
from kvplan.sim.engine.run import Result, simulate
from kvplan.sim.metrics.intervals import intervals
from kvplan.sim.report import rundir, table
from kvplan.sim.sweep import against


def run(config: str | None, overrides: list[str], out: Path | None, json: bool, baseline: bool, replications: int) -> None:
    """Runs the configuration, and recomputation beside it; prints and writes the result."""
    loaded = configuration.load(config, overrides)
    if out is not None:
        rundir.check_writable(out)
    result, summary = _measured(loaded, replications if baseline else 0)
    if out is not None:
        rundir.write(result, summary, out)
    if json:
        sys.stdout.write(rundir.dumps(summary))
    else:
        table.print_comparison(summary, summary.get("recompute"))
    if out is not None:
        print(f"wrote {out}", file=sys.stderr)


def _measured(config: Config, replications: int) -> tuple[Result, dict]:
    """The run, and its summary with recomputation beside it when that is to be replicated and there is a store."""
    recorded = trace_of(config)
    workload = turns_of(config, recorded=recorded)
    with progress("simulating") as report:
        result = simulate(config, workload, report)
    summary = {**result.summary, "intervals": intervals(result)}
    if replications and summary["tiers"]:
        with progress("recomputing, and both again with other seeds", "runs") as report:
            summary["recompute"] = against.recomputation(result, replications, recorded, report)
    return result, summary
