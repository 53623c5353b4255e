"""The requests that all simulators are given: prompts as hashes of blocks, in Mooncake's format, which each reads or is fed from."""

import json
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import numpy as np

from kvplan.sim.build_workload import build_workload
from kvplan.sim.config import load
from kvplan.traces import Workload

BLOCK_TOKENS = 128
SYSTEM_TOKENS = 1024
"""Of a prompt that all sessions begin with."""


@dataclass(frozen=True)
class Request:
    """One prompt, history included."""

    at_s: float
    tokens: int
    blocks: list[int]
    """A number for each block: the same one where all up to its end is the same. The last may not be full."""


def drawn(sessions: int) -> list[Request]:
    """Chats of ShareGPT's lengths that come at random, in order of time: each turn has its session's history before it."""
    workload = build_workload(load("default", {"workload.sessions": sessions, "workload.loop": "closed"}))
    numbers: dict[tuple, int] = {}
    fresh = count()

    def number(*key: int) -> int:
        if key not in numbers:
            numbers[key] = next(fresh)
        return numbers[key]

    requests = []
    for turn, (session, at_s) in enumerate(zip(workload.session.tolist(), _starts_s(workload), strict=True)):
        tokens = SYSTEM_TOKENS + int(workload.history_tokens[turn] + workload.prompt_tokens[turn])
        full, rest = divmod(tokens, BLOCK_TOKENS)
        shared = SYSTEM_TOKENS // BLOCK_TOKENS
        blocks = [number(-1 if block < shared else session, block) for block in range(full)]
        requests.append(Request(at_s, tokens, blocks + [number(session, full, turn)] * bool(rest)))
    return sorted(requests, key=lambda request: request.at_s)


def _starts_s(workload: Workload) -> list[float]:
    """When turns come, if answers take no time."""
    gaps = np.nan_to_num(workload.gap_s)
    first = workload.first_turn[:-1]
    since = gaps.cumsum()
    offset = workload.arrival_s[first] - since[first]
    return (since + offset[workload.session]).tolist()


def write_requests(requests: list[Request], path: Path) -> None:
    """As Mooncake's JSON Lines."""
    rows = (
        {
            "timestamp": round(1e3 * one.at_s),
            "input_length": one.tokens,
            "output_length": 1,
            "hash_ids": one.blocks,
            "block_size": BLOCK_TOKENS,
        }
        for one in requests
    )
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
