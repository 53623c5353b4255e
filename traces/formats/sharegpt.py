"""ShareGPT JSON: a list of `{"id", "conversations": [{"from", "value"}, …]}`.

What becomes of roles, chunks and unanswered prompts is said in `kvplan.traces.messages`. The format has no times: arrivals and think times
come from the workload's settings. An id may be missing, but not come twice.
"""

from collections.abc import Callable, Iterator

from kvplan.traces import fields
from kvplan.traces.messages import Conversations
from kvplan.traces.reading import Reading
from kvplan.traces.source import BadRecord, Head, Source
from kvplan.traces.workload import Workload

NAME = "sharegpt"
OFFERS = frozenset({"text"})
EXAMPLE = '[{"id": "a_0", "conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello!"}]}]'


def detect(head: Head) -> bool:
    """Whether a file begins like ShareGPT."""
    return "conversations" in head.keys


def read(source: Source, reading: Reading, count_tokens: Callable[[str], int]) -> Workload:
    """All sessions, untimed. Raises TraceError with the record number and what is wrong with it."""
    conversations, ids = Conversations(count_tokens), fields.Unique("id")

    def take(number: int, record: object) -> None:
        record = fields.of(record, "a ShareGPT record")
        messages = list(_messages(record))
        if record.get("id") is not None:
            ids.check(fields.label(record, "id"), number)
        conversations.add(number, messages)

    source.each_json(take)
    return conversations.workload()


def _messages(record: dict) -> Iterator[tuple[object, str]]:
    for index, message in enumerate(fields.items(record, "conversations")):
        if not isinstance(message, dict) or not isinstance(message.get("value"), str):
            raise BadRecord(f"message {index}: `value` is not text")
        yield message.get("from"), message["value"]
