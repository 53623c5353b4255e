"""`kvplan validate against COMMIT`: how many times as fast `simulate` is as that of an earlier commit, from pairs of runs.

The commit comes out of the repository that one stands in, and is installed into a temporary folder, without dependencies: both use those
of this environment. Each run is a process of its own, of which the processor time of `simulate(config)` counts, and who begins alternates
from pair to pair. Both must schedule the same events: else they do not do the same work.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from kvplan.sim import provenance
from kvplan.validate.arguments import positive
from kvplan.validate.benchmarks.bench import POLICIES
from kvplan.validate.show import show

PAIRS, SESSIONS = 12, 1600
COLUMNS = ("run", "turns", "us/turn then", "now", "times as fast", "95 %", "MiB then", "now", "events then", "now")
_FORMS = {"pure": "0", "compiled": "1"}
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


def main(argv: list[str]) -> int:
    """Prints the table: 1 when events differ, 2 when there is nothing to compare with."""
    arguments = _parser().parse_args(argv)
    try:
        with tempfile.TemporaryDirectory() as folder:
            install(arguments.commit, arguments.form, Path(folder))
            sides = partial(run, folder=Path(folder)), run
            settings = [f"workload.sessions={arguments.sessions}", "warmup_turns=0"]
            found = {name: pairs(sides, [*settings, *own], arguments.pairs) for name, own in POLICIES.items()}
    except Unknown as error:
        print(f"validate against: {error}", file=sys.stderr)
        return 2
    title = f"paper-13b: {arguments.commit}, {arguments.form}, and now, {_own_form()}"
    show(title, list(COLUMNS), [row(*one) for one in found.items()])
    differing = [name for name, one in found.items() if len({side.events for pair in one for side in pair}) > 1]
    if differing:
        print(f"validate against: not the same work, by their events: {', '.join(differing)}", file=sys.stderr)
    return int(bool(differing))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="kvplan validate against", description=__doc__)
    parser.add_argument("commit", help="any name that git knows it by")
    parser.add_argument("--form", choices=_FORMS, default=_own_form(), help="of the earlier commit; as this one's when not given")
    parser.add_argument("--pairs", type=positive, default=PAIRS, help=f"{PAIRS} when not given")
    parser.add_argument("--sessions", type=positive, default=SESSIONS, help=f"of 5.7 turns; {SESSIONS:,} when not given")
    return parser


def _own_form() -> str:
    return next(form for form in _FORMS if provenance.form().startswith(form))


def install(commit: str, form: str, folder: Path) -> None:
    """Installs a commit of the repository one stands in into an empty folder. Raises Unknown."""
    with tempfile.TemporaryDirectory() as source:
        top = _called(["git", "rev-parse", "--show-toplevel"]).decode().strip()
        archive = _called(["git", "-C", top, "archive", "--format=tar", commit])
        _called(["tar", "-x", "-C", source], sent=archive)
        isolated = ["--no-build-isolation"] if form == "compiled" else []  # the compiler is here
        command = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", *isolated, "--target", str(folder), source]
        _called(command, environment={"KVPLAN_COMPILED": _FORMS[form]})


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


def row(name: str, found: list[Pair]) -> list[str]:
    """One of the table: medians, and those of the ratios of pairs with an interval."""
    seconds, peaks, events = (
        np.array([[getattr(side, what) for side in pair] for pair in found]) for what in ("seconds", "peak_bytes", "events")
    )
    turns = found[0][1].turns
    each = [f"{median / turns * 1e6:.1f}" for median in np.median(seconds, axis=0)]
    faster, low, high = speedup(seconds[:, 0] / seconds[:, 1])
    memory = [f"{median / 2**20:,.0f}" for median in np.median(peaks, axis=0)]
    return [name, f"{turns:,}", *each, f"{faster:.2f}", f"{low:.2f} to {high:.2f}", *memory, *(f"{count:,}" for count in events[0])]


def speedup(ratios: np.ndarray) -> tuple[float, float, float]:
    """Median of the ratios, and the ends of its bootstrap interval (percentiles of resampled pairs)."""
    from scipy.stats import bootstrap  # takes a moment to import

    median = float(np.median(ratios))
    if len(ratios) < 2:
        return median, median, median
    ends = bootstrap((ratios,), np.median, method="percentile", random_state=0).confidence_interval
    return median, float(ends.low), float(ends.high)
