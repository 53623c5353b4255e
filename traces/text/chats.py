"""Files of chat messages: `{"messages": [{"role", "content"}, …]}`, whatever the envelope and whatever a record is.

What of a message is what is said in `kvplan.traces.text.parts`, where a record holds what in `exchange`, what a record is in `records`, and
what becomes of roles, chunks and unanswered prompts in `conversation`. Without times they come from the workload's settings. An id may be
missing, but not come twice.
"""

from collections.abc import Callable
from dataclasses import replace

from kvplan.traces import clock, fields
from kvplan.traces.reading import Reading
from kvplan.traces.source import Head, Source
from kvplan.traces.text import exchange
from kvplan.traces.text.conversation import Account
from kvplan.traces.text.records import Records
from kvplan.traces.workload import Workload

_MESSAGES = frozenset({"conversations", "messages", "conversation", "items", "contents"})
_ROLES = frozenset({"role", "from"})


def read_chats(source: Source, reading: Reading, count_tokens: Callable[[str], int], unit: str = "s", kind: str | None = None) -> Workload:
    """All sessions. Times that are no dates are in `unit`, and records are of this `kind`, as the format has them; None finds out. Raises
    TraceError with the record number and what is wrong with it."""
    account, ids = Account(count_tokens, reading), fields.Unique("id")
    records = Records(reading, account, kind)

    def take(number: int, record: object) -> None:
        found = exchange.read_exchange(record, reading.unit_s(unit), records.messages)
        label = fields.label(record, "id") if isinstance(record, dict) and record.get("id") is not None else None
        if label is not None:
            ids.check(label, number)
        records.add(number, found, label)

    source.each_json(take, lists=_is_bare(source.head()))
    workload = records.workload()
    doubts = clock.doubtful_times(workload, reading, unit) if records.counts_time() else ""
    return replace(workload, origin={**workload.origin, "doubtful_times": doubts}) if doubts else workload


def _is_bare(head: Head) -> bool:
    """Whether records are lists of messages, and no objects that hold them."""
    return head.container == "array" and bool(_ROLES & head.keys) and not _MESSAGES & head.keys
