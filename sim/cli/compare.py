"""`kvplan compare`."""

import sys
from collections.abc import Sequence
from pathlib import Path

import typer
from joblib import cpu_count

from kvplan.sim.cli.progress import progress, turns_of
from kvplan.sim.report import compare as report
from kvplan.sim.report import compare_figures, picture, rundir
from kvplan.sim.sweep.axes import Axis
from kvplan.sim.sweep.compare import Question, Sweep, compare, prepare
from kvplan.sim.sweep.runs import Records
from kvplan.sim.sweep.variants import eviction_policies


def run(
    config: str | None,
    overrides: Sequence[str],
    vary: Sequence[str],
    replications: int,
    jobs: int | None,
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
    if out is not None:
        check_folder(out, report.SUMMARY)
    if figure is not None:
        picture.check(figure)
    found = measured(prepare(question, turns_of), jobs, out)
    if out is not None and found["variants"]:
        report.write(found, out)
    if figure is not None and found["variants"]:
        rundir.write_file(figure, lambda path: compare_figures.draw(found, path))
    if json:
        sys.stdout.write(rundir.dumps(found))
    elif found["variants"]:
        report.print_comparison(found)
    for path in (out, figure):
        if path is not None and found["variants"]:
            print(f"wrote {path}", file=sys.stderr)
    report_failures(found)


def measured(sweep: Sweep, jobs: int | None, out: Path | None) -> dict:
    """Does the runs of a sweep, with a bar, and keeps them in `out`. Ctrl-C says what is kept, exit code 1."""
    records = Records(out)
    before = records.count(sweep.runs)
    if before:
        print(f"{before} of {len(sweep.runs)} runs were done before and are taken from {records.folder}", file=sys.stderr)
    try:
        with progress("simulating", "runs") as bar:
            return compare(sweep, records, jobs or cpu_count(), bar)
    except KeyboardInterrupt:
        done = records.count(sweep.runs)
        kept = f"{done} of {len(sweep.runs)} runs are kept in {records.folder}; the same command goes on from there"
        lost = "nothing is kept; with --out DIR finished runs are, and the same command goes on from there"
        print(f"kvplan: interrupted: {lost if out is None else kept}", file=sys.stderr)
        raise typer.Exit(1) from None


def report_failures(found: dict) -> None:
    """To stderr; exit code 1 when there are any."""
    for failure in found["failures"]:
        print(f"kvplan: {report.failure_text(failure)}", file=sys.stderr)
    if found["failures"]:
        raise typer.Exit(1)


def check_folder(out: Path, summary: str) -> None:
    """Before long work: that the files of a sweep can go there, and no others are there. Raises OutputError."""
    rundir.check_file(out / summary)
    if out.exists() and any(out.iterdir()) and not (out / "runs").is_dir() and not (out / summary).is_file():
        raise rundir.OutputError(f"will not write into {out}: it holds something else; name another --out")
