"""Turns per second, memory and event counts of `simulate` for RE, LRU and look-ahead at 5K, 50K and 500K turns.

Each run is a process of its own, so that peak memory is its own; the processor time of `simulate(config)` is counted, workload
generation and summary included, guards off. Event counts must be what they were: a speed that rests on another model is no speed.
"""

import json
import math
import os
import resource
import subprocess
import sys
import time

from kvplan.sim import config
from kvplan.validate.show import show
from kvplan.validate.verdict import fail

SESSIONS = {"5K": 900, "50K": 9000, "500K": 90_000}
REPEATS = {"5K": 5, "50K": 3, "500K": 1}
"""Runs of each size; the fastest counts, because machines are noisy."""
POLICIES = {
    "RE": ["store.dram=0GB", "store.ssd=0GB"],
    "LRU": ["store.eviction=lru", "store.prefetch=none"],
    "look-ahead": [],
}
EVENTS = {
    ("RE", "5K"): 10_680,
    ("LRU", "5K"): 10_690,
    ("look-ahead", "5K"): 10_680,
    ("RE", "50K"): 110_383,
    ("LRU", "50K"): 110_468,
    ("look-ahead", "50K"): 110_499,
    ("RE", "500K"): 1_102_863,
    ("LRU", "500K"): 1_121_382,
    ("look-ahead", "500K"): 1_114_329,
}
"""Run -> events that it must schedule."""


def measure(policy: str, size: str) -> dict:
    """One run in this process: turns, events, processor seconds, peak memory in bytes."""
    from kvplan.sim.simulation import simulate

    loaded = config.load("paper-13b", [*POLICIES[policy], f"workload.sessions={SESSIONS[size]}", "warmup_turns=0"])
    simulate(config.load(None, ["workload.sessions=50"]))  # imports and the catalogue are read once, not per turn
    seconds = math.inf
    for _ in range(REPEATS[size]):
        started = time.process_time()
        result = simulate(loaded)
        seconds = min(seconds, time.process_time() - started)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {"turns": result.workload.turns, "events": result.events, "seconds": seconds, "peak_bytes": peak}


def run() -> None:
    """Prints the table; fails when an event count has changed."""
    environment = {**os.environ, "KVPLAN_GUARDS": "0"}
    code = "import sys, json; from kvplan.validate.benchmarks.bench import measure; print(json.dumps(measure(*sys.argv[1:])))"
    found = {}
    for size in SESSIONS:
        for policy in POLICIES:
            out = subprocess.run([sys.executable, "-c", code, policy, size], env=environment, capture_output=True, text=True, check=True)
            found[policy, size] = json.loads(out.stdout)
    cells, wrong = [], []
    for (policy, size), one in found.items():
        per_turn = one["seconds"] / one["turns"]
        small, recompute = found[policy, "5K"], found["RE", size]
        cells.append(
            [
                f"{policy}, {size} turns",
                f"{one['turns']:,}",
                f"{1 / per_turn:,.0f}",
                f"{per_turn * 1e6:.1f}",
                f"{per_turn / (recompute['seconds'] / recompute['turns']):.2f}",
                f"{per_turn / (small['seconds'] / small['turns']):.2f}",
                f"{one['peak_bytes'] / 2**20:,.0f}",
                f"{one['events']:,}",
            ]
        )
        expected = EVENTS.get((policy, size))
        if expected != one["events"]:
            wrong.append(f"{policy}, {size} turns: {one['events']} events, {expected} expected")
    show("simulate(paper-13b)", ["run", "turns", "turns/s", "us/turn", "x RE", "x 5K", "MiB", "events"], cells)
    fail(wrong, "the model has changed")
