"""`kvplan plan`."""

import re
import sys
from pathlib import Path

import typer
from joblib import cpu_count

from kvplan.hwmodels.units import parse
from kvplan.sim.cli.progress import progress
from kvplan.sim.config import ConfigError
from kvplan.sim.planner.plan import plan
from kvplan.sim.planner.question import Question
from kvplan.sim.report import plan as report
from kvplan.sim.report import rundir
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
    with pool(jobs or cpu_count(), cluster) as workers, progress("simulating", "runs") as bar:
        found = plan(question, workers, bar)
    if json:
        sys.stdout.write(rundir.dumps(report.data(found)))
    else:
        report.print_plan(found)
    if found.cheapest is None:
        raise typer.Exit(NO_PLAN)


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
