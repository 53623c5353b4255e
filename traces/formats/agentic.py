"""Agentic coding JSON (Weka): one object per session, with `block_size` (64) and `requests`: `t`, `in`, `out`, `hash_ids`, `think_time`.

`in` counts the whole context; `think_time` (s) is the time between an answer and the next request: tools at work, or a person thinking.
Where it is missing it is what lies between the two requests less `api_time`, the recorded answer. Times are counted from the session's
start, so when sessions arrive comes from the workload's settings, and the replay is a closed loop. Hashes mean something within their
session only, unless `hash_id_scope` is `global`.
Source: callanjfox/kv-cache-tester (Apache-2.0).
"""

import math
from collections import defaultdict
from collections.abc import Callable
from functools import partial
from typing import Any

from kvplan.traces import clock, fields
from kvplan.traces.build import Requests
from kvplan.traces.reading import Reading
from kvplan.traces.source import BadRecord, Head, Source
from kvplan.traces.workload import Workload

NAME = "agentic"
OFFERS = frozenset({"lengths", "think times", "block hashes"})
TIME_UNIT = "s"
EXAMPLE = """{"id": "trace_1", "block_size": 64, "requests": [
  {"t": 0.0, "in": 130, "out": 20, "hash_ids": [1, 2], "think_time": 0.0, "api_time": 2.0},
  {"t": 9.0, "in": 200, "out": 20, "hash_ids": [1, 2, 3], "think_time": 7.0, "api_time": 2.0}]}
"""
BLOCK_TOKENS = 64


def detect(head: Head) -> bool:
    """Whether a file begins like an agentic coding session."""
    return "block_size" in head.keys and "turns" not in head.keys and "chunk_hashes" not in head.keys


def read(source: Source, reading: Reading, count_tokens: Callable[[str], int]) -> Workload:
    """All sessions, with think times and without arrivals. Raises TraceError with the record number and what is wrong with it."""
    requests, ids = Requests(BLOCK_TOKENS), fields.Unique("id")
    answers: defaultdict[str, list[tuple[float, int]]] = defaultdict(list)
    empty = 0

    def take(number: int, record: object) -> None:
        nonlocal empty
        record = fields.of(record, "an agentic coding session")
        if fields.tokens(record, "block_size") != BLOCK_TOKENS:
            raise BadRecord(f"`block_size` is {record['block_size']}; this format has {BLOCK_TOKENS}")
        turns: list[dict[str, Any]] = []
        for index, request in enumerate(fields.items(record, "requests")):
            try:
                turns.append(_turn(request, turns[-1] if turns else None))
            except BadRecord as error:
                raise BadRecord(f"request {index}: {error}") from None
        ids.check(fields.label(record, "id"), number)
        empty += not turns
        session, here = None, () if record.get("hash_id_scope") == "global" else (("session", str(number)),)
        for turn in turns:
            for way, seconds, tokens in turn["answers"]:
                answers[way].append((seconds, tokens))
            prompt, output = turn["lengths"]
            added = requests.add(number, prompt, output, math.nan, turn["gap_s"], turn["blocks"], session, scope=turn["scope"](*here))
            session = requests.session_of(added)

    source.each_json(take)
    for recorded in answers.values():
        clock.check_answers(recorded, TIME_UNIT)
    return requests.workload(left_out={"sessions_without_requests": empty})


def _turn(request: object, before: dict[str, Any] | None) -> dict[str, Any]:
    request = fields.of(request, "a request")
    prompt, output = fields.tokens(request, "in"), fields.tokens(request, "out")
    at = fields.seconds(request, "t", 1.0)
    api, think = (fields.seconds(request, name, 1.0) if request.get(name) is not None else math.nan for name in ("api_time", "think_time"))
    if before is not None and at < before["t"]:
        raise BadRecord(f"`t` is {at:g}, before {before['t']:g} of the request before: out of order")
    gap, answers = (0.0, []) if before is None else _between(at - before["t"], think, before)
    blocks = fields.blocks(request, "hash_ids", BLOCK_TOKENS, prompt)
    scope = partial(fields.scope, request)
    return {"lengths": (prompt, output), "t": at, "api": api, "gap_s": gap, "answers": answers, "blocks": blocks, "scope": scope}


def _between(spacing_s: float, think_s: float, before: dict) -> tuple[float, list[tuple[str, float, int]]]:
    """The think time between two requests, and (way, seconds, tokens) of the answer before it in the ways in which it was recorded: as
    `api_time`, and as what the think time leaves of the time between them."""
    ways = {"api_time": before["api"], "left": spacing_s - think_s}
    answer_s = 0.0 if math.isnan(before["api"]) else before["api"]
    gap = max(0.0, spacing_s - answer_s) if math.isnan(think_s) else think_s
    return gap, [(way, seconds, before["lengths"][1]) for way, seconds in ways.items() if not math.isnan(seconds)]
