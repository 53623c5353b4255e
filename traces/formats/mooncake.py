"""Mooncake JSON Lines: `timestamp` (ms), `input_length` (history included), `output_length`, `hash_ids` (512 tokens, prefix-chained).

Sessions are hidden in the hashes and found by longest prefix (`Requests.chain_by_prefix`). The extended form names them: `session_id`,
and for later turns `delay` (ms after the end of the turn before) instead of a timestamp. Source: kvcache-ai/Mooncake, FAST25 release.
"""

import math
from collections.abc import Callable

from traces import clock, fields
from traces.build import Requests
from traces.source import BadRecord, Head, Source
from traces.workload import Workload

NAME = "mooncake"
OFFERS = frozenset({"lengths", "times", "block hashes"})
EXAMPLE = """{"timestamp": 0, "input_length": 600, "output_length": 30, "hash_ids": [1, 2]}
{"timestamp": 5000, "input_length": 700, "output_length": 500, "hash_ids": [1, 3]}
"""
BLOCK_TOKENS = 512


def detect(head: Head) -> bool:
    """Whether a file begins like Mooncake's."""
    return {"input_length", "output_length"} <= head.keys and not {"chat_id", "turns"} & head.keys


def read(source: Source, count_tokens: Callable[[str], int]) -> Workload:
    """All requests, in sessions. Raises TraceError with the record number and what is wrong with it."""
    named = "session_id" in source.head().keys
    hashed = "hash_ids" in source.head().keys
    requests = Requests(BLOCK_TOKENS if hashed else None)
    sessions: dict[object, int] = {}
    latest = -math.inf

    def take(number: int, record: object) -> None:
        nonlocal latest
        fields.of(record, "a Mooncake record")
        prompt, output = fields.tokens(record, "input_length"), fields.tokens(record, "output_length")
        blocks = fields.blocks(record, "hash_ids", BLOCK_TOKENS, prompt) if hashed else ()
        session = fields.label(record, "session_id") if named else number
        arrival = gap = math.nan
        if session in sessions and "delay" in record:
            gap = fields.seconds(record, "delay", 1e-3)
        elif "timestamp" in record or session not in sessions:
            arrival = fields.seconds(record, "timestamp", 1e-3)
            if not named and arrival < latest:
                raise BadRecord(f"`timestamp` {record['timestamp']} is before the record above it: out of order")
            latest = arrival
        else:
            raise BadRecord("has neither `timestamp` nor `delay`")
        added = requests.add(number, prompt, output, arrival, gap, blocks, sessions.get(session))
        sessions[session] = requests.session_of(added)

    source.each_json(take)
    shared = 0 if named or not hashed else requests.chain_by_prefix()
    workload = requests.workload(sessions_from="session_id" if named else "the longest prefix of block hashes", shared_prompt_tokens=shared)
    clock.check_unit(workload, "ms")
    return workload
