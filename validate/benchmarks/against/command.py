"""`kvplan validate against COMMIT`: how many times as fast `simulate` is as that of an earlier commit, from pairs of runs.

The commit comes out of the repository that one stands in, and is installed into a temporary folder, without dependencies: both use those
of this environment. Each run is a process of its own, of which the processor time of `simulate(config)` counts, and who begins alternates
from pair to pair. Both must schedule the same events: else they do not do the same work.
"""

import argparse
import tempfile
from functools import partial
from pathlib import Path

import numpy as np

from kvplan.sim import provenance
from kvplan.validate.arguments import positive
from kvplan.validate.benchmarks.against.pairs import FORMS, Pair, Unknown, install, pairs, run, speedup
from kvplan.validate.benchmarks.bench import POLICIES
from kvplan.validate.ending import FAILED, ended
from kvplan.validate.show import show

PAIRS, SESSIONS = 12, 1600
COLUMNS = ("run", "turns", "us/turn then", "now", "times as fast", "95 %", "MiB then", "now", "events then", "now")


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
        return ended("against", error)
    title = f"paper-13b: {arguments.commit}, {arguments.form}, and now, {_own_form()}"
    show(title, list(COLUMNS), [row(*one) for one in found.items()])
    differing = [name for name, one in found.items() if len({side.events for pair in one for side in pair}) > 1]
    return ended("against", f"not the same work, by their events: {', '.join(differing)}", FAILED) if differing else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="kvplan validate against", description=__doc__)
    parser.add_argument("commit", help="any name that git knows it by")
    parser.add_argument("--form", choices=FORMS, default=_own_form(), help="of the earlier commit; as this one's when not given")
    parser.add_argument("--pairs", type=positive, default=PAIRS, help=f"{PAIRS} when not given")
    parser.add_argument("--sessions", type=positive, default=SESSIONS, help=f"of 5.7 turns; {SESSIONS:,} when not given")
    return parser


def _own_form() -> str:
    return next(form for form in FORMS if provenance.form().startswith(form))


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
