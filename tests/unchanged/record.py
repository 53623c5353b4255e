"""Digests of the runs in runs.yaml: `python tests/unchanged/record.py` writes digests.json anew, and prints which runs changed in what.

A run's digest is cut by what it is of, so that a difference says where to look: the workload, the events, each column per turn, the time
series, each section of the summary. Columns and series are compared bit by bit; the summary to nine digits, because NumPy's sums depend on
the processor. So do the numbers that distributions draw, through the C library: where the workload differs, nothing can be compared.
"""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from kvplan.sim import config
from kvplan.sim.simulation import Result, simulate

HERE = Path(__file__).parent
DIGESTS = HERE / "digests.json"
_DIGITS = 9
_NO_RESULT = ("provenance", "warnings", "schema_version")


def runs() -> dict[str, tuple[str, list[str]]]:
    """Name -> preset and overrides."""
    said = yaml.safe_load((HERE / "runs.yaml").read_text())
    found = {}
    for name, run in said["runs"].items():
        found[name] = run.get("preset", "paper-13b"), ([] if "preset" in run else said["base"]) + run["set"]
    for path, values in said["each"].items():
        found |= {f"{path}={value}": ("paper-13b", [*said["base"], f"{path}={value}"]) for value in values}
    return found


def digests(preset: str, overrides: list[str]) -> dict[str, str]:
    """Part of the result -> digest."""
    return dict(_digests(simulate(config.load(preset, overrides))))


def _digests(result: Result) -> Iterator[tuple[str, str]]:
    workload = result.workload
    yield "workload", _of(*(getattr(workload, name) for name in ("session", "prompt_tokens", "output_tokens", "arrival_s", "gap_s")))
    yield "events", str(result.events)
    yield from ((f"turns.{name}", _of(values)) for name, values in result.columns.items())
    yield "series", _of(*result.series.values())
    yield from ((f"summary.{name}", _of(_rounded(value))) for name, value in result.summary.items() if name not in _NO_RESULT)


def _of(*values: Any) -> str:
    """Of arrays, by their numbers and not by their types; of anything else, by its JSON."""
    found = hashlib.sha256()
    for value in values:
        found.update(value.astype(float).tobytes() if isinstance(value, np.ndarray) else json.dumps(value, sort_keys=True).encode())
    return found.hexdigest()[:12]


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_rounded(item) for item in value]
    return f"{value:.{_DIGITS}g}" if isinstance(value, float) else value


def main() -> None:
    """See the module."""
    before = json.loads(DIGESTS.read_text()) if DIGESTS.exists() else {}
    now = {name: digests(*run) for name, run in runs().items()}
    for name, found in now.items():
        changed = [part for part in found if found[part] != before.get(name, {}).get(part)]
        if changed:
            print(f"{name}: {', '.join(changed)}")
    DIGESTS.write_text(json.dumps(now, indent=0) + "\n")


if __name__ == "__main__":
    main()
