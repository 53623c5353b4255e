"""`kvplan compare`."""

import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import typer

from kvplan.sim.cli.deliver import deliver
from kvplan.sim.cli.kept import interruptible
from kvplan.sim.cli.progress import progress, turns_of
from kvplan.sim.cli.talk import say
from kvplan.sim.files.atomic import write_file
from kvplan.sim.files.ours import check_folder
from kvplan.sim.files.strictjson import dumps
from kvplan.sim.inputs import inputs
from kvplan.sim.report import compare as report
from kvplan.sim.report import compare_figures, picture, sweepdir
from kvplan.sim.report.compare_account import account
from kvplan.sim.sweep.axes import Axis
from kvplan.sim.sweep.compare import Question, Sweep, compare, prepare
from kvplan.sim.sweep.kept_runs import KeptRuns
from kvplan.sim.sweep.pool import pool
from kvplan.sim.sweep.runs import Outcome
from kvplan.sim.sweep.variants import eviction_policies


def run(
    config: str | None,
    overrides: Sequence[str],
    vary: Sequence[str],
    replications: int,
    jobs: int | None,
    cluster: str | None,
    out: Path | None,
    figure: Path | None,
    json: bool,
    baseline: str | None,
    metric: str | None,
    resample: bool,
) -> None:
    """Compares variants of a configuration; prints and writes the result. Exit code 1 when a variant failed."""
    axes = tuple(Axis.parse(text) for text in vary) or (eviction_policies(),)
    question = Question(config, tuple(overrides), axes, replications, resample, metric, baseline)
    check_places(out, figure)
    sweep, records = prepare(question, turns_of), KeptRuns(out, Outcome)
    check_places(out, figure, inputs(config, *(variant.config for variant in sweep.variants)))
    found = measured(sweep, records, jobs, cluster)
    show, write, draw = partial(_show, found, json), partial(report.write_comparison, found), partial(_draw, found)
    deliver(show, *((out, write), (figure, draw)) if found["variants"] else ())
    report_failures(found, records)


def _draw(found: dict, figure: Path) -> None:
    write_file(figure, lambda path: compare_figures.draw(found, path))


def _show(found: dict, json: bool) -> None:
    if json:
        sys.stdout.write(dumps(found))
    elif found["variants"]:
        report.print_comparison(found)


def check_places(out: Path | None, figure: Path | None, read: Sequence[Path] = ()) -> None:
    """Before long work: that a sweep can be written there, and none of what it reads is there. Raises OutputError."""
    if out is not None:
        check_folder(out, sweepdir.KIND, read)
    if figure is not None:
        picture.check_picture(figure, read)


def measured(sweep: Sweep, records: KeptRuns, jobs: int | None, cluster: str | None) -> dict:
    """Does the runs of a sweep, with a bar. Ctrl-C says what is kept, exit code 1."""
    names = [run.digest for run in sweep.runs]
    before = records.count(names)
    if before:
        say(f"{before} of {len(names)} runs were done before and are taken from {records.folder}")
    with (
        interruptible(records.folder, lambda: f"{records.count(names)} of {len(names)} runs", "runs"),
        pool(jobs, cluster, len(names) - before) as workers,
        progress("simulating", "runs") as bar,
    ):
        return account(compare(sweep, records, workers, bar))


def report_failures(found: dict, records: KeptRuns) -> None:
    """To stderr; exit code 1 when there are any."""
    for failure in found["failures"]:
        say(f"kvplan: {report.failure_text(failure)}")
    if records.fault is not None:
        raise records.fault
    if found["failures"]:
        raise typer.Exit(1)
