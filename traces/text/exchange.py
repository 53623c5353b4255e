"""One record of a file of chats, in whatever envelope: its messages, the answer that stands apart from them, and what was recorded beside.

    where                       looked for
    request                     the record, its `body`, `request`, `input`, `params`, `kwargs`, or the body in one of these
    messages                    `messages`, `conversations`, `conversation`, `items`, or a text as `prompt`, `input`, `text_input`
    answer                      `response`, `output`, `completion`, … (text, a message, a list of them, or an object with `choices`,
                                `output`, `content` or `text`), or `choices` of the record
    tokens                      `usage` of OpenAI's, Anthropic's or Langfuse's, or the same names beside the messages
    times                       dates, Unix times of any unit (their size tells it), or numbers from some start

Objects may be written as JSON in a text. A text that is a whole prompt counts as a message a line, so that it is seen when a later one goes
on from it. Left out: all but what these tables name; strings of unknown keys are counted as left out.
"""

import json
import math
import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from kvplan.traces import fields
from kvplan.traces.linked import NONE
from kvplan.traces.source import BadRecord
from kvplan.traces.text import parts
from kvplan.traces.text.parts import Message
from kvplan.traces.text.rows import Messages, Recorded, Taken

_MESSAGES = "conversations", "messages", "conversation", "items"
"""Keys of messages; the first that a record has."""
_TEXTS = "prompt", "text_input", "input"
"""Keys of a prompt that may be one text."""
_REQUESTS = "body", "request", "request_body", "params", "kwargs", "input", "data"
_RESPONSES = "response", "output", "completion", "response_body", "outputs", "result"
_SESSIONS = "session_id", "sessionId", "conversation_id", "conversation_hash", "chat_id", "thread_id", "litellm_session_id"
_STARTS = (
    *("arrival_time", "start_time", "startTime", "started_at", "request_time", "timestamp", "created_at", "create_time", "created"),
    *("ts", "tstamp", "startedDateTime"),
)
_TIMED = frozenset(_STARTS)
_ENDS = "end_time", "endTime", "ended_at", "completed_at", "finished_at"
_SPANS = {"latency": 1.0, "latency_s": 1.0, "duration_s": 1.0, "latency_ms": 1e-3, "duration_ms": 1e-3, "elapsed_ms": 1e-3}
_PROMPTS = "prompt_tokens", "input_tokens", "input_length", "promptTokens", "inputTokens"
_OUTPUTS = "completion_tokens", "output_tokens", "output_length", "completionTokens", "outputTokens"
_USAGES = "usage", "usageDetails", "usage_details"
_SAID = frozenset(
    ("content", "tool_calls", "function_call", "arguments", "summary", "reasoning", "reasoning_content", "thinking", "refusal")
)
"""Keys of a message that is an answer."""
_REFUSED = 400
"""From here on an HTTP status is an error."""
_BESIDE_PROMPT = "cache_read_input_tokens", "cache_creation_input_tokens"
"""Anthropic's `input_tokens` are without these."""
_RECORDED = frozenset((*_STARTS, *_ENDS, *_SPANS, *_PROMPTS, *_OUTPUTS, *_USAGES))
_KNOWN = frozenset((*_MESSAGES, *_TEXTS, *_REQUESTS, *_RESPONSES, *_SESSIONS, *_RECORDED, "choices"))


class Exchange(NamedTuple):
    """A record."""

    messages: list[Taken]
    """What stands beside the messages, then these."""
    times_s: list[float]
    """Of each, where it has one; NaN."""
    answer: list[Taken]
    """What stands apart of the messages as the answer to them."""
    session: str | None
    recorded: Recorded
    failed: bool
    """Whether the request was refused: there is no answer, but an error."""


def read(record: object, unit_s: float, take: Messages) -> Exchange:
    """A record, whose numbers of time are of this unit, with its messages taken in. Raises BadRecord."""
    record = {"messages": record} if isinstance(record, list) else fields.of(record, "a conversation")
    around = [record, *_objects(record, _REQUESTS)]
    around += [inner for outer in around[1:] for inner in _objects(outer, ("body", "input"))]
    request, key = _request(around)
    found = _opened(request[key])
    if isinstance(found, str):
        found = [{"role": "user", "content": line} for line in re.findall(r"[^\n]*\n+|[^\n]+$", found)]
    if not isinstance(found, list):
        raise BadRecord(f"`{key}` is not a list of messages")
    response = next((value for each in around for name in _RESPONSES if name != key and (value := each.get(name)) is not None), None)
    envelope = _opened(response)
    if isinstance(envelope, dict) and isinstance(inner := _opened(envelope.get("body")), dict):
        envelope = inner
    if envelope is None and record.get("choices") is not None:
        envelope = {"choices": record["choices"]}
    answer = _answer(envelope)
    sides = [*around, *([envelope] if isinstance(envelope, dict) else [])]
    recorded = _recorded(sides, unit_s)
    messages = _messages(request, found, [each for each in around if each is not request], take)
    times = [math.nan] * (len(messages) - len(found)) + _times(found, unit_s)
    answers = [Taken(message, take.counted(message)) for message in answer]
    failed = not answer and recorded.output <= 0 and _failed([*sides, *_objects(record, _RESPONSES)])
    return Exchange(messages, times, answers, _session(around), recorded, failed)


def _opened(value: object) -> object:
    """A value, or what the JSON says that it holds as text."""
    if isinstance(value, str) and value[:1] in "{[" and value[:1]:
        try:
            return json.loads(value)
        except (ValueError, RecursionError):
            return value
    return value


def _objects(record: Mapping[str, Any], names: Iterable[str]) -> list[dict[str, Any]]:
    return [value for name in names if isinstance(value := _opened(record.get(name)), dict)]


