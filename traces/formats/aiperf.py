"""AIPerf multi-turn JSON Lines: `session_id`, `turns`: `text` or `input_length`, `output_length`, and `delay` or `timestamp` (ms).

A turn's text (`texts` and media likewise) or length is its new prompt; a first turn of role `system` begins the prompt of the next. Without
`output_length` the server decides: `workload.answer_tokens` stands for it. `delay` is the think time after the answer before; timestamps of
all turns make an open loop. Without either for the first turns, sessions arrive as the workload's settings say.
Source: ai-dynamo/aiperf, docs/tutorials/custom-dataset.md.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

from kvplan.traces import fields, records
from kvplan.traces.build import Turns
from kvplan.traces.reading import Reading
from kvplan.traces.source import BadRecord, Head, Source
from kvplan.traces.stamps import Stamps
from kvplan.traces.text import parts
from kvplan.traces.text.conversation import Account
from kvplan.traces.workload import Workload

NAME = "aiperf"
OFFERS = frozenset({"text", "lengths", "times", "think times"})
TIME_UNIT = "ms"
EXAMPLE = """{"session_id": "s1", "turns": [{"text": "Hi", "output_length": 12}, {"input_length": 40, "delay": 2500, "output_length": 90}]}
"""


_SENT = frozenset({"timestamp", "delay", "output_length", "extra"})
"""What a system prompt has that is sent as a turn of its own."""


def detect(head: Head) -> bool:
    """Whether a file begins like AIPerf's multi-turn sessions."""
    return "turns" in head.keys and not {"date", "schema_version"} & head.keys


def read(source: Source, reading: Reading, count_tokens: Callable[[str], int]) -> Workload:
    """All sessions. Raises TraceError with the record number and what is wrong with it."""
    table, ids, starts = Turns(), fields.Unique("session_id"), fields.Either("timestamp")
    account, stamps = Account(count_tokens, reading), Stamps("timestamp", reading, "ms")
    sessions = assumed = 0

    def take(number: int, record: object) -> None:
        nonlocal sessions, assumed
        record = fields.of(record, "an AIPerf session")
        turns = _turns(fields.items(record, "turns"), account, reading, stamps)
        if record.get("session_id") is not None:
            ids.check(fields.label(record, "session_id"), number)
        if turns:
            starts.check(not math.isnan(turns[0].arrival_s), number)
        for turn in turns:
            for message in turn.messages:
                account.see(message)
            assumed += turn.output is None
            table.add(
                sessions, turn.prompt, reading.answer_tokens if turn.output is None else turn.output, number, turn.arrival_s, turn.gap_s
            )
        sessions += bool(turns)

    source.each_json(take)
    said: dict[str, Any] = {"assumed_answers": {"answers": assumed, "tokens_each": reading.answer_tokens}} if assumed else {}
    raw = table.workload(left_out=account.left_out, **account.origin(), **stamps.origin(), **said)
    return records.told(raw, reading.of_turns(), records.INCREMENTS)


class _Turn(NamedTuple):
    messages: list[parts.Message]
    prompt: int
    output: int | None
    """None: not said."""
    arrival_s: float
    gap_s: float


def _turns(found: list, account: Account, reading: Reading, stamps: Stamps) -> list[_Turn]:
    """The turns of a session. Raises BadRecord."""
    turns: list[_Turn] = []
    opening = [parts.prompt(found[0])] if _is_opening(found) else []
    for index, turn in enumerate(found[len(opening) :], len(opening)):
        try:
            message = _message(turn)
            prompt = account.tokens(message)[0] or (1 if "text" in turn else fields.tokens(turn, "input_length"))
            before_s = turns[-1].arrival_s if turns else None
            turns.append(_turn(turn, [message], prompt, before_s, stamps, reading.unit_s("ms")))
        except BadRecord as error:
            raise BadRecord(f"turn {index}: {error}") from None
    return _opened(opening, turns, account)


def _is_opening(found: list) -> bool:
    """Whether the first turn is a system prompt and no turn of its own."""
    return bool(found) and isinstance(found[0], dict) and found[0].get("role") == "system" and not _SENT & found[0].keys()


def _opened(opening: list[parts.Message], turns: list[_Turn], account: Account) -> list[_Turn]:
    if not opening:
        return turns
    if not turns:
        raise BadRecord("has a system prompt and no turns")
    first = turns[0]._replace(messages=opening + turns[0].messages, prompt=turns[0].prompt + account.tokens(opening[0])[0])
    return [first, *turns[1:]]


def _message(turn: object) -> parts.Message:
    turn = fields.of(turn, "a turn")
    if str(turn.get("role")) in parts.ANSWER_ROLES:
        raise BadRecord(f"its role is {turn['role']!r}, and a turn is a prompt")
    return parts.prompt(turn)


def _turn(turn: dict, messages: list[parts.Message], prompt: int, before_s: float | None, stamps: Stamps, unit_s: float) -> _Turn:
    """A turn; `before_s` is when the one before arrived, None for the first."""
    output = None if turn.get("output_length") is None else fields.tokens(turn, "output_length", low=0)
    arrival = stamps.seconds(turn) if "timestamp" in turn else math.nan
    if before_s is None:
        return _Turn(messages, prompt, output, arrival, 0.0)
    if arrival < before_s:
        raise BadRecord(f"`timestamp` {turn['timestamp']} is before the turn before it: turns out of order")
    return _Turn(messages, prompt, output, arrival, fields.seconds(turn, "delay", unit_s) if "delay" in turn else math.nan)
