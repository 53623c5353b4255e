"""The engine against a second, plain simulator (`validate/checks/reference.py`), event by event, on random small cases; two minutes.

Times must agree to 1e-9 of themselves, which is what is left of rounding; tokens, tiers, skipped saves, and bytes that have moved by the
last answer (to one) must be the same. The
cases are small and tight: a few sessions whose KV does not fit, so that in hundreds of them everything happens that can; the second table
counts it.
"""

from collections import Counter
from dataclasses import replace

import numpy as np

from kvplan.sim import config
from kvplan.sim.config import Config
from kvplan.sim.deployment import resolve
from kvplan.sim.rng import stream
from kvplan.sim.simulation import Result, simulate
from kvplan.traces import Workload
from kvplan.traces.workload import untimed
from kvplan.validate.checks.reference import NOT_JUDGED, Service
from kvplan.validate.show import show
from kvplan.validate.verdict import Finding, fail, report

CASES = 200
TOLERANCE = 1e-9
NAMED = 10
"""Cases that differ are named up to this number."""
FAMILIES = {
    "no store": ("store.dram=0GB", "store.ssd=0GB"),
    "DRAM": ("store.dram={dram}B", "store.ssd=0GB"),
    "SSD": ("store.dram=0GB", "store.ssd={ssd}B"),
    "DRAM and SSD": ("store.dram={dram}B", "store.ssd={ssd}B", "store.prefetch=none"),
    "DRAM and SSD, prefetching": ("store.dram={dram}B", "store.ssd={ssd}B", "store.prefetch=lookahead"),
}
FAMILIES |= {f"{name}; more": tiers for name, tiers in FAMILIES.items() if name != "no store"}
FAMILIES |= {f"{name}; clients": tiers for name, tiers in FAMILIES.items() if "more" not in name}
"""Those with `more` also switch on what `_more` says, and those with `clients` that and what `_clients` says."""
TIMES = ("ready_s", "arrival_s", "admitted_s", "first_token_s", "done_s", "stall_s")
COUNTS = ("history_tokens", "cached_tokens", "tier", "overflow")
WIRES = {"host_to_device": "h2d", "device_to_host": "d2h", "ssd_read": "ssd_read", "ssd_write": "ssd_write"}


def random_case(family: str, seed: int) -> tuple[Config, Workload]:
    """A random configuration and workload: LLaMA-2-13B with a short window, a few sessions, and tiers that hold half a session of
    the longest to six or twelve."""
    rng = stream(seed, "agreement")
    window = int(rng.integers(60, 1500 if rng.random() < 0.5 else 400))
    largest = window * 819_200
    sizes = {"dram": int(largest * rng.uniform(0.5, 6)), "ssd": int(largest * rng.uniform(0.5, 12))}
    loaded = config.load(
        None,
        [
            *(setting.format(**sizes) for setting in FAMILIES[family]),
            f"deployment.window_tokens={window}",
            f"deployment.max_batch={rng.integers(1, 9)}",
            f"deployment.hbm_utilization={rng.choice([0.16, 0.165, 0.2, 0.9])}",
            f"deployment.truncation_ratio={rng.choice([0.3, 0.5, 1.0])}",
            f"store.eviction={rng.choice(['lru', 'fifo', 'lookahead'])}",
            f"store.host_buffer={rng.choice([0.0, 0.1, 0.3])}",
            f"store.read_buffer_layers={rng.choice([0, 3, 15, 40])}",
            f"store.write_buffer={rng.choice(['0GB', '50MB', '1GB'])}",
            f"store.piece={rng.choice(['1MiB', '8MiB', '64MiB'])}",
            "store.load=always",
        ],
    )
    table = _workload(rng, window)
    if not family.endswith(("more", "clients")):
        return loaded, table
    loaded, table = _more(loaded, table, rng)
    return (_clients(loaded, rng) if family.endswith("clients") else loaded), table


def _more(loaded: Config, table: Workload, rng: np.random.Generator) -> tuple[Config, Workload]:
    """The case with more mechanisms, each in a third of the cases."""
    chosen = [
        f"deployment.replicas={rng.choice([1, 1, 2])}",
        f"store.save={rng.choice(['async', 'async', 'sync'])}",
        f"store.positions={rng.choice(['decoupled', 'decoupled', 'embedded'])}",
        f"store.ssd_write={rng.choice(['delta', 'delta', 'whole'])}",
        f"store.ttl_s={rng.choice(['null', 'null', '0.3'])}",
    ]
    if rng.random() < 1 / 3:
        grown = np.roll(table.prompt_tokens + table.output_tokens, 1)
        dropped = np.where(table.is_first, 0, np.minimum(rng.integers(0, 40, table.turns), grown))
        table = replace(table, dropped_tokens=dropped)
    return config.load(loaded, chosen), table


