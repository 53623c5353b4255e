"""`kvplan explain`."""

import sys

from kvplan.sim import config as configuration
from kvplan.sim.analytic.explain import explain
from kvplan.sim.cli.progress import progress, turns_of
from kvplan.sim.deployment import resolve
from kvplan.sim.files.strictjson import dumps
from kvplan.sim.report import explain as text
from kvplan.sim.settings import in_vain, unused


def run(config: str | None, overrides: list[str], json: bool) -> None:
    """Prints what a configuration means before it runs."""
    loaded = configuration.load(config, overrides)
    workload = turns_of(loaded)
    deployment = resolve(loaded, workload)
    with progress("explaining") as report:
        found = explain(loaded, deployment, workload, report)
    found["warnings"] += in_vain(configuration.named(overrides), unused(loaded, workload))
    if json:
        sys.stdout.write(dumps(found))
    else:
        text.print_explanation(found)
