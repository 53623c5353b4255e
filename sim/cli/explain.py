"""`kvplan explain`."""

import sys

from sim import config as configuration
from sim.cli.progress import progress, turns_of
from sim.engine.plant import check, plant
from sim.explain import explain
from sim.report import explain as text
from sim.report import rundir


def run(config: str | None, overrides: list[str], json: bool) -> None:
    """Prints what a configuration means before it runs."""
    loaded = configuration.load(config, overrides)
    built = plant(loaded)
    workload = turns_of(loaded)
    check(loaded, built, workload)
    with progress("explaining") as report:
        found = explain(loaded, built, workload, report)
    if json:
        sys.stdout.write(rundir.dumps(found))
    else:
        text.print_explanation(found)
