"""The folder of a sweep, of `kvplan compare --out` and `kvplan curve --out`: finished runs, and files that are each written whole."""

from pathlib import Path

from kvplan.sim.files.ours import Kind, says
from kvplan.sim.report import compare, curves
from kvplan.sim.sweep.kept_runs import are_in


def _is_ours(folder: Path) -> bool:
    """By its summaries; without one it was interrupted, and has runs."""
    summaries = [folder / name for name in (compare.SUMMARY, curves.SUMMARY) if (folder / name).exists()]
    if summaries:
        return all(says(path, lambda found: found.get("comparison", found)["provenance"]["kvplan"]) for path in summaries)
    return are_in(folder)


KIND = Kind("folder of a sweep", _is_ours)
