"""`kvplan simulate`."""

import sys
from pathlib import Path

from sim import config as configuration
from sim.cli.progress import progress, spinner
from sim.engine.run import build_workload, simulate
from sim.report import rundir, table


def run(config: str | None, trace: str | None, format: str | None, overrides: list[str], out: Path | None, json: bool, baseline: bool) -> None:
    """Runs the configuration, and recomputation beside it; prints and writes the result."""
    if format is not None and trace is None:
        raise configuration.ConfigError("--format goes with --trace")
    given = {"trace": trace, "format": format}
    named = [f"workload.{name}={_quoted(value)}" for name, value in given.items() if value is not None]
    loaded = configuration.load(config, [*named, *overrides])
    if out is not None:
        rundir.check_writable(out)
    with spinner(f"reading {trace}" if trace else "drawing sessions"):
        workload = build_workload(loaded)
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


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
