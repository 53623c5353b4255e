"""`kvplan plan`."""

import re
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import typer

from kvplan.hwmodels.units import parse
from kvplan.sim.cli.deliver import deliver
from kvplan.sim.cli.progress import progress
from kvplan.sim.config import ConfigError
from kvplan.sim.files.ours import check_folder
from kvplan.sim.files.strictjson import dumps
from kvplan.sim.inputs import inputs
from kvplan.sim.planner.plan import Plan, plan
from kvplan.sim.planner.question import Question
from kvplan.sim.planner.sensitivity import robustness
from kvplan.sim.report import plan as report
from kvplan.sim.report import plandir
from kvplan.sim.sweep.axes import Axis
from kvplan.sim.sweep.pool import pool

DEFAULT = "chat-2026"
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
    if ttft_p95 is not None:
        overrides = [*overrides, f"slo.ttft_p95_s={_seconds(ttft_p95)}"]
    if horizon is not None:
        overrides = [*overrides, f"cost.horizon_years={_years(horizon)}"]
    question = Question(config or DEFAULT, tuple(overrides), sessions_per_s, tuple(Axis.parse(text) for text in vary))
    if out is not None:
        check_folder(out, plandir.KIND, inputs(question.source, question.config()))
    with pool(jobs, cluster) as workers, progress("simulating", "runs") as bar:
        answered = plan(question, workers, bar)
        if sensitivity and answered.cheapest is not None:
            answered = replace(answered, robust=robustness(answered, workers, bar))
    found = report.data(answered)
    deliver(partial(_show, answered, found, json, flags), (out, lambda: plandir.write(answered, found, out)))
    if answered.cheapest is None:
        raise typer.Exit(NO_PLAN)


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
