"""Requests per second of a server of blocks: `kvplan validate blockbench --help`.

vLLM serves on four replicas with a pool in HBM, and DRAM and SSD below it, in blocks of 512 and of 16 tokens. Requests are drawn to be like
those of Mooncake's conversation trace (12,031 in an hour, prompts of 12,000 tokens in the mean and 6,900 in the median, answers of 340, a
third of all blocks seen before), or are those of a trace. Event counts must be what they were. The processor time is that of
`simulate`, the fastest of some runs, guards off.
"""

import argparse
import time
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np

from kvplan.sim import config
from kvplan.sim.rng import stream
from kvplan.sim.simulation import simulate
from kvplan.traces import TraceError, Workload, read_trace
from kvplan.traces.workload import Blocks, untimed
from kvplan.validate.ending import FAILED, ended
from kvplan.validate.show import show

BLOCK_TOKENS = 512
SERVER = (
    "engine=vllm",
    "model=llama-3.1-8b",
    "hardware=h100-80g-x1",
    "prices=rent-2026",
    "deployment.replicas=4",
    "store.dram=128GB",
    "store.ssd=2TB",
    "warmup_turns=0",
)
EVENTS = {(12_031, 512): 81_966, (12_031, 16): 81_999, (120_310, 512): 850_791}
"""(requests, tokens of a block) -> events of those that are drawn."""
RECENT = 2_000
"""A request goes on from one of so many before it."""


def drawn(requests: int) -> Workload:
    """So many requests, each by itself, with hashes of their blocks."""
    draw = stream(1, "blockbench")
    prompts = np.clip(np.rint(draw.lognormal(np.log(6_900), 1.05, requests)), 1, 126_000).astype(int)
    answers = np.clip(np.rint(draw.normal(343, 200, requests)), 1, 2_000).astype(int)
    counts = prompts // BLOCK_TOKENS
    parents = np.arange(requests) - draw.integers(1, RECENT, requests)
    shared = np.rint(counts * draw.random(requests)).astype(int)
    ids = np.arange(counts.sum())
    first = np.append(0, np.cumsum(counts))
    for request in np.flatnonzero((parents >= 0) & (shared > 0)).tolist():
        start, parent = first[request], first[parents[request]]
        same = min(shared[request], first[parents[request] + 1] - parent)
        ids[start : start + same] = ids[parent : parent + same]
    made = untimed(range(requests), prompts.tolist(), answers.tolist())
    timed = made.with_times(np.cumsum(draw.exponential(0.294, requests)), np.zeros(requests))
    return replace(timed, blocks=Blocks(BLOCK_TOKENS, first, ids))


def measure(workload: Workload, block_tokens: int, repeats: int) -> tuple[int, float]:
    """(events, processor seconds) of `simulate`, where the workload is there."""
    loaded = config.load(None, [*SERVER, f"store.block_tokens={block_tokens}"])
    seconds = []
    for _ in range(repeats):
        started = time.process_time()
        events = simulate(loaded, workload).events
        seconds.append(time.process_time() - started)
    return events, min(seconds)


def main(argv: list[str]) -> int:
    """Prints the table; 1 when an event count has changed, 2 for a trace that cannot be read."""
    parser = argparse.ArgumentParser(prog="kvplan validate blockbench", description=__doc__)
    parser.add_argument("--trace", type=Path, help="conversation_trace.jsonl of github.com/kvcache-ai/Mooncake, instead of drawn requests")
    parser.add_argument("--requests", type=int, metavar="N", help="so many drawn requests, in blocks of 512 tokens")
    arguments = parser.parse_args(argv)
    try:
        given = None if arguments.trace is None else read_trace(arguments.trace)
    except TraceError as error:
        return ended("blockbench", error)
    sizes = [(arguments.requests, BLOCK_TOKENS)] if arguments.requests else list(EVENTS)
    if given is not None:
        _shown((given, tokens) for tokens in (512, 16))
        return 0
    events = _shown((drawn(requests), tokens) for requests, tokens in sizes)
    wrong = [
        f"{requests:,} requests in blocks of {tokens}: {events[requests, tokens]} events, {expected} expected"
        for (requests, tokens), expected in EVENTS.items()
        if events.get((requests, tokens), expected) != expected
    ]
    return ended("blockbench", f"the model has changed: {'; '.join(wrong)}", FAILED) if wrong else 0


def _shown(runs: Iterable[tuple[Workload, int]]) -> dict[tuple[int, int], int]:
    """Runs them and prints the table; returns the events."""
    rows, found = [], {}
    for workload, tokens in runs:
        requests = workload.turns
        found[requests, tokens], seconds = measure(workload, tokens, 3 if requests < 100_000 else 1)
        name, each_us = f"{requests:,} requests, blocks of {tokens}", seconds / requests * 1e6
        rows.append([name, f"{1e6 / each_us:,.0f}", f"{each_us:.1f}", f"{found[requests, tokens]:,}"])
    show("vLLM with HBM, DRAM and SSD", ["run", "requests/s", "us/request", "events"], rows)
    return found
