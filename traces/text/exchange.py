"""One record of a file of chats, in whatever envelope: its messages, the answer that stands apart from them, and what was recorded beside.

    where                       looked for
    request                     the record, its `body`, `request`, `input`, `params`, `kwargs`, or the body in one of these
    messages                    `messages`, `conversations`, `conversation`, `items`, `contents`, or a text as `prompt`, `input`, …
    answer                      `response`, `output`, `completion`, … (text, a message, a list of them, or an object with `choices`,
                                `output`, `content` or `text`), or `choices` of the record
    session                     `session_id`, …; in OpenAI's Responses API the one of `previous_response_id`
    tokens                      `usage` of OpenAI's, Anthropic's, Gemini's or Langfuse's, or the same names beside the messages
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

_MESSAGES = "conversations", "messages", "conversation", "items", "contents"
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
_PROMPTS = "prompt_tokens", "input_tokens", "input_length", "promptTokens", "inputTokens", "promptTokenCount"
_OUTPUTS = "completion_tokens", "output_tokens", "output_length", "completionTokens", "outputTokens", "candidatesTokenCount"
_USAGES = "usage", "usageDetails", "usage_details", "usageMetadata"
_SAID = frozenset(
    ("content", "tool_calls", "function_call", "arguments", "summary", "reasoning", "reasoning_content", "thinking", "refusal")
)
"""Keys of a message that is an answer."""
_REFUSED = 400
"""From here on an HTTP status is an error."""
_BESIDE_PROMPT = "cache_read_input_tokens", "cache_creation_input_tokens"
"""Anthropic's `input_tokens` are without these."""
_BESIDE_OUTPUT = ("thoughtsTokenCount",)
"""Gemini's `candidatesTokenCount` is without reasoning."""
_CACHED = "cached_tokens", "cachedContentTokenCount"
_PREVIOUS = "previous_response_id"
_RECORDED = frozenset((*_STARTS, *_ENDS, *_SPANS, *_PROMPTS, *_OUTPUTS, *_USAGES))
_LABELS = _RECORDED.union(_SESSIONS)
_CHOICES = "choices", "candidates"
_WITHIN = "body", *_CHOICES, "output", "message"
"""What holds the messages of a response."""
_ANSWERS = "text", "output_text", "completion", "response", "answer"
"""Keys of a response's text that are none of a message's."""


class Exchange(NamedTuple):
    """A record."""

    messages: list[Taken]
    """What stands beside the messages, then these."""
    times_s: list[float]
    """Of each, where it has one; NaN."""
    answer: list[Taken]
    """What stands apart of the messages as the answer to them."""
    session: str | None
    own: str | None
    """Name of its response, where others may name it as the one that they go on from."""
    previous: str | None
    """Name of the response that it goes on from, whose server keeps the history."""
    recorded: Recorded
    is_text: bool
    """Whether the prompt is one text, and its lines are the messages."""
    failed: bool
    """Whether the request was refused: there is no answer, but an error."""


class _Side(NamedTuple):
    """An object of a record's envelope."""

    found: dict[str, Any]
    used: set[str]
    """Keys of what is read on its own."""

    def rest(self) -> dict[str, Any]:
        """What else is in it, but for labels."""
        return {key: value for key, value in self.found.items() if key not in self.used and key not in _LABELS}


def read_exchange(record: object, unit_s: float, take: Messages) -> Exchange:
    """A record, whose numbers of time are of this unit, with its messages taken in. Raises BadRecord."""
    sides = _sides({"messages": record} if isinstance(record, list) else fields.of(record, "a conversation"))
    request, key = _request(sides)
    found = _opened(request.found[key])
    if key in _TEXTS and isinstance(found, list) and found and all(type(token) is int for token in found):
        raise BadRecord(f"`{key}` holds ids of tokens, and no text: write their number there, and name it: --columns prompt={key},output=…")
    is_text = isinstance(found, str)
    if isinstance(found, str):
        found = [{"role": "user", "content": line} for line in re.findall(r"[^\n]*\n+|[^\n]+$", found)]
    if not isinstance(found, list):
        raise BadRecord(f"`{key}` is not a list of messages")
    request.used.add(key)
    response = _Response()
    response.add(_reply(sides, key))
    envelopes = [side.found for side in sides]
    recorded = _recorded([*envelopes, *response.envelopes], unit_s)
    messages = _messages([request, *(side for side in sides if side is not request)], found, response.left_out, take)
    times = [math.nan] * (len(messages) - len(found)) + _times(found, unit_s)
    answers = [Taken(message, take.counted(message)) for message in response.messages]
    failed = not answers and recorded.output <= 0 and _failed([*envelopes, *response.envelopes])
    own, previous = _thread(envelopes, response.envelopes)
    return Exchange(messages, times, answers, _session(envelopes), own, previous, recorded, is_text, failed)


def _sides(record: dict[str, Any]) -> list[_Side]:
    """The record, and the objects in it that may hold a request."""
    sides = [_Side(record, set())]
    for depth, names in enumerate((_REQUESTS, ("body", "input"))):
        for outer in sides[depth:]:
            inner = {name: value for name in names if isinstance(value := _opened(outer.found.get(name)), dict)}
            outer.used.update(inner)
            sides += [_Side(value, set()) for value in inner.values()]
    return sides


def _reply(sides: list[_Side], key: str) -> object:
    """What stands apart of the messages, which are under `key`, as the answer to them."""
    for side in sides:
        for name in _RESPONSES:
            if name != key and side.found.get(name) is not None:
                side.used.add(name)
                return _opened(side.found[name])
    first = sides[0]
    if first.found.get("choices") is None:
        return None
    first.used.add("choices")
    return {"choices": first.found["choices"]}


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


