"""`kvplan curve`."""

import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from kvplan.sim import config as configuration
from kvplan.sim.cli.compare import check_places, measured, report_failures
from kvplan.sim.cli.deliver import deliver
from kvplan.sim.cli.progress import turns_of
from kvplan.sim.deployment import resolve
from kvplan.sim.files.atomic import write_file
from kvplan.sim.files.strictjson import dumps
from kvplan.sim.inputs import inputs, load_policies
from kvplan.sim.report import curve as report
from kvplan.sim.report.curve_account import account
from kvplan.sim.sweep.compare import Question
from kvplan.sim.sweep.curve import prepare_curves
from kvplan.sim.sweep.kept_runs import KeptRuns
from kvplan.sim.sweep.runs import Outcome


def run(
    config: str | None,
    overrides: Sequence[str],
    tier: str,
    sizes: str | None,
    policies: str,
    replications: int,
    jobs: int | None,
    cluster: str | None,
    out: Path | None,
    figure: Path | None,
    json: bool,
    resample: bool,
) -> None:
    """Simulates every policy at every size; prints, draws and writes the curves. Exit code 1 when a run failed."""
    question = Question(config, tuple(overrides), replications=replications, resample=resample)
    loaded = configuration.load(config, overrides)
    load_policies(loaded)
    resolve(loaded)  # what cannot run is refused first
    check_places(out, figure, inputs(config, loaded))
    asked = prepare_curves(question, tier, _names(sizes) if sizes else [], _names(policies), turns_of)
    records = KeptRuns(out, Outcome)
    compared = measured(asked.sweep, records, jobs, cluster)
    found = account(asked, compared)
    if compared["variants"]:
        _deliver(found, out, figure, json)
    report_failures(found, records)


def _names(text: str) -> list[str]:
    return [part.strip() for part in text.split(",")]


def _deliver(found: dict, out: Path | None, figure: Path | None, json: bool) -> None:
    def show() -> None:
        if json:
            sys.stdout.write(dumps(found))
        else:
            report.print_curve(found)

    deliver(show, (out, partial(report.write_curve, found)), (figure, partial(write_file, write=partial(report.draw, found))))
