"""SGLang's agentic traces, JSON: `conversations`, lists of requests: `messages` that each adds to the one before, `prompt_tokens`.

`prompt_tokens` counts the whole prompt, history included; where it is missing the messages are counted. The answer to a request begins the
messages of the next; the last one's is not in the file and is taken as one token.
"""

from collections.abc import Callable

from kvplan.traces import fields
from kvplan.traces.reading import Reading
from kvplan.traces.source import BadRecord, Head, Source
from kvplan.traces.text import exchange
from kvplan.traces.text.conversation import Account
from kvplan.traces.text.records import Records
from kvplan.traces.workload import Workload

NAME = "sglang"
OFFERS = frozenset({"text", "lengths"})
EXAMPLE = """\
{"conversations": [[{"messages": [{"role": "user", "content": "Fix it."}], "prompt_tokens": 700}, {"messages": [{"role": "assistant", "content": "Reading."}, {"role": "user", "content": "def f(): pass"}], "prompt_tokens": 760}]]}
"""  # noqa: E501


def detect(head: Head) -> bool:
    """Whether a file begins like SGLang's."""
    return "messages" in head.within.get("conversations", frozenset())


def read(source: Source, reading: Reading, count_tokens: Callable[[str], int]) -> Workload:
    """All requests, in sessions. Raises TraceError with the record number and what is wrong with it."""
    records = Records(reading, Account(count_tokens, reading), "increments")
    sessions = 0

    def take(number: int, record: object) -> None:
        nonlocal sessions
        found = []
        for place, requests in enumerate(fields.items(fields.of(record, "a file of SGLang's"), "conversations")):
            for index, request in enumerate(fields.items({"requests": requests}, "requests")):
                try:
                    found.append((sessions + place, exchange.read_exchange(request, reading.unit_s("s"), records.messages)))
                except BadRecord as error:
                    raise BadRecord(f"conversation {place}, request {index}: {error}") from None
        for session, each in found:
            records.add(number, each, session=str(session))
        sessions = max((session + 1 for session, _ in found), default=sessions)

    source.each_json(take)
    return records.workload()