def _request(sides: list[_Side]) -> tuple[_Side, str]:
    """The object that holds the messages, and their key."""
    for keys, kinds in ((_MESSAGES, (list, dict)), (_TEXTS, (list, str))):
        for side in sides:
            for key in keys:
                if key in side.found and (keys is _MESSAGES or isinstance(_opened(side.found[key]), kinds)):
                    return side, key
    has = ", ".join(map(repr, list(sides[0].found)[:8]))
    lists = [name for name, value in sides[0].found.items() if isinstance(value, list) and value and isinstance(value[0], dict)]
    then = f"; records that stand in a list: jq -c '.{lists[0]}[]'" if len(lists) == 1 and lists[0].isidentifier() else ""
    raise BadRecord(f"has no messages, under none of {', '.join((*_MESSAGES, *_TEXTS))}: the fields are {has}{then}")


def _messages(sides: list[_Side], found: list, left_out: list[tuple[str, str]], take: Messages) -> list[Taken]:
    """The messages, after what stands beside them."""
    beside = parts.beside(*(side.rest() for side in sides))
    beside = beside._replace(left_out=[*beside.left_out, *left_out])
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


class _Response:
    """The messages of a response, and what else stands in it."""

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self.envelopes: list[dict[str, Any]] = []
        """Objects around them, which may say how long they are."""
        self.left_out: list[tuple[str, str]] = []

    def add(self, found: object) -> None:
        """A text, a message, an object that holds one, or a list of them. Raises BadRecord."""
        if isinstance(found, str):
            self._message({"content": found})
        elif isinstance(found, list):
            for each in found:
                self.add(_opened(each))
        elif isinstance(found, dict):
            self._object(found)

    def _object(self, found: dict[str, Any]) -> None:
        inner = next((name for name in _WITHIN if isinstance(_opened(found.get(name)), list | dict)), None)
        if inner is None or ("role" in found and inner not in _CHOICES):
            self._message(found)
        elif inner in _CHOICES:
            self._around(found, inner)
            for choice in fields.items({inner: _opened(found[inner])}, inner):
                self._choice(choice)
        else:
            self._around(found, inner)
            self.add(_opened(found[inner]))

    def _around(self, found: dict[str, Any], inner: str) -> None:
        self.envelopes.append(found)
        self.left_out += parts.no_part(found, _LABELS | {inner})

    def _choice(self, choice: object) -> None:
        choice = fields.of(choice, "a choice")
        inner = next((name for name in ("message", "delta", "content") if choice.get(name) is not None), "text")
        self.left_out += parts.no_part(choice, frozenset({inner}))
        self.add(choice.get(inner))

    def _message(self, found: dict[str, Any]) -> None:
        """An answer, whatever its role; a text that no message has under such a key is its content."""
        self.envelopes.append(found)
        told = {key: value for key, value in found.items() if key not in _LABELS}
        named = next((name for name in _ANSWERS if isinstance(told.get(name), str)), None) if told.get("content") is None else None
        if named:
            told["content"] = told.pop(named)
        message = parts.message({**told, "role": "assistant"})
        if not _SAID.isdisjoint(told) or message.texts or message.reasoning or message.pictures or message.attachments:
            self.messages.append(message)
        else:
            self.left_out += message.left_out


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


def _thread(around: list[dict[str, Any]], answer: list[dict[str, Any]]) -> tuple[str | None, str | None]:
    """Names of the response and of the one that it goes on from, in logs that say the latter, be it null."""
    said = [each for each in (*answer, *around) if _PREVIOUS in each]
    if not said:
        return None, None
    own = next((str(fields.label(each, "id")) for each in (*answer, *around) if each.get("id") is not None), None)
    return own, next((str(fields.label(each, _PREVIOUS)) for each in said if each[_PREVIOUS] is not None), None)


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
        output = _count(each, _OUTPUTS)
        if (prompt := _count(each, _PROMPTS)) != NONE or output != NONE:
            details = _objects(each, ("prompt_tokens_details", "input_tokens_details"))
            cached = next((count for detail in (*details, each) if (count := _count(detail, _CACHED)) != NONE), NONE)
            if prompt != NONE and (beside := [_count(each, (name,)) for name in _BESIDE_PROMPT]) != [NONE, NONE]:
                cached, prompt = beside[0], prompt + sum(max(count, 0) for count in beside)
            if cached > prompt:
                raise BadRecord(f"{cached:,} cached tokens are more than the {max(prompt, 0):,} of the prompt")
            output += max(_count(each, _BESIDE_OUTPUT), 0) if output != NONE else 0
            return Recorded(sent, ended, prompt or NONE, output, cached if prompt > 0 else NONE)
    return Recorded(sent, ended)


def _count(found: Mapping[str, Any], names: Iterable[str]) -> int:
    name = next((name for name in names if found.get(name) is not None), None)
    return NONE if name is None else fields.tokens(dict(found), name, low=0)


def _first_time(sides: Iterable[dict[str, Any]], names: Iterable[str], unit_s: float) -> float:
    place = next(((each, name) for each in sides for name in names if each.get(name) is not None), None)
    return math.nan if place is None else fields.moment(*place, unit_s)


def _times(messages: list, unit_s: float) -> list[float]:
    """Of each message. Raises BadRecord where one is before another above it."""
    times, latest = [math.nan] * len(messages), -math.inf
    for index, message in enumerate(messages):
        if not isinstance(message, dict) or _TIMED.isdisjoint(message):
            continue
        times[index] = time_s = _first_time([message], _STARTS, unit_s)
        if time_s < latest:
            raise BadRecord(f"message {index}: comes {latest - time_s:,.3g} s before one above it: out of order")
        latest = latest if math.isnan(time_s) else max(latest, time_s)
    return times
