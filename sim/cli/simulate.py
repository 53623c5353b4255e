"""`kvplan simulate`."""

import sys
from pathlib import Path

from kvplan.sim import config as configuration
from kvplan.sim.cli.progress import progress, turns_of
from kvplan.sim.engine.run import simulate
from kvplan.sim.report import rundir, table


def run(config: str | None, overrides: list[str], out: Path | None, json: bool, baseline: bool) -> None:
    """Runs the configuration, and recomputation beside it; prints and writes the result."""
    loaded = configuration.load(config, overrides)
    if out is not None:
        rundir.check_writable(out)
    workload = turns_of(loaded)
    with progress("simulating") as report:
        result = simulate(loaded, workload, report)
    summary = dict(result.summary)
    if baseline and summary["tiers"]:
        with progress("recomputing, to compare") as report:
            summary["recompute"] = simulate(loaded.recompute(), workload, report).summary
    if out is not None:
        rundir.write(result, summary, out)
    if json:
        sys.stdout.write(rundir.dumps(summary))
    else:
        table.print_comparison(summary, summary.get("recompute"))
    if out is not None:
        print(f"wrote {out}", file=sys.stderr)
