"""The run directory: what `kvplan simulate --out` writes, whole or not at all."""

from pathlib import Path

from kvplan.hwmodels import strictyaml
from kvplan.sim.files.atomic import replacing
from kvplan.sim.files.ours import Kind, says
from kvplan.sim.files.strictjson import dumps
from kvplan.sim.report.page import names
from kvplan.sim.simulation import Result

SUMMARY, CONFIG, TURNS, TIERS = names.RUN, names.CONFIG, "turns.parquet", names.TIERS
TIMELINE = "timeline.json"
"""Where `simulate --timeline` may put its file, so that the folder stays a run directory."""
_FILES = SUMMARY, CONFIG, TURNS, TIERS, TIMELINE, names.HTML, names.MARKDOWN
_BEFORE = "latency.png", "timeline.png"
"""What earlier versions wrote as well."""
KIND = Kind("run directory", lambda folder: says(folder / SUMMARY, lambda found: found["provenance"]["kvplan"]), (*_FILES, *_BEFORE))


def write_run(result: Result, summary: dict, out: Path) -> None:
    """config.resolved.yaml, summary.json, turns.parquet, tiers.parquet, report.html and report.md. Raises WriteError."""
    import pandas as pd

    from kvplan.sim.report.page import folder as pages

    with replacing(out, KIND) as folder:
        (folder / SUMMARY).write_text(dumps(summary), encoding="utf-8")
        (folder / CONFIG).write_text(_resolved(result, summary), encoding="utf-8")
        (folder / TURNS).write_bytes(pd.DataFrame(result.columns).to_parquet(index=False))  # given a path, it takes UTF-8 only
        (folder / TIERS).write_bytes(pd.DataFrame(result.series).to_parquet(index=False))
        for name, text in pages.texts(folder).items():
            (folder / name).write_text(text, encoding="utf-8")


def _resolved(result: Result, summary: dict) -> str:
    """Every setting, and a word on those that this run did not read."""
    spare = summary["unused_settings"]
    note = f"# Not used by this run: {', '.join(spare)}\n" if spare else ""
    return note + strictyaml.dumps(result.config.resolved())
