"""`kvplan plan`."""

import re
import sys
from functools import partial
from pathlib import Path

import typer

from kvplan.hwmodels.units import parse
from kvplan.sim.api import answer, asked
from kvplan.sim.cli.deliver import deliver
from kvplan.sim.cli.kept import interruptible
from kvplan.sim.cli.progress import progress
from kvplan.sim.cli.talk import say
from kvplan.sim.config import ConfigError
from kvplan.sim.files.ours import check_folder
from kvplan.sim.files.strictjson import dumps
from kvplan.sim.inputs import inputs
from kvplan.sim.planner.plan import Plan
from kvplan.sim.planner.probe import Seen
from kvplan.sim.planner.question import Question
from kvplan.sim.report import plan as report
from kvplan.sim.report import plandir
from kvplan.sim.sweep.axes import Axis
from kvplan.sim.sweep.kept_runs import KeptRuns

NO_PLAN = 3
"""Exit code."""


def run(
    config: str | None,
    overrides: list[str],
    ttft_p95: str | None,
    sessions_per_s: float | None,
    vary: list[str],
    horizon: str | None,
    sensitivity: bool,
    flags: bool,
    jobs: int | None,
    cluster: str | None,
    out: Path | None,
    json: bool,
) -> None:
    """Searches, prints and writes the answer. Exit code 3 when nothing meets the objectives."""
    aims = {} if ttft_p95 is None else {"ttft_p95_s": _seconds(ttft_p95)}
    years = [] if horizon is None else [("cost.horizon_years", _years(horizon))]
    question = asked(config, [*overrides, *years], [Axis.parse(text) for text in vary], sessions_per_s, **aims)
    if out is not None:
        check_folder(out, plandir.KIND, inputs(config, question.config()))
    records = KeptRuns(out, Seen)
    answered = _answered(question, records, sensitivity, jobs, cluster)
    found = report.data(answered)
    deliver(partial(_show, answered, found, json, flags), (out, partial(plandir.write_plan, answered, found)))
    _end(answered, records)


def _answered(question: Question, records: KeptRuns, sensitivity: bool, jobs: int | None, cluster: str | None) -> Plan:
    """The plan, with a bar. Ctrl-C says what is kept, exit code 1."""
    if before := records.total():
        say(f"{before} simulations are kept in {records.folder}; those that this plan needs are not done again")
    with (
        interruptible(records.folder, lambda: f"{records.total()} simulations", "simulations"),
        progress("simulating", "runs") as bar,
    ):
        return answer(question, records, sensitivity, jobs, cluster, bar)


def _end(answered: Plan, records: KeptRuns) -> None:
    """Options that failed to stderr; exit code 1 when there are any, 3 when there is no plan."""
    failed = [each for each in answered.answers if each.found.failed]
    for each in failed:
        say(f"kvplan: {each.option.label} failed: {each.found.reason}")
    if records.fault is not None:
        raise records.fault
    if failed or answered.cheapest is None:
        raise typer.Exit(1 if failed else NO_PLAN)


def _show(answered: Plan, found: dict, json: bool, flags: bool) -> None:
    if json:
        sys.stdout.write(dumps(found))
    else:
        report.print_plan(answered, flags)


def _seconds(text: str) -> float:
    try:
        return parse(text, "seconds")
    except ValueError as error:
        raise ConfigError(f"--ttft-p95: {error}") from None


def _years(text: str) -> float:
    """Of `3y` or `18mo`. Raises ConfigError."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(y|mo)", text.strip())
    if match is None:
        raise ConfigError(f"--horizon: {text!r} is no time to plan for: write 3y, or 18mo")
    return float(match[1]) / (12 if match[2] == "mo" else 1)
