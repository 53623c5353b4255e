"""The folder of a plan: what `kvplan plan --out` writes, whole or not at all."""

from pathlib import Path

from kvplan.foreign.text import cell
from kvplan.hwmodels import strictyaml
from kvplan.sim.files.atomic import replacing
from kvplan.sim.files.ours import Kind, says
from kvplan.sim.files.strictjson import dumps
from kvplan.sim.planner.plan import Plan
from kvplan.sim.report.page import folder as pages

PLAN, ROWS, CONFIG = pages.PLAN, "plan.csv", pages.CONFIG
_FILES = PLAN, ROWS, CONFIG, pages.HTML, pages.MARKDOWN
KIND = Kind("folder of a plan", lambda folder: says(folder / PLAN, lambda found: found["provenance"]["kvplan"]), _FILES)


def write(plan: Plan, found: dict, out: Path) -> None:
    """plan.json, plan.csv, config.resolved.yaml, report.html and report.md. Raises WriteError."""
    with replacing(out, KIND) as folder:
        (folder / PLAN).write_text(dumps(found), encoding="utf-8")
        plan.to_frame().map(cell).to_csv(folder / ROWS, index=False, encoding="utf-8")
        (folder / CONFIG).write_text(strictyaml.dumps(plan.question.config().resolved()), encoding="utf-8")
        for name, text in pages.texts(folder).items():
            (folder / name).write_text(text, encoding="utf-8")
