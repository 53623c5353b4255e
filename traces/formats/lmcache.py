"""LMCache lookup hashes, JSON Lines: `timestamp` (unix s), `chunk_size` (256), `seq_len`, `shapes`, `dtypes`, `chunk_hashes`.

A lookup knows the prompt, not the answer: answers are taken as one token, so a replay measures prefill and the cache, not decoding. What an
answer really had comes with the next prompt. Sessions are found by `Requests.chain_by_prefix`. Source: LMCache, lookup hash logging.
"""

import math
from collections.abc import Callable

from kvplan.traces import fields
from kvplan.traces.build import Requests
from kvplan.traces.reading import Reading
from kvplan.traces.source import BadRecord, Head, Source
from kvplan.traces.workload import Workload

NAME = "lmcache"
OFFERS = frozenset({"prompt lengths", "times", "block hashes"})
TIME_UNIT = "s"
EXAMPLE = """{"timestamp": 1760000000.5, "chunk_size": 256, "seq_len": 600, "shapes": [], "dtypes": [], "chunk_hashes": ["a1", "b2"]}
{"timestamp": 1760000060.5, "chunk_size": 256, "seq_len": 900, "shapes": [], "dtypes": [], "chunk_hashes": ["a1", "b2", "c3"]}
"""
CHUNK_TOKENS = 256


def detect(head: Head) -> bool:
    """Whether a file begins like a log of lookups."""
    return "chunk_hashes" in head.keys


def read(source: Source, reading: Reading, count_tokens: Callable[[str], int]) -> Workload:
    """All lookups, in sessions. Raises TraceError with the record number and what is wrong with it."""
    requests = Requests(CHUNK_TOKENS)
    latest = -math.inf

    def take(number: int, record: object) -> None:
        nonlocal latest
        record = fields.of(record, "a lookup")
        if fields.tokens(record, "chunk_size") != CHUNK_TOKENS:
            raise BadRecord(f"`chunk_size` is {record['chunk_size']}; kvplan reads {CHUNK_TOKENS}")
        prompt, arrival = fields.tokens(record, "seq_len"), fields.seconds(record, "timestamp", 1.0)
        chunks = fields.blocks(record, "chunk_hashes", CHUNK_TOKENS, prompt)
        if arrival < latest:
            raise BadRecord(f"`timestamp` {record['timestamp']} is before the record above it: out of order")
        latest = arrival
        requests.add(number, prompt, 1, arrival, blocks=chunks, scope=fields.scope(record))

    source.each_json(take)
    return requests.workload(
        answers="not in the file, taken as one token: prefill and cache are measured, decoding is not", **requests.chain_by_prefix()
    )
