"""Mooncake JSON Lines: `timestamp` (ms), `input_length` (history included), `output_length`, `hash_ids` (512 tokens, prefix-chained).

Sessions are hidden in the hashes and found by `Requests.chain_by_prefix`. The extended form names them: `session_id`,
and for later turns `delay` (ms after the end of the turn before) instead of a timestamp. Source: kvcache-ai/Mooncake, FAST25 release.
"""

import math
from collections.abc import Callable

from kvplan.traces import fields
from kvplan.traces.build import Requests
from kvplan.traces.reading import Reading
from kvplan.traces.source import BadRecord, Head, Source
from kvplan.traces.workload import Workload

NAME = "mooncake"
OFFERS = frozenset({"lengths", "times", "block hashes"})
TIME_UNIT = "ms"
EXAMPLE = """{"timestamp": 0, "input_length": 600, "output_length": 30, "hash_ids": [1, 2]}
{"timestamp": 5000, "input_length": 700, "output_length": 500, "hash_ids": [1, 3]}
"""
BLOCK_TOKENS = 512


def detect(head: Head) -> bool:
    """Whether a file begins like Mooncake's."""
    return {"input_length", "output_length"} <= head.keys and not {"chat_id", "turns"} & head.keys


def read(source: Source, reading: Reading, count_tokens: Callable[[str], int]) -> Workload:
    """All requests, in sessions. Raises TraceError with the record number and what is wrong with it."""
    requests = Requests()
    named, hashed = fields.Either("session_id"), fields.Either("hash_ids")
    sessions: dict[object, int] = {}
    latest = -math.inf

    def take(number: int, record: object) -> None:
        nonlocal latest
        record = fields.of(record, "a Mooncake record")
        prompt, output = fields.tokens(record, "input_length"), fields.tokens(record, "output_length")
        has_name, has_blocks = "session_id" in record, "hash_ids" in record
        blocks = fields.blocks(record, "hash_ids", BLOCK_TOKENS, prompt) if has_blocks else ()
        session = fields.label(record, "session_id") if has_name else number
        arrival, gap = _times(record, session in sessions)
        if not has_name and arrival < latest:
            raise BadRecord(f"`timestamp` {record['timestamp']} is before the record above it: out of order")
        named.check(has_name, number)
        hashed.check(has_blocks, number)
        added = requests.add(number, prompt, output, arrival, gap, blocks, sessions.get(session), scope=fields.scope(record))
        sessions[session] = requests.session_of(added)
        latest = arrival

    source.each_json(take)
    requests.block_tokens = BLOCK_TOKENS if hashed.given else None
    if named.given:
        return requests.workload(sessions_from="session_id")
    if not hashed.given:
        return requests.workload(requests="each a session of its own: the log has neither session_id nor hash_ids")
    return requests.workload(**requests.chain_by_prefix())


def _times(record: dict, resumes: bool) -> tuple[float, float]:
    """(arrival, think time) in seconds; a turn that resumes a session may have one of them only."""
    if resumes and "delay" in record:
        return math.nan, fields.seconds(record, "delay", 1e-3)
    if resumes and "timestamp" not in record:
        raise BadRecord("has neither `timestamp` nor `delay`")
    return fields.seconds(record, "timestamp", 1e-3), math.nan
