"""Logs of requests with text, JSON Lines: OpenAI's batch input (`body`), `request` and `response`, `input` and `output`, …

Proxies and tracers (LiteLLM, Langfuse) and load tests write the like. Each record is a request with all of its history, unless
`workload.records` says otherwise. Times, latencies, `usage` and cached tokens are used where they are. See `kvplan.traces.text.exchange`.
"""

from collections.abc import Callable

from kvplan.traces.reading import Reading
from kvplan.traces.source import Head, Source
from kvplan.traces.text import chats
from kvplan.traces.workload import Workload

NAME = "request-log"
OFFERS = frozenset({"text"})
EXAMPLE = """\
{"request": {"messages": [{"role": "user", "content": "Hi"}]}, "response": {"usage": {"prompt_tokens": 9, "completion_tokens": 5}}}
{"request": {"messages": [{"role": "user", "content": "Say"}]}, "response": {"choices": [{"message": {"content": "What?"}}]}}
"""
_PROMPTS = frozenset({"prompt", "text_input", "input"})
_ANSWERS = frozenset({"response", "output", "completion", "outputs", "choices"})
_BODIES = "body", "request", "request_body"
_AROUND = ("body", "request", "request_body", "params", "kwargs", "input", "data")


def detect(head: Head) -> bool:
    """Whether a file begins like a log of requests."""
    inside = any({"messages", "prompt", "contents"} & head.within.get(name, frozenset()) for name in _AROUND)
    inside |= any("input" in head.within.get(name, frozenset()) for name in _BODIES)
    apart = bool(_PROMPTS & head.keys and _ANSWERS & head.keys)
    return (inside or apart) and not {"messages", "conversation", "output_length", "instruction"} & head.keys


def read(source: Source, reading: Reading, count_tokens: Callable[[str], int]) -> Workload:
    """All requests, in sessions. Raises TraceError with the record number and what is wrong with it."""
    return chats.read_chats(source, reading, count_tokens, kind="requests")
