"""Mooncake JSON Lines: `timestamp` (ms), `input_length` (history included), `output_length`, `hash_ids` (512 tokens, or `block_size`;
prefix-chained).

Sessions are hidden in the hashes and found by `Requests.chain_by_prefix`. The extended form names them: `session_id`,
and for later turns `delay` (ms after the end of the turn before) instead of a timestamp; who writes it (AIPerf, Dynamo) counts new tokens
only, unless the evidence is that all are counted (`kvplan.traces.records`). Source: kvcache-ai/Mooncake, FAST25 release.
"""

import math
from collections.abc import Callable

from kvplan.traces import fields, records
from kvplan.traces.blocksize import BlockSize
from kvplan.traces.build import Requests
from kvplan.traces.reading import Reading
from kvplan.traces.source import BadRecord, Head, Source
from kvplan.traces.stamps import Stamps
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
    requests, size = Requests(source=source), BlockSize(BLOCK_TOKENS, reading)
    named, hashed, stamps = fields.Either("session_id"), fields.Either("hash_ids"), Stamps("timestamp", reading, TIME_UNIT)
    sessions: dict[object, int] = {}
    unit_s = reading.unit_s(TIME_UNIT)

    def take(number: int, record: object) -> None:
        nonlocal size
        record = fields.of(record, "a Mooncake record")
        prompt, output = fields.tokens(record, "input_length"), fields.tokens(record, "output_length", low=0)
        has_name, has_blocks = "session_id" in record, "hash_ids" in record
        session = fields.label(record, "session_id") if has_name else number
        arrival, gap = _times(record, session in sessions, stamps, unit_s)
        named.check(has_name, number)
        hashed.check(has_blocks, number)
        left = size.said(record, "block_size").narrowed(record, "hash_ids", prompt) if has_blocks else size
        blocks, scope = fields.hashes(record["hash_ids"], "hash_ids") if has_blocks else (), fields.scope(record)
        added = requests.add(number, prompt, output, arrival, gap, blocks, sessions.get(session), scope=scope)
        size = left
        sessions[session] = requests.session_of(added)

    source.each_json(take)
    if not hashed.given:
        if named.given:
            return requests.workload(reading, records.INCREMENTS, False, sessions_from="session_id", **stamps.origin())
        alone = "each a session of its own: the log has neither session_id nor hash_ids"
        return requests.workload(reading, records.REQUESTS, requests=alone, **stamps.origin())
    requests.block_tokens = size.tokens()
    if named.given:
        return requests.workload(reading, records.INCREMENTS, False, sessions_from="session_id", **size.origin(), **stamps.origin())
    return requests.workload(reading, records.REQUESTS, **requests.chain_by_prefix(), **size.origin(), **stamps.origin())


def _times(record: dict, resumes: bool, stamps: Stamps, unit_s: float) -> tuple[float, float]:
    """(arrival, think time) in seconds; a turn that resumes a session may have one of them only."""
    if resumes and "delay" in record:
        return math.nan, fields.seconds(record, "delay", unit_s)
    if resumes and "timestamp" not in record:
        raise BadRecord("has neither `timestamp` nor `delay`")
    return stamps.seconds(record), math.nan
