"""Files of chat messages, one conversation a record: `{"messages": [{"role", "content"}, …]}`, and what else the key is called.

What of a message is what is said in `kvplan.traces.text.parts`, and what becomes of roles, chunks and unanswered prompts in
`kvplan.traces.text.conversation`. No times: they come from the workload's settings. An id may be missing, but not come twice.
"""

from collections.abc import Callable

from kvplan.traces import fields
from kvplan.traces.reading import Reading
from kvplan.traces.source import BadRecord, Head, Source
from kvplan.traces.text import parts
from kvplan.traces.text.conversation import Conversations
from kvplan.traces.workload import Workload

_MESSAGES = "conversations", "messages", "conversation", "items"
"""Keys of the messages; the first that a record has."""
_ROLES = frozenset({"role", "from"})
_IDS = "id", "conversation_id"


def read(source: Source, reading: Reading, count_tokens: Callable[[str], int]) -> Workload:
    """All sessions, untimed. Raises TraceError with the record number and what is wrong with it."""
    conversations, ids = Conversations(count_tokens, reading), fields.Unique("id")

    def take(number: int, record: object) -> None:
        record = {"messages": record} if isinstance(record, list) else fields.of(record, "a conversation")
        messages = of(record)
        name = next((name for name in _IDS if record.get(name) is not None), None)
        if name:
            ids.check(fields.label(record, name), number)
        conversations.add(number, messages)

    source.each_json(take, lists=_is_bare(source.head()))
    return conversations.workload()


def _is_bare(head: Head) -> bool:
    """Whether records are lists of messages, and no objects that hold them."""
    return head.container == "array" and bool(_ROLES & head.keys) and not {*_MESSAGES} & head.keys


def of(record: dict) -> list[parts.Message]:
    """The messages of a record, after what stands beside them. Raises BadRecord."""
    key = next((key for key in _MESSAGES if key in record), None)
    if key is None:
        raise BadRecord(f"has no messages, under none of {', '.join(_MESSAGES)}: the fields are {', '.join(map(repr, list(record)[:8]))}")
    beside = parts.beside(record, frozenset({key}))
    messages = parts.messages(fields.items(record, key), placeholders=bool(beside.pictures + beside.attachments))
    return [_less(beside, messages), *messages]


def _less(beside: parts.Message, messages: list[parts.Message]) -> parts.Message:
    """What stands beside the messages, without the media that have their place in one of them."""
    pictures, attachments = (sum(getattr(each, name) for each in messages) for name in ("pictures", "attachments"))
    return beside._replace(pictures=max(0, beside.pictures - pictures), attachments=max(0, beside.attachments - attachments))
