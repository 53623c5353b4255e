"""`kvplan validate paper` and `kvplan validate published`: runs the cases of a group, and prints ours beside theirs."""

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from kvplan.sim.files.atomic import WriteError, write_text
from kvplan.sim.report.page import render
from kvplan.sim.report.page.place import Cell
from kvplan.sim.sweep.pool import Failed, SweepError
from kvplan.validate.ending import FAILED, ended
from kvplan.validate.published import cases, measures, reconcile
from kvplan.validate.published.cases import Assumption, Case, CaseError
from kvplan.validate.published.implied import claims
from kvplan.validate.published.page import (
    CLAIMS,
    ERRORS,
    MISSES,
    NUMBERS,
    Group,
    Results,
    claim_rows,
    error_rows,
    finding,
    miss_rows,
    number_rows,
    page,
    short,
)
from kvplan.validate.published.runs import Figures, run_all
from kvplan.validate.show import show

CLAIMED = "05-end-to-end"
"""The case whose published numbers are held against each other."""
GROUPS = {
    "paper": Group(
        "The paper's results, simulated",
        "Settings fixed before a run was looked at, the same for all figures: those of the presets paper-13b, paper-65b and paper-70b"
        " (ShareGPT-90K lengths, 9,000 sessions at 1.0/s, no think time, 10K turns of warm-up, loads always, seed 1), and what a figure's"
        " own file says.",
        "kvplan validate paper --reconcile --html docs/figures/paper.html --markdown docs/paper.md",
    ),
    "published": Group(
        "Published measurements of other systems, simulated",
        "Settings from sources, one file a case, which says what is fitted to these numbers, and what was set otherwise after a run was"
        " looked at.",
        "kvplan validate published --reconcile --html docs/figures/published.html --markdown docs/published.md",
    ),
}


def main(group: str, argv: Sequence[str]) -> int:
    """0 when all ran, 1 when a run failed or a page cannot be written, 2 for a figure that is not known."""
    arguments = _parser(group).parse_args(argv)
    try:
        known = _known(group)
        wanted = {name: known[name] for name in (_named(asked, known) for asked in arguments.figure or known)}
        assumptions = cases.assumptions(group) if arguments.reconcile else {}
    except CaseError as error:
        return ended(group, error)
    if arguments.list:
        show(GROUPS[group].title, ["figure", "published numbers", "runs"], [_listed(name, case) for name, case in known.items()])
        return 0
    return _made(group, wanted, assumptions, arguments)


def _parser(group: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=f"kvplan validate {group}", description=GROUPS[group].title + ", beside the published numbers.")
    parser.add_argument("--list", action="store_true", help="list the figures")
    parser.add_argument("--figure", action="append", metavar="NAME", help="this one alone; may be given again")
    parser.add_argument("--reconcile", action="store_true", help="try assumptions where a number misses: six times the runs")
    parser.add_argument("--html", type=Path, metavar="FILE", help="write a page with pictures")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the same without pictures")
    parser.add_argument("--jobs", type=int, metavar="N", help="runs at once; all cores when not given")
    return parser


def _named(asked: str, known: Mapping[str, Case]) -> str:
    """A case by its name, with or without the number before it. Raises CaseError."""
    found = [name for name in known if asked in (name, short(name))]
    if not found:
        raise CaseError(f"there is no figure {asked!r}, only {', '.join(map(short, known))}")
    return found[0]


def _known(group: str) -> dict[str, Case]:
    return {name: cases.load(group, name) for name in cases.names(group)}


def _listed(name: str, case: Case) -> list[str]:
    return [f"{short(name)}: {case.title}", str(len(case.published)), str(len(measures.wanted(case)))]


def _made(group: str, wanted: Mapping[str, Case], assumptions: Mapping[str, Assumption], arguments: argparse.Namespace) -> int:
    try:
        results = simulated(group, wanted, assumptions, arguments.jobs)
        print_results(results)
        made = page(GROUPS[group], results)
        for path, write in ((arguments.html, render.html), (arguments.markdown, render.markdown)):
            if path is not None:
                write_text(path, write(made))
    except (SweepError, WriteError) as error:
        return ended(group, error, FAILED)
    return 1 if results.failures else 0


def simulated(
    group: str, wanted: Mapping[str, Case], assumptions: Mapping[str, Assumption], jobs: int | None = None, found: Figures | None = None
) -> Results:
    """All runs, and what comes of them; no assumptions, no trials. `found` has runs that are known already."""
    known, tried = _known(group), wanted if assumptions else {}
    runs = [settings for case in wanted.values() for settings in measures.wanted(case)]
    runs += [settings for case in tried.values() for settings in reconcile.wanted_trials(case, assumptions, known)]
    figures = run_all(runs, jobs, _progress, found)
    misses = [miss for name, case in tried.items() for miss in reconcile.misses(name, case, assumptions, known, figures)]
    failures = sorted({f"a run failed: {each.reason}" for each in figures.values() if isinstance(each, Failed)})
    return Results(
        dict(wanted),
        [cell for name, case in wanted.items() for cell in measures.cells(name, case, figures)],
        misses,
        claims(wanted[CLAIMED], figures) if CLAIMED in wanted and not failures else (),
        failures,
        [f"{name}: {assumption.about}." for name, assumption in assumptions.items()],
    )


def _progress(done: int, total: int) -> None:
    if sys.stderr.isatty():
        print(f"\r{done} of {total} runs", end="\n" if done == total else "", file=sys.stderr, flush=True)


def print_results(results: Results) -> None:
    """Each case, what would mend its misses, and a summary."""
    for name, case in results.cases.items():
        _show(case.title, NUMBERS[1:], [row[1:] for row in number_rows(results, name)])
    _show("What would bring a miss near, one assumption at a time", MISSES, miss_rows(results, lambda miss: miss.helpful[:1]))
    _show("What the published numbers say of each other", CLAIMS, claim_rows(results))
    _show("Errors by kind", ERRORS, error_rows(results))
    for line in (*finding(results), *results.failures):
        print(line)


def _show(title: str, heads: Sequence[str], rows: Sequence[Sequence[Cell]]) -> None:
    if rows:
        show(title, list(heads), [[cell.text for cell in row] for row in rows])
