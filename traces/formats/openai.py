"""OpenAI chat JSON Lines and vLLM multi-turn JSON: `{"id"?, "messages": [{"role", "content"}, …]}`, one a line or in a list.

`content` is text, a list of parts of which the text is taken, or null where a message only calls tools (then the calls' arguments are
its text). Roles as said in `kvplan.traces.messages`. No times: they come from the workload's settings.
"""

from collections.abc import Callable, Iterator

from kvplan.traces import fields
from kvplan.traces.messages import Conversations
from kvplan.traces.reading import Reading
from kvplan.traces.source import BadRecord, Head, Source
from kvplan.traces.workload import Workload

NAME = "openai"
OFFERS = frozenset({"text"})
EXAMPLE = '{"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello!"}]}\n'


def detect(head: Head) -> bool:
    """Whether a file begins like chat messages."""
    return "messages" in head.keys


def read(source: Source, reading: Reading, count_tokens: Callable[[str], int]) -> Workload:
    """All sessions, untimed. Raises TraceError with the record number and what is wrong with it."""
    conversations, ids = Conversations(count_tokens), fields.Unique("id")

    def take(number: int, record: object) -> None:
        record = fields.of(record, "a chat record")
        messages = list(_messages(record))
        if record.get("id") is not None:
            ids.check(fields.label(record, "id"), number)
        conversations.add(number, messages)

    source.each_json(take)
    return conversations.workload()


def _messages(record: dict) -> Iterator[tuple[object, str]]:
    for index, message in enumerate(fields.items(record, "messages")):
        if not isinstance(message, dict):
            raise BadRecord(f"message {index} is not an object")
        yield message.get("role"), _text(message, index)


def _text(message: dict, index: int) -> str:
    content = message.get("content")
    if isinstance(content, str):
        return content
    if content is None:
        content = [{"text": _arguments(call)} for call in _calls(message, index)]
    if not isinstance(content, list):
        raise BadRecord(f"message {index}: `content` is neither text nor a list of parts")
    texts = [part.get("text") or "" if isinstance(part, dict) else None for part in content]
    if not all(isinstance(text, str) for text in texts):
        raise BadRecord(f"message {index}: a part of `content` is no object with text")
    return "\n".join(texts)


def _calls(message: dict, index: int) -> list:
    calls = message.get("tool_calls")
    if not isinstance(calls, list | None):
        raise BadRecord(f"message {index}: `tool_calls` is not a list")
    return calls or []


def _arguments(call: object) -> str:
    function = call.get("function") if isinstance(call, dict) else None
    arguments = function.get("arguments") if isinstance(function, dict) else None
    return arguments if isinstance(arguments, str) else ""
