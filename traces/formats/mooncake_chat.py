"""Mooncake's rows with text, JSON Lines: `timestamp` (ms), `messages` or a text as `prompt` or `text_input`, `output_length`, `session_id`?

Each is a request with all of its history, and its answer has `output_length` tokens. See `kvplan.traces.text.chats`.
"""

from collections.abc import Callable

from kvplan.traces.reading import Reading
from kvplan.traces.source import Head, Source
from kvplan.traces.text import chats
from kvplan.traces.workload import Workload

NAME = "mooncake-chat"
OFFERS = frozenset({"text", "times"})
EXAMPLE = """\
{"timestamp": 0, "messages": [{"role": "user", "content": "Hi"}], "output_length": 30}
{"timestamp": 9000, "messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello!"}, {"role": "user", "content": "Bye"}], "output_length": 9}
"""  # noqa: E501


def detect(head: Head) -> bool:
    """Whether a file begins like Mooncake's with text."""
    return "output_length" in head.keys and bool({"messages", "prompt", "text_input"} & head.keys)


def read(source: Source, reading: Reading, count_tokens: Callable[[str], int]) -> Workload:
    """All requests, in sessions. Raises TraceError with the record number and what is wrong with it."""
    return chats.read_chats(source, reading, count_tokens, unit="ms", kind="requests")
