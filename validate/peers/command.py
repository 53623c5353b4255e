"""`kvplan validate peers`: other simulators over the same requests, hit rates, times and seconds beside kvplan's; those that are installed.

pip install kvcache-simulator libcachesim psutil; pip install --no-deps lmcache aisimulate. Seconds are from the trace's file, or from
requests in memory for those that take these, to the last figure.
"""

import argparse
import tempfile
from importlib import import_module
from pathlib import Path

from kvplan.sim.replay.blocks import BlockReplay
from kvplan.sim.store.blocks.modes import MODES
from kvplan.traces import read_trace
from kvplan.traces.blockpaths import block_contexts
from kvplan.validate.arguments import positive
from kvplan.validate.peers import serving
from kvplan.validate.peers.requests import BLOCK_TOKENS, drawn, write_requests
from kvplan.validate.peers.simulators import PEERS, Peer
from kvplan.validate.peers.timing import timed
from kvplan.validate.show import show

SIZES = (500, 2_000, 8_000)
"""Blocks."""


def absent(module: str) -> str:
    """Why a simulator cannot be asked, itself or what it needs; empty where it can."""
    try:
        import_module(module)
    except ImportError as error:
        return f"not installed ({error})"
    return ""


def kvplans(trace: Path, peer: Peer, sizes: tuple[int, ...]) -> list[float]:
    """Hit rates by the rules of the same name."""
    replay = BlockReplay(MODES[peer.mode], block_contexts(read_trace(trace), BLOCK_TOKENS))
    return [replay.served(replay.cache(peer.policy, blocks)).hit_rate for blocks in sizes]


def compared(sessions: int, sizes: tuple[int, ...]) -> list[list[str]]:
    """Rows of the table: peer, size, hit rates, difference, seconds."""
    requests = drawn(sessions)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        trace = Path(folder) / "requests.jsonl"
        write_requests(requests, trace)
        for peer in PEERS:
            name = f"{peer.name}, {peer.policy}"
            if why := absent(peer.module):
                rows.append([f"{name}: {why}", *[""] * 6])
                continue
            with timed() as theirs:
                found = peer.hit_rates(trace, requests, sizes)
            with timed() as ours:
                own = kvplans(trace, peer, sizes)
            for size, one, other in zip(sizes, found, own, strict=True):
                last = size == sizes[-1]
                seconds = [f"{spent[0]:.2f}" if last else "" for spent in (theirs, ours)]
                rows.append([name, f"{size:,}", *_beside(one, other), *seconds])
    return rows


def _beside(theirs: float | None, ours: float) -> list[str]:
    """Both, and ours less theirs, in percent and points."""
    if theirs is None:
        return ["not judged", f"{100 * ours:.3f}", ""]
    return [f"{100 * theirs:.3f}", f"{100 * ours:.3f}", f"{100 * (ours - theirs):+.3f}"]


def served(sessions: int) -> list[list[str]]:
    """Rows of the table of whole servers: requests a second, share of HBM, DRAM, simulator, hits, times, seconds."""
    if why := absent(serving.ENTRY):
        return [[f"{serving.NAME}: {why}", *[""] * 8]]
    requests = drawn(sessions)
    per_s = len(requests) / requests[-1].at_s
    return [
        [f"{per_s * case.faster:.1f}", f"{100 * case.hbm_utilization:.0f}", str(case.dram_gb), *_served(name, one)]
        for case in serving.LOADS
        for name, one in serving.beside(requests, case).items()
    ]


def _served(name: str, one: serving.Served) -> list[str]:
    times = (one.ttft_mean_s, one.ttft_p95_s, one.tpot_mean_s)
    return [
        name,
        f"{100 * one.hit_rate:.3f}",
        *("–" if time_s is None else f"{1e3 * time_s:.1f}" for time_s in times),
        f"{one.seconds:.2f}",
    ]


def _sizes(text: str) -> tuple[int, ...]:
    return tuple(map(positive, text.split(",")))


def main(argv: list[str]) -> int:
    """The exit code."""
    parser = argparse.ArgumentParser("kvplan validate peers", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sessions", type=positive, default=2000, help="chats to draw; default: 2000, about 11,000 requests")
    listed = ",".join(map(str, SIZES))
    parser.add_argument("--blocks", type=_sizes, default=SIZES, help=f"sizes, of {BLOCK_TOKENS} tokens a block; default: {listed}")
    given = parser.parse_args(argv)
    columns = ["simulator, policy", "blocks", "hits, %", "kvplan, %", "off, points", "seconds, all sizes", "kvplan's"]
    show(f"Hit rates over all prompt tokens, {given.sessions:,} chats", columns, compared(given.sessions, given.blocks))
    for peer in PEERS:
        if peer.differs:
            print(f"{peer.name}, {peer.policy}: {peer.differs}")
    chats = min(given.sessions, serving.CHATS)
    columns = ["requests/s", "HBM, %", "DRAM, GB", "simulator", "hits, %", "TTFT, ms", "p95, ms", "TPOT, ms", "seconds"]
    show(f"One GPU with a pool of blocks by vLLM's rules, {chats:,} chats", columns, served(chats))
    return 0
