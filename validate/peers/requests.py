"""The requests that all simulators are given: prompts as hashes of blocks, in Mooncake's format, which each reads or is fed from."""

import json
from collections import defaultdict
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from kvplan.sim.build_workload import build_workload
from kvplan.sim.config import load
from kvplan.traces.blockpaths import block_contexts
from kvplan.traces.reuse import in_order, starts

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
    answer_tokens: int


def drawn(sessions: int) -> list[Request]:
    """Chats of ShareGPT's lengths that come at random, in order of time, where answers take none: each turn has its session's history
    before it."""
    settings = {"workload.sessions": sessions, "workload.loop": "closed", "workload.system_prompt_tokens": SYSTEM_TOKENS}
    workload = build_workload(load("default", settings))
    contexts = block_contexts(workload, BLOCK_TOKENS)
    order = in_order(workload)
    fresh = count()
    numbers: defaultdict[int, int] = defaultdict(fresh.__next__)
    return [
        Request(when_s, tokens, [numbers[path[block]] for block in range(len(path))] + [next(fresh)] * (tokens % BLOCK_TOKENS > 0), answer)
        for when_s, tokens, path, answer in zip(
            starts(workload)[order].tolist(), contexts.tokens, contexts.paths, workload.output_tokens[order].tolist(), strict=True
        )
    ]


def write_requests(requests: list[Request], path: Path, faster: float = 1) -> None:
    """As Mooncake's JSON Lines, `faster` times as fast. Each request is a session of its own, and shares with others what its hashes say:
    not all simulators take from a log that an answer is part of the next prompt."""
    rows = (
        {
            "session_id": str(number),
            "timestamp": round(1e3 * one.at_s / faster),
            "input_length": one.tokens,
            "output_length": max(1, one.answer_tokens),
            "hash_ids": one.blocks,
            "block_size": BLOCK_TOKENS,
        }
        for number, one in enumerate(requests)
    )
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
