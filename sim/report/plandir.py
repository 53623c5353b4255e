"""The folder of a plan, of `kvplan plan --out`: finished simulations, and files that are each written whole."""

import shlex
from pathlib import Path

from kvplan.foreign.text import cell
from kvplan.hwmodels import strictyaml
from kvplan.sim.files.atomic import write_file, write_text
from kvplan.sim.files.ours import Kind, says
from kvplan.sim.files.strictjson import dumps
from kvplan.sim.planner.plan import Plan
from kvplan.sim.planner.question import Question
from kvplan.sim.report.page import names
from kvplan.sim.sweep.kept_runs import are_in

PLAN, ROWS, CONFIG = names.PLAN, "plan.csv", names.CONFIG


def _is_ours(folder: Path) -> bool:
    """By its summary; without one it was interrupted, and has runs."""
    path = folder / PLAN
    return says(path, lambda found: found["provenance"]["kvplan"]) if path.exists() else are_in(folder)


KIND = Kind("folder of a plan", _is_ours)


def write_plan(plan: Plan, found: dict, out: Path) -> None:
    """plan.json, plan.csv, config.resolved.yaml, report.html and report.md, each whole or not at all. Raises WriteError."""
    table = plan.to_frame().map(cell)
    write_text(out / PLAN, dumps(found))
    write_file(out / ROWS, lambda path: table.to_csv(path, index=False, encoding="utf-8"))
    write_text(out / CONFIG, f"# In this folder: {again(plan.question)}\n{strictyaml.dumps(plan.question.config().resolved())}")
    from kvplan.sim.report.page import folder as pages

    pages.write_report(out, PLAN)


def again(question: Question) -> str:
    """The command that asks the same from within the folder: a configuration says all but the load of the service and the stores to try."""
    load = [] if question.sessions_per_s is None else ["--sessions-per-s", repr(question.sessions_per_s)]
    return shlex.join(["kvplan", "plan", CONFIG, *load, *(part for axis in question.axes for part in ("--vary", str(axis)))])
