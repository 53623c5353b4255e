"""Pairs of runs: of an earlier commit, installed beside this one, and of this one, in a process each."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

FORMS = {"pure": "0", "compiled": "1"}
"""Form of an installation -> KVPLAN_COMPILED."""
_RUN = """
import json, resource, sys, time
import kvplan
kvplan.simulate(kvplan.load(None, ["workload.sessions=50"]))  # imports and the catalogue are read once, not per turn
loaded = kvplan.load("paper-13b", sys.argv[1:])
began = time.process_time()
result = kvplan.simulate(loaded)
seconds = time.process_time() - began
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
print(json.dumps({"turns": result.workload.turns, "events": result.events, "seconds": seconds, "peak_bytes": peak}))
"""
"""By the public names, which earlier commits have too."""


class Unknown(Exception):
    """There is no such commit, or it cannot be installed or run; the message says why."""


@dataclass(frozen=True)
class Side:
    """One run of one of the two."""

    turns: int
    events: int
    seconds: float
    peak_bytes: int


Pair = tuple[Side, Side]
"""Then, and now."""
Runner = Callable[[list[str]], Side]
"""Makes a run with these settings."""


def install(commit: str, form: str, folder: Path) -> None:
    """Installs a commit of the repository one stands in into an empty folder. Raises Unknown."""
    with tempfile.TemporaryDirectory() as source:
        top = _called(["git", "rev-parse", "--show-toplevel"]).decode().strip()
        archive = _called(["git", "-C", top, "archive", "--format=tar", commit])
        _called(["tar", "-x", "-C", source], sent=archive)
        isolated = ["--no-build-isolation"] if form == "compiled" else []  # the compiler is here
        command = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", *isolated, "--target", str(folder), source]
        _called(command, environment={"KVPLAN_COMPILED": FORMS[form]})


def _called(command: list[str], sent: bytes | None = None, environment: Mapping[str, str] | None = None) -> bytes:
    """What it prints. Raises Unknown when it cannot be run, or fails."""
    try:
        done = subprocess.run(command, input=sent, capture_output=True, env={**os.environ, **(environment or {})})
    except OSError as error:
        raise Unknown(f"{command[0]}: {error.strerror}") from None
    if done.returncode:
        raise Unknown(f"{Path(command[0]).name} failed: {done.stderr.decode(errors='replace').strip()}")
    return done.stdout


def run(settings: list[str], folder: Path | None = None) -> Side:
    """One run in a process of its own: of what is installed in the folder, or here. Raises Unknown when it fails."""
    there = {"PYTHONPATH": str(folder)} if folder else {}
    return Side(**json.loads(_called([sys.executable, "-P", "-c", _RUN, *settings], environment={"KVPLAN_GUARDS": "0", **there})))


def pairs(sides: tuple[Runner, Runner], settings: list[str], count: int) -> list[Pair]:
    """So many pairs of runs; the first begins with the first side, the next with the second."""
    found = []
    for index in range(count):
        ran = {place: sides[place](settings) for place in ((0, 1), (1, 0))[index % 2]}
        found.append((ran[0], ran[1]))
    return found


def speedup(ratios: np.ndarray) -> tuple[float, float, float]:
    """Median of the ratios, and the ends of its bootstrap interval (percentiles of resampled pairs)."""
    from scipy.stats import bootstrap  # takes a moment to import

    median = float(np.median(ratios))
    if len(ratios) < 2:
        return median, median, median
    ends = bootstrap((ratios,), np.median, method="percentile", random_state=0).confidence_interval
    return median, float(ends.low), float(ends.high)
