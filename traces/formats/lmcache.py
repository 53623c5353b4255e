"""LMCache lookup hashes, JSON Lines: `timestamp` (unix s), `chunk_size` (256 by default), `seq_len`, `shapes`, `dtypes`,
`chunk_hashes`.

A lookup knows the prompt, not the answer: answers are taken as none, so a replay measures prefill and the cache, not decoding. What an
answer really had comes with the next prompt. Sessions are found by `Requests.chain_by_prefix`. Source: LMCache, lookup hash logging.
"""

from collections.abc import Callable

from kvplan.traces import fields, records
from kvplan.traces.blocksize import BlockSize
from kvplan.traces.build import Requests
from kvplan.traces.reading import Reading
from kvplan.traces.source import Head, Source
from kvplan.traces.stamps import Stamps
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
    requests, size, stamps = Requests(source=source), BlockSize(CHUNK_TOKENS, reading), Stamps("timestamp", reading, TIME_UNIT)

    def take(number: int, record: object) -> None:
        nonlocal size
        record = fields.of(record, "a lookup")
        prompt, arrival = fields.tokens(record, "seq_len"), stamps.seconds(record)
        left = size.said(record, "chunk_size").narrowed(record, "chunk_hashes", prompt)
        chunks, scope = fields.hashes(record["chunk_hashes"], "chunk_hashes"), fields.scope(record)
        requests.add(number, prompt, 0, arrival, blocks=chunks, scope=scope)
        size = left

    source.each_json(take)
    requests.block_tokens = size.tokens()
    return requests.workload(
        reading,
        records.REQUESTS,
        answers="not in the file, taken as none: prefill and cache are measured, decoding is not",
        **requests.chain_by_prefix(),
        **size.origin(),
        **stamps.origin(),
    )
