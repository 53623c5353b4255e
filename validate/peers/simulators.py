"""The simulators, each in the terms of its own documentation: what it is fed, and the share of prompt tokens that it says would hit.

Sources: kvcache-simulator 0.1.3, LMCache 0.5.6 (`lmcache.tools.cache_simulator`), libcachesim 0.3.5, as they are on PyPI.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from kvplan.validate.peers.requests import BLOCK_TOKENS, Request

HitRates = Callable[[Path, Sequence[Request], Sequence[int]], list[float | None]]
"""(the trace, the same as requests, sizes in blocks) -> hit rates; None of a size that it does not judge."""


@dataclass(frozen=True)
class Peer:
    """One simulator by one of its rules."""

    name: str
    module: str
    """Where it is installed."""
    policy: str
    mode: str
    """Whose rules kvplan plays against it."""
    differs: str
    """Why the two need not agree; empty where they must."""
    hit_rates: HitRates


def _kvcache_simulator(policy: str) -> HitRates:
    def hit_rates(trace: Path, requests: Sequence[Request], sizes: Sequence[int]) -> list[float | None]:
        from kvcache_sim.plan import build_execution_plan
        from kvcache_sim.policies import simulate_policy
        from kvcache_sim.trace import parse_trace_file

        plan = build_execution_plan(parse_trace_file(trace))
        found = [simulate_policy(plan, policy, blocks) for blocks in sizes]
        return [None if one.measurementMode.startswith("underfilled") else one.hitRate for one in found]

    return hit_rates


def _lmcache(trace: Path, requests: Sequence[Request], sizes: Sequence[int]) -> list[float | None]:
    from lmcache.tools.cache_simulator.simulator import simulate

    events = [
        {
            "seq_len": one.tokens,
            "chunk_size": BLOCK_TOKENS,
            "chunk_hashes": [str(block) for block in one.blocks[: one.tokens // BLOCK_TOKENS]],
        }
        for one in requests
    ]
    return [simulate(events, blocks, 1, fast=True)["token_hit_rate"] for blocks in sizes]


def _libcachesim(trace: Path, requests: Sequence[Request], sizes: Sequence[int]) -> list[float | None]:
    """Full blocks are objects of their own to it; they come tail first, so that a prompt's head is what it used last."""
    import libcachesim

    total = sum(one.tokens for one in requests)

    def hit_rate(blocks: int) -> float:
        cache = libcachesim.LRU(blocks)
        hits = sum(
            cache.get(libcachesim.Request(obj_id=block, obj_size=1))
            for one in requests
            for block in reversed(one.blocks[: one.tokens // BLOCK_TOKENS])
        )
        return hits * BLOCK_TOKENS / total

    return [hit_rate(blocks) for blocks in sizes]


PEERS = (
    *(
        Peer("kvcache-simulator", "kvcache_sim", policy, "kvcache-simulator", "", _kvcache_simulator(policy))
        for policy in ("lru", "fifo", "optimal")
    ),
    Peer(
        "LMCache's simulator",
        "lmcache",
        "lru",
        "lmcache",
        "it renews heads before tails, so heads go first; LMCache itself, tails",
        _lmcache,
    ),
    Peer(
        "libcachesim",
        "libcachesim",
        "lru",
        "lmcache",
        "it takes a prompt block by block, and may drop its head before it looks for it",
        _libcachesim,
    ),
)