def _request(around: list[dict[str, Any]]) -> tuple[dict[str, Any], str]:
    """The object that holds the messages, and their key."""
    for keys, kinds in ((_MESSAGES, (list, dict)), (_TEXTS, (list, str))):
        for each in around:
            for key in keys:
                if key in each and (keys is _MESSAGES or isinstance(_opened(each[key]), kinds)):
                    return each, key
    raise BadRecord(
        f"has no messages, under none of {', '.join((*_MESSAGES, *_TEXTS))}: the fields are {', '.join(map(repr, list(around[0])[:8]))}"
    )


def _messages(request: dict[str, Any], found: list, others: list[dict[str, Any]], take: Messages) -> list[Taken]:
    """The messages, after what stands beside them."""
    sides = [parts.beside(each, _KNOWN) for each in (request, *others)]
    beside = sides[0]._replace(
        texts=[text for each in sides for text in each.texts], left_out=[entry for each in sides for entry in each.left_out]
    )
    placeholders, messages = bool(beside.pictures + beside.attachments), []
    for index, each in enumerate(found):
        try:
            messages.append(take.of(each, placeholders))
        except BadRecord as error:
            raise BadRecord(f"message {index}: {error}") from None
    beside = _less(beside, [each.message for each in messages]) if placeholders else beside
    return [Taken(beside, take.counted(beside)), *messages]


def _less(beside: Message, messages: list[Message]) -> Message:
    """What stands beside the messages, without the media that have their place in one of them."""
    pictures, attachments = (sum(getattr(each, name) for each in messages) for name in ("pictures", "attachments"))
    return beside._replace(pictures=max(0, beside.pictures - pictures), attachments=max(0, beside.attachments - attachments))


def _answer(found: object) -> list[Message]:
    """The messages of a response; none where there is no text."""
    if isinstance(found, str):
        found = {"content": found}
    if isinstance(found, list):
        return [message for each in found for message in _answer(_opened(each))]
    if not isinstance(found, dict):
        return []
    if isinstance(choices := found.get("choices"), list):
        return [message for choice in choices if isinstance(choice, dict) for message in _answer(choice.get("message", choice.get("text")))]
    if isinstance(items := found.get("output", found.get("message")), list | dict) and "role" not in found:
        return _answer(items)
    if not _SAID.isdisjoint(found):
        return [parts.message({**found, "role": "assistant"})]
    return _answer(next((found[name] for name in ("text", "output_text", "completion", "response", "answer") if found.get(name)), None))


def _failed(sides: list[dict[str, Any]]) -> bool:
    """Whether a server refused the request."""
    statuses = [side.get(name) for side in sides for name in ("status_code", "statusCode", "status")]
    return any(side.get("error") for side in sides) or any(type(status) is int and status >= _REFUSED for status in statuses)


def _session(around: list[dict[str, Any]]) -> str | None:
    places = [*around, *(inner for each in around for inner in _objects(each, ("metadata", "extra_body")))]
    for each in places:
        for name in _SESSIONS:
            if each.get(name) is not None:
                return str(fields.label(each, name))
    return None


def _recorded(sides: list[dict[str, Any]], unit_s: float) -> Recorded:
    sides = [side for side in sides if not _RECORDED.isdisjoint(side)]
    if not sides:
        return Recorded()
    sent = _first_time(sides, _STARTS, unit_s)
    ended = _first_time(sides, _ENDS, unit_s)
    if math.isnan(ended):
        span = next(((each, name) for each in sides for name in _SPANS if each.get(name) is not None), None)
        ended = sent + fields.seconds(*span, _SPANS[span[1]]) if span else ended
    if ended < sent:
        raise BadRecord(f"ends {sent - ended:,.3g} s before it begins")
    for each in [usage for side in sides for usage in _objects(side, _USAGES)] + sides:
        if (prompt := _count(each, _PROMPTS)) != NONE or _count(each, _OUTPUTS) != NONE:
            details = _objects(each, ("prompt_tokens_details", "input_tokens_details"))
            cached = next((count for detail in (*details, each) if (count := _count(detail, ("cached_tokens",))) != NONE), NONE)
            if prompt != NONE and (beside := [_count(each, (name,)) for name in _BESIDE_PROMPT]) != [NONE, NONE]:
                cached, prompt = beside[0], prompt + sum(max(count, 0) for count in beside)
            if cached > prompt:
                raise BadRecord(f"{cached:,} cached tokens are more than the {max(prompt, 0):,} of the prompt")
            return Recorded(sent, ended, prompt or NONE, _count(each, _OUTPUTS), cached if prompt > 0 else NONE)
    return Recorded(sent, ended)


def _count(found: Mapping[str, Any], names: Iterable[str]) -> int:
    name = next((name for name in names if found.get(name) is not None), None)
    return NONE if name is None else fields.tokens(dict(found), name, low=0)


def _first_time(sides: Iterable[dict[str, Any]], names: Iterable[str], unit_s: float) -> float:
    place = next(((each, name) for each in sides for name in names if each.get(name) is not None), None)
    return math.nan if place is None else fields.moment(*place, unit_s)


def _times(messages: list, unit_s: float) -> list[float]:
    """Of each message. Raises BadRecord where one is before another above it."""
    times, latest = [math.nan] * 0, -math.inf
    for index, message in enumerate(messages):
        timed = isinstance(message, dict) and len(message) > 1 and not _TIMED.isdisjoint(message)
        times.append(_first_time([message], _STARTS, unit_s) if timed else math.nan)
        if times[-1] < latest:
            raise BadRecord(f"message {index}: comes {latest - times[-1]:,.3g} s before one above it: out of order")
        latest = max(latest, times[-1]) if not math.isnan(times[-1]) else latest
    return times
