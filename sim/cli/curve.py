"""`kvplan curve`."""

import sys
from collections.abc import Sequence
from pathlib import Path

from kvplan.sim import config as configuration
from kvplan.sim.cli.compare import check_folder, measured, report_failures
from kvplan.sim.cli.progress import turns_of
from kvplan.sim.engine.plant import plant
from kvplan.sim.report import curve as report
from kvplan.sim.report import picture, rundir
from kvplan.sim.sweep.compare import Question
from kvplan.sim.sweep.curve import curve, prepare_curves


def run(
    config: str | None,
    overrides: Sequence[str],
    tier: str,
    sizes: str | None,
    policies: str,
    replications: int,
    jobs: int | None,
    out: Path | None,
    figure: Path | None,
    json: bool,
    resample: bool,
) -> None:
    """Simulates every policy at every size; prints, draws and writes the curves. Exit code 1 when a run failed."""
    question = Question(config, tuple(overrides), replications=replications, resample=resample)
    plant(configuration.load(config, overrides))  # what cannot run is refused first
    if out is not None:
        check_folder(out, report.SUMMARY)
    if figure is not None:
        picture.check(figure)
    asked = prepare_curves(question, tier, _names(sizes) if sizes else [], _names(policies), turns_of)
    compared = measured(asked.sweep, jobs, out)
    found = curve(asked, compared)
    if compared["variants"]:
        _deliver(found, out, figure, json)
    report_failures(found)


def _names(text: str) -> list[str]:
    return [part.strip() for part in text.split(",")]


def _deliver(found: dict, out: Path | None, figure: Path | None, json: bool) -> None:
    if out is not None:
        report.write(found, out)
    if figure is not None:
        rundir.write_file(figure, lambda path: report.draw(found, path))
    if json:
        sys.stdout.write(rundir.dumps(found))
    else:
        report.print_curve(found)
    for path in (out, figure):
        if path is not None:
            print(f"wrote {path}", file=sys.stderr)
