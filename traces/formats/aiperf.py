"""AIPerf multi-turn JSON Lines: `session_id`, `turns`: `text` or `input_length`, `output_length`, and `delay` or `timestamp` (ms).

A turn's text or length is its new prompt. `delay` is the think time after the answer before; timestamps of all turns make an open loop.
Without either for the first turns, sessions arrive as the workload's settings say.
"""

import math
from collections.abc import Callable

from kvplan.traces import fields
from kvplan.traces.build import Turns
from kvplan.traces.reading import Reading
from kvplan.traces.source import BadRecord, Head, Source
from kvplan.traces.workload import Workload

NAME = "aiperf"
OFFERS = frozenset({"text", "lengths", "times", "think times"})
TIME_UNIT = "ms"
EXAMPLE = """{"session_id": "s1", "turns": [{"text": "Hi", "output_length": 12}, {"input_length": 40, "delay": 2500, "output_length": 90}]}
"""


def detect(head: Head) -> bool:
    """Whether a file begins like AIPerf's multi-turn sessions."""
    return "turns" in head.keys and "date" not in head.keys


def read(source: Source, reading: Reading, count_tokens: Callable[[str], int]) -> Workload:
    """All sessions. Raises TraceError with the record number and what is wrong with it."""
    table, ids, starts = Turns(), fields.Unique("session_id"), fields.Either("timestamp")
    sessions = 0

    def take(number: int, record: object) -> None:
        nonlocal sessions
        record = fields.of(record, "an AIPerf session")
        turns: list[tuple[int, int, float, float]] = []
        for index, turn in enumerate(fields.items(record, "turns")):
            try:
                turns.append(_turn(turn, turns[-1][2] if turns else None, count_tokens))
            except BadRecord as error:
                raise BadRecord(f"turn {index}: {error}") from None
        ids.check(fields.label(record, "session_id"), number)
        if turns:
            starts.check(not math.isnan(turns[0][2]), number)
        for prompt, output, arrival, gap in turns:
            table.add(sessions, prompt, output, number, arrival, gap)
        sessions += bool(turns)

    source.each_json(take)
    return table.workload()


def _turn(turn: object, before_s: float | None, count_tokens: Callable[[str], int]) -> tuple[int, int, float, float]:
    """(prompt, output, arrival, gap) of a turn; `before_s` is when the one before arrived, None for the first."""
    turn = fields.of(turn, "a turn")
    prompt = max(count_tokens(fields.text(turn, "text")), 1) if "text" in turn else fields.tokens(turn, "input_length")
    output = fields.tokens(turn, "output_length")
    arrival = fields.seconds(turn, "timestamp", 1e-3) if "timestamp" in turn else math.nan
    if before_s is None:
        return prompt, output, arrival, 0.0
    if arrival < before_s:
        raise BadRecord(f"`timestamp` {turn['timestamp']} is before the turn before it: turns out of order")
    gap = fields.seconds(turn, "delay", 1e-3) if "delay" in turn else math.nan
    return prompt, output, arrival, gap
