"""Qwen-Bailian JSON Lines: `chat_id`, `parent_chat_id` (−1: none), `timestamp` (s), `input_length` (history included), `output_length`,
`type`, `turn`, `hash_ids` (16 tokens, or `block_size`).

A chat goes on from its parent. When a parent has gone on already (the user edited a message or asked again), the second child begins a
session of its own with all of its context as prompt, and is counted: a store of whole sessions cannot share what they have in common.
A parent that is not in the file (it was cut) also begins a session; one that comes after its child is refused. `type` is the tenant.
Source: Qwen-Bailian usage traces (Alibaba).
"""

from collections import Counter
from collections.abc import Callable

from kvplan.traces import fields, records
from kvplan.traces.blocksize import BlockSize
from kvplan.traces.build import Requests
from kvplan.traces.reading import Reading
from kvplan.traces.source import BadRecord, Head, Source
from kvplan.traces.stamps import Stamps
from kvplan.traces.workload import Workload

NAME = "bailian"
OFFERS = frozenset({"lengths", "times", "block hashes", "tenants"})
TIME_UNIT = "s"
EXAMPLE = """\
{"chat_id": 1, "parent_chat_id": -1, "timestamp": 0, "input_length": 20, "output_length": 9, "type": "text", "turn": 1, "hash_ids": [7, 8]}
{"chat_id": 2, "parent_chat_id": 1, "timestamp": 60, "input_length": 30, "output_length": 9, "type": "text", "turn": 2, "hash_ids": [7, 9]}
"""
BLOCK_TOKENS = 16
_NONE = "-1"


def detect(head: Head) -> bool:
    """Whether a file begins like Bailian's."""
    return {"chat_id", "parent_chat_id"} <= head.keys


def read(source: Source, reading: Reading, count_tokens: Callable[[str], int]) -> Workload:
    """All requests, in sessions. Raises TraceError with the record number and what is wrong with it."""
    requests, ids, size = Requests(source=source), fields.Unique("chat_id"), BlockSize(BLOCK_TOKENS, reading)
    stamps = Stamps("timestamp", reading, TIME_UNIT)
    chats: dict[str, tuple[int, int]] = {}
    orphans: dict[str, int] = {}
    found: Counter[str] = Counter()

    def take(number: int, record: object) -> None:
        nonlocal size
        record = fields.of(record, "a Bailian record")
        chat, parent = (str(fields.label(record, name)) for name in ("chat_id", "parent_chat_id"))
        prompt, output = fields.tokens(record, "input_length"), fields.tokens(record, "output_length", low=0)
        arrival = stamps.seconds(record)
        turn, tenant = fields.tokens(record, "turn", low=0), fields.tag(record, "type")
        before, turn_before = chats.get(parent, (None, 0))
        if before is not None and turn <= turn_before:
            raise BadRecord(f"`turn` is {turn}, but its parent's is {turn_before}: turns out of order")
        if chat in orphans:
            raise BadRecord("turns out of order: is the parent of", orphans[chat])
        forks = before is not None and not requests.is_tip(before)
        ids.check(chat, number)
        left = size.said(record, "block_size").narrowed(record, "hash_ids", prompt)
        blocks = fields.hashes(record["hash_ids"], "hash_ids")
        session = None if before is None or forks else requests.session_of(before)
        added = requests.add(number, prompt, output, arrival, blocks=blocks, session=session, tenant=tenant, scope=fields.scope(record))
        chats[chat] = added, turn
        size = left
        found["links_of_second_children"] += forks
        if before is None and parent != _NONE:
            orphans.setdefault(parent, number)
            found["parents"] += 1

    source.each_json(take)
    requests.block_tokens = size.tokens()
    return requests.workload(reading, records.REQUESTS, left_out=found, sessions_from="parent_chat_id", **size.origin(), **stamps.origin())
