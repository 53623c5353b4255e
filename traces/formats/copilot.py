"""GitHub Copilot coding agents (Azure, 2026), JSON Lines: one object per session, with `date` and `turns` of `llm_calls`.

A call has `timestamp`, `duration_ms`, `model`, `result` and `tokens` (`prompt`, `completion`, `cached`); its prompt counts its whole
context. A session of the file may hold several contexts beside each other (models, subagents, calls that name or sum up): a call goes on
from the one of its model with the longest context that is not longer than its prompt and that no other has gone on from. When there is none
and some of its prompt was cached, the context was compacted: it goes on from the latest context that has ended, with what was cached;
otherwise it begins a session. Calls without a prompt, and failed ones without an answer, are left out and counted. Times of tools are
within the think times. The files say no more of a prompt than its length, so contexts may be mistaken for each other.
Source: Azure public dataset, GitHubCopilotCodingAgentDataset2026.
"""

from bisect import bisect_left, bisect_right, insort
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from kvplan.traces import fields
from kvplan.traces.linked import NONE, Linked
from kvplan.traces.reading import Reading
from kvplan.traces.source import BadRecord, Head, Source
from kvplan.traces.workload import Workload

NAME = "copilot"
OFFERS = frozenset({"lengths", "times", "think times", "cached tokens"})
EXAMPLE = """\
{"session_id": "c0", "date": "2026-06-01", "turns": [{"turn_id": "t1", "tool_batches": [], "llm_calls": [{"message_id": "m1", "timestamp": "2026-06-01T10:00:00Z", "duration_ms": 4200.0, "model": "Model A", "result": "Success", "tokens": {"prompt": 20500, "completion": 500, "cached": 0}}, {"message_id": "m2", "timestamp": "2026-06-01T10:00:07Z", "duration_ms": 3100.0, "model": "Model A", "result": "Success", "tokens": {"prompt": 23300, "completion": 300, "cached": 20480}}]}]}
"""  # noqa: E501


class _Call(NamedTuple):
    sent_s: float
    ended_s: float
    prompt: int
    completion: int
    cached: int
    model: str


def detect(head: Head) -> bool:
    """Whether a file begins like Copilot's sessions."""
    return {"session_id", "date", "turns"} <= head.keys


def read(source: Source, reading: Reading, count_tokens: Callable[[str], int]) -> Workload:
    """All calls, in contexts. Raises TraceError with the record number and what is wrong with it."""
    requests, ids = Linked(), fields.Unique("session_id")

    def take(number: int, record: object) -> None:
        record = fields.of(record, "a session of coding agents")
        calls = [call for turn in fields.items(record, "turns") for call in _calls(turn)]
        ids.check((fields.label(record, "session_id"), fields.tag(record, "date")), number)
        of_model: defaultdict[str, list[_Call]] = defaultdict(list)
        for call in sorted((call for call, fault in calls if not fault), key=lambda call: call.sent_s):
            of_model[call.model].append(call)
        for context in of_model.values():
            _add(requests, number, context)
        for _, fault in calls:
            if fault:
                requests.left_out[fault] += 1

    source.each_json(take)
    return requests.workload(
        sessions_from="session_id, model and the lengths of prompts: contexts beside each other are sessions of their own"
    )


def _calls(turn: object) -> list[tuple[_Call, str]]:
    """The calls of a turn, each with the reason why it is left out, or none."""
    found = []
    for index, call in enumerate(fields.items(fields.of(turn, "a turn"), "llm_calls")):
        try:
            found.append(_call(fields.of(call, "a call")))
        except BadRecord as error:
            raise BadRecord(f"call {index}: {error}") from None
    return found


def _call(call: dict[str, Any]) -> tuple[_Call, str]:
    tokens = fields.of(fields.required(call, "tokens"), "the tokens of a call")
    prompt, completion = (fields.tokens(tokens, name, low=0) for name in ("prompt", "completion"))
    cached = NONE if tokens.get("cached") is None else fields.tokens(tokens, "cached", low=0)
    if cached > prompt:
        raise BadRecord(f"`cached` is {cached:,}, more than the {prompt:,} tokens of the prompt")
    sent = fields.date(call, "timestamp")
    ended = sent + fields.seconds(call, "duration_ms", 1e-3)
    failed = not completion and fields.tag(call, "result") not in ("", "Success")
    fault = "calls_without_prompt" if not prompt else "failed_calls" if failed else ""
    return _Call(sent, ended, prompt, completion, cached, fields.tag(call, "model")), fault


def _add(requests: Linked, number: int, calls: Sequence[_Call]) -> None:
    """The calls of one model in one session, in order of time."""
    numbers: list[int] = []
    for call, before in zip(calls, _before(calls), strict=True):
        link = NONE if before == NONE else numbers[before]
        numbers.append(requests.add(number, call.prompt, call.completion, call.sent_s, call.ended_s, link, cached=call.cached))


def _before(calls: Sequence[_Call]) -> list[int]:
    """Index of the call that each goes on from, or NONE."""
    before = [NONE] * len(calls)
    tips: list[tuple[int, int]] = []
    for index, call in enumerate(calls):
        place = bisect_right(tips, (call.prompt, index))
        if place:
            before[index] = tips.pop(place - 1)[1]
        insort(tips, (call.prompt, index))
    ended = sorted(index for _, index in tips)
    for index, call in enumerate(calls):
        if before[index] == NONE and call.cached > 0 and (place := bisect_left(ended, index)):
            before[index] = ended.pop(place - 1)
    return before
