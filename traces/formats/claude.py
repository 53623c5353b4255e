"""Claude Code transcripts, JSON Lines: `type`, `uuid`, `parentUuid`, `sessionId`, `timestamp`, `message` with `usage`.

A request is all lines with one `message.id` and `requestId`: every part of a streamed answer is written with the usage of the whole. Its
prompt is `input_tokens` and what was written to and read from the cache; it is sent when its parent line was written, and ends with its
last line. It goes on from the nearest answer above it. Subagents (`isSidechain`, `agentId`) are sessions of their own; so is what was asked
again after an answer was taken back (a fork). Lines that a resumed session repeats count once. Calls that failed (`isApiErrorMessage`, the
model `<synthetic>`) are left out and counted. Text is not counted: the recorded tokens hold it. A folder of transcripts is one trace.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

from kvplan.traces import fields
from kvplan.traces.linked import NONE, Linked
from kvplan.traces.reading import Reading
from kvplan.traces.source import Head, Source
from kvplan.traces.workload import Workload

NAME = "claude-code"
OFFERS = frozenset({"lengths", "times", "think times", "cached tokens"})
EXAMPLE = """\
{"type": "user", "uuid": "u1", "parentUuid": null, "sessionId": "s", "timestamp": "2026-06-01T10:00:00Z", "message": {"role": "user", "content": "Rename f."}}
{"type": "assistant", "uuid": "u2", "parentUuid": "u1", "sessionId": "s", "timestamp": "2026-06-01T10:00:05Z", "requestId": "r1", "message": {"id": "m1", "role": "assistant", "content": [], "usage": {"input_tokens": 4, "cache_creation_input_tokens": 3000, "cache_read_input_tokens": 9000, "output_tokens": 120}}}
{"type": "user", "uuid": "u3", "parentUuid": "u2", "sessionId": "s", "timestamp": "2026-06-01T10:00:07Z", "message": {"role": "user", "content": []}}
{"type": "assistant", "uuid": "u4", "parentUuid": "u3", "sessionId": "s", "timestamp": "2026-06-01T10:00:12Z", "requestId": "r2", "message": {"id": "m2", "role": "assistant", "content": [], "usage": {"input_tokens": 4, "cache_creation_input_tokens": 900, "cache_read_input_tokens": 12000, "output_tokens": 80}}}
"""  # noqa: E501
_MESSAGES = ("user", "assistant")


class _Line(NamedTuple):
    """What later lines need of one: the request at or above it, when it was written, and whether a subagent's, and whose."""

    request: int
    at_s: float
    agent: object


def detect(head: Head) -> bool:
    """Whether a file begins like a transcript; the first line may be a title or a snapshot of files."""
    return "type" in head.keys and bool({"parentUuid", "leafUuid", "snapshot"} & head.keys or {"sessionId", "timestamp"} <= head.keys)


def read(source: Source, reading: Reading, count_tokens: Callable[[str], int]) -> Workload:
    """All requests, in sessions. Raises TraceError with the record number and what is wrong with it."""
    transcript = _Transcript()
    source.each_json(transcript.take)
    return transcript.requests.workload(sessions_from="parentUuid: each subagent is a session of its own")


class _Transcript:
    """Lines as they come, and the requests found in them."""

    def __init__(self) -> None:
        self.requests = Linked()
        self._lines: dict[object, _Line] = {}
        self._of: dict[tuple[object, object], int] = {}
        """message.id and requestId -> the request."""

    def take(self, number: int, record: object) -> None:
        """One line. Raises BadRecord."""
        record = fields.of(record, "a line of a transcript")
        if record.get("uuid") is None and record.get("type") not in _MESSAGES:
            return
        uuid = fields.label(record, "uuid")
        if uuid in self._lines:
            return
        agent = fields.tag(record, "agentId") or bool(record.get("isSidechain"))
        at = fields.date(record, "timestamp")
        above = self._above(record, agent)
        request = above.request if above else NONE
        if record.get("type") == "assistant":
            request = self._answer(number, record, above, at)
        self._lines[uuid] = _Line(request, at, agent)

    def _above(self, record: dict[str, Any], agent: object) -> _Line | None:
        """The line that one answers to; what a subagent was started by is not above it. A compacted context names its parent as logical."""
        name = next((name for name in ("parentUuid", "logicalParentUuid") if record.get(name) is not None), None)
        above = None if name is None else self._lines.get(fields.label(record, name))
        return above if above is not None and above.agent == agent else None

    def _answer(self, number: int, record: dict[str, Any], above: _Line | None, at: float) -> int:
        """The request that a line of an answer belongs to."""
        before = above.request if above else NONE
        message = fields.of(fields.required(record, "message"), "a message")
        if record.get("isApiErrorMessage") or message.get("model") == "<synthetic>":
            self.requests.left_out["failed_requests"] += 1
            return before
        usage = fields.of(fields.required(message, "usage"), "the usage of a request")
        new, output = fields.tokens(usage, "input_tokens", low=0), fields.tokens(usage, "output_tokens", low=0)
        made, cached = (_optional(usage, name) for name in ("cache_creation_input_tokens", "cache_read_input_tokens"))
        name = fields.tag(message, "id") or fields.label(record, "uuid"), fields.tag(record, "requestId")
        if name in self._of:
            self.requests.lengthen(self._of[name], output, at)
            return self._of[name]
        prompt = new + max(made, 0) + max(cached, 0)
        if not prompt:
            self.requests.left_out["requests_without_prompt"] += 1
            return before
        sent = above.at_s if above else at
        self._of[name] = self.requests.add(number, prompt, output, sent, max(sent, at), before, cached=cached)
        return self._of[name]


def _optional(usage: dict[str, Any], name: str) -> int:
    return NONE if usage.get(name) is None else fields.tokens(usage, name, low=0)