def _clients(loaded: Config, rng: np.random.Generator) -> Config:
    """The case with turns that a client sends."""
    barrier = rng.random() < 1 / 3
    chosen = {
        "outstanding": rng.choice(["null", "1", "2", "5"]),
        "active": "null" if barrier else rng.choice(["null", "1", "3"]),
        "order": rng.choice(["fifo", "random"]),
        "barrier": str(barrier).lower(),
        "rate_per_s": rng.choice(["null", "null", "7.3", "23.7"]),  # no pause is a multiple of the pace: such ties are left to rounding
        "pause_s": rng.choice(["0", "0", "0.1", "1"]),
    }
    return config.load(loaded, [f"workload.clients.{name}={value}" for name, value in chosen.items()])


def _workload(rng: np.random.Generator, window: int) -> Workload:
    """Up to 24 sessions of up to 11 turns, open or closed loop, with or without think times; times coincide in half of the cases."""
    turns = rng.integers(1, 12, rng.integers(3, 25))
    total, span_s = int(turns.sum()), rng.choice([0.2, 1.0, 5.0])
    prompt = rng.integers(1, max(2, window // rng.choice([2, 3, 8])), total)
    output = rng.integers(1, rng.choice([2, 10, 60]), total)
    table = untimed(np.repeat(np.arange(len(turns)), turns), prompt, output)
    starts = np.round(np.sort(rng.uniform(0, span_s, len(turns))), rng.choice([1, 6]))
    if rng.random() < 0.3:
        gaps = np.round(rng.exponential(span_s / 4, total), 1)
        since = np.cumsum(np.where(table.is_first, 0.0, gaps))
        arrivals = (starts - since[table.first_turn[:-1]])[table.session] + since
        return replace(table, arrival_s=np.round(arrivals, 6), open_loop=True)
    return table.with_times(starts, rng.choice([0.0, 0.1, 0.5]) * rng.exponential(1, total))


def differences(fast: Result, slow: Service) -> list[str]:
    """What the engine and the reference do not agree on, in words."""
    found = []
    for name in (*(name for name in TIMES if name in fast.columns), *COUNTS):
        ours, theirs = fast.columns[name], np.array([getattr(turn, name) for turn in slow.turns])
        close = np.isclose(ours, theirs, rtol=TOLERANCE, atol=TOLERANCE) if name in TIMES else ours == theirs
        if not close.all():
            turn = int(np.argmin(close))
            found.append(f"{name} of {np.sum(~close)} turns, the first is row {turn}: engine {ours[turn]}, reference {theirs[turn]}")
    end_s, tiers, links = float(fast.columns["done_s"].max()), fast.summary["tiers"], fast.summary["links"]
    totals = [
        (f"bytes written to {name}", tiers[name]["written_bytes"], sum(one.written(one.tiers[index], end_s) for one in slow.replicas))
        for index, name in enumerate(tiers)
    ]
    totals += [
        (f"bytes over {name}", links[name]["bytes"], sum(getattr(one, wire).done(end_s) for one in slow.replicas))
        for name, wire in WIRES.items()
    ]
    totals.append(("skipped saves", fast.summary["skipped_saves"], sum(one.seen["skipped saves"] for one in slow.replicas)))
    return found + [
        f"{name}: engine {ours}, reference {theirs}" for name, ours, theirs in totals if abs(ours - theirs) > len(slow.replicas)
    ]


def compare(loaded: Config, table: Workload) -> tuple[list[str], Counter]:
    """(differences, what the case exercised)."""
    slow = Service(loaded, resolve(loaded, table), table, stream(loaded.seed, "clients").random).run()
    last = slow.replicas[-1]
    seen = sum((one.seen for one in slow.replicas), Counter())
    seen["turns"] = table.turns
    seen["turns on the second of two replicas"] = sum(slow.replica_of(turn) is last for turn in slow.turns) if slow.replicas[1:] else 0
    seen["truncations"] = sum(turn.overflow for turn in slow.turns)
    seen["turns that wait in the client"] = sum(turn.arrival_s > turn.ready_s for turn in slow.turns)
    return differences(simulate(loaded, table), slow), seen


def run() -> None:
    """Prints both tables; fails when a case differs, and names it."""
    findings, failures = [], []
    seen: dict[str, Counter[str]] = {}
    for family in FAMILIES:
        seen[family], different = Counter(), 0
        for seed in range(CASES):
            found, happened = compare(*random_case(family, seed))
            seen[family].update(happened)
            if found:
                different += 1
                failures.append(f"{family}, seed {seed}: {found[0]}")
        findings.append(Finding(f"{family}: cases that differ, of {CASES}", 0, "reference.py", different, 0))
    report("Engine against reference", findings)
    happenings = sorted(set().union(*seen.values()))
    rows = [[what, *(f"{seen[family][what]:,}" for family in FAMILIES)] for what in happenings]
    show("What happened in these cases", ["", *FAMILIES], rows)
    print(f"Not judged: {'; '.join(NOT_JUDGED)}.")
    fail(failures[:NAMED] + [f"and {len(failures) - NAMED} more"] * (len(failures) > NAMED))
