"""The run directory: what `kvplan simulate --out` writes, whole or not at all."""

from pathlib import Path

from kvplan.hwmodels import strictyaml
from kvplan.sim.engine.run import Result
from kvplan.sim.files.atomic import replacing
from kvplan.sim.files.ours import Kind, says
from kvplan.sim.files.strictjson import dumps
from kvplan.sim.settings import unused

SUMMARY, CONFIG, TURNS, TIERS, PAGE = "summary.json", "config.resolved.yaml", "turns.parquet", "tiers.parquet", "report.html"
_FILES = SUMMARY, CONFIG, TURNS, TIERS, PAGE, "latency.png", "timeline.png"
KIND = Kind("run directory", lambda folder: says(folder / SUMMARY, lambda found: found["provenance"]["kvplan"]), _FILES)


def write(result: Result, summary: dict, out: Path) -> None:
    """config.resolved.yaml, summary.json, turns.parquet, tiers.parquet, figures and report.html. Raises WriteError."""
    import pandas as pd

    from kvplan.sim.report import figures, html

    with replacing(out, KIND) as folder:
        (folder / SUMMARY).write_text(dumps(summary), encoding="utf-8")
        (folder / CONFIG).write_text(_resolved(result), encoding="utf-8")
        (folder / TURNS).write_bytes(pd.DataFrame(result.columns).to_parquet(index=False))  # given a path, it takes UTF-8 only
        (folder / TIERS).write_bytes(pd.DataFrame(result.series).to_parquet(index=False))
        pictures = figures.draw(result, folder)
        (folder / PAGE).write_text(html.page(result, summary, pictures), encoding="utf-8")


def _resolved(result: Result) -> str:
    """Every setting, and a word on those that this run did not read."""
    spare = unused(result.config, result.workload)
    note = f"# Not used by this run: {', '.join(spare)}\n" if spare else ""
    return note + strictyaml.dumps(result.config.resolved())
