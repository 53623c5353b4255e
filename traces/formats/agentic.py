"""Agentic coding JSON (Weka): one object per session, with `block_size` (64) and `requests`: `t`, `in`, `out`, `hash_ids`, `think_time`.

`in` counts the whole context; `think_time` (s) is the time between an answer and the next request: tools at work, or a person thinking.
Where it is missing it is what lies between the two requests less `api_time`, the recorded answer. Times are counted from the session's
start, so when sessions arrive comes from the workload's settings, and the replay is a closed loop. Hashes mean something within their
session only, unless `hash_id_scope` is `global`.

An entry of the type `subagent` has `requests` of its own, timed from its start. Its `t` is its end, and it started `duration_ms` before;
where that is null, as long before as its requests take. It is a session of its own that begins as long after its parent's as was recorded;
the parent waits for it in its think time.
Source: callanjfox/kv-cache-tester (Apache-2.0).
"""

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from kvplan.traces import clock, fields, records
from kvplan.traces.blocksize import BlockSize
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
_TOO_LONG = 100
"""Times the time between two requests. Recorded think times are up to 20 times that, where requests overlap; more is another unit."""


def detect(head: Head) -> bool:
    """Whether a file begins like an agentic coding session."""
    return {"block_size", "requests"} <= head.keys


def read(source: Source, reading: Reading, count_tokens: Callable[[str], int]) -> Workload:
    """All sessions, with think times and without arrivals. Raises TraceError with the record number and what is wrong with it."""
    requests, ids, size = Requests(source=source), fields.Unique("id"), BlockSize(BLOCK_TOKENS, reading)
    answers: defaultdict[str, list[tuple[float, int]]] = defaultdict(list)
    left_out: Counter[str] = Counter()

    def take(number: int, record: object) -> None:
        nonlocal size
        record = fields.of(record, "an agentic coding session")
        parts = _Parts(reading.unit_s(TIME_UNIT), size.said(record, "block_size"))
        agents, _ = parts.agents(record)
        ids.check(fields.label(record, "id"), number)
        size = parts.size
        left_out.update(parts.left_out)
        left_out["sessions_without_requests"] += not agents[0].turns
        here = () if record.get("hash_id_scope") == "global" else (("session", str(number)),)
        root, asking = None, [agent for agent in agents if agent.turns]
        for agent in asking:
            session, offset_s = None, max(0.0, agent.first_s - asking[0].first_s)
            for turn in agent.turns:
                for way, seconds in turn.answers.items():
                    answers[way].append(seconds)
                columns = (number, turn.prompt, turn.output, math.nan, turn.gap_s, turn.blocks, session)
                added = requests.add(*columns, scope=fields.scope(turn.request, *here), root=root, offset_s=offset_s)
                session = requests.session_of(added)
            root = session if root is None else root

    source.each_json(take)
    for recorded in answers.values():
        clock.check_answers(recorded, reading, TIME_UNIT)
    requests.block_tokens = size.tokens()
    return requests.workload(reading.of_turns(), records.REQUESTS, left_out=left_out, **size.origin())


@dataclass(frozen=True)
class _Turn:
    """A request of an agent."""

    request: dict[str, Any]
    prompt: int
    output: int
    at_s: float
    """After the agent's start."""
    api_s: float
    """The recorded answer; NaN where it is not."""
    gap_s: float
    blocks: Sequence[int]
    answers: dict[str, tuple[float, int]]
    """(seconds, tokens) of the answer before, by the way in which they are recorded."""

    @property
    def ends_s(self) -> float:
        """When its answer is there, as far as is known."""
        return self.at_s + (0.0 if math.isnan(self.api_s) else self.api_s)


@dataclass(frozen=True)
class _Agent:
    """One that asks: the session's own, or a subagent."""

    start_s: float
    """After the session's start."""
    turns: list[_Turn]

    @property
    def first_s(self) -> float:
        """When it asks first."""
        return self.start_s + self.turns[0].at_s


class _Parts:
    """What a session's record holds: agents, the size of its blocks, and what is left out of it."""

    def __init__(self, unit_s: float, size: BlockSize) -> None:
        self._unit_s = unit_s
        self.size = size
        self.left_out: Counter[str] = Counter()

    def agents(self, record: dict[str, Any]) -> tuple[list[_Agent], float]:
        """The agent whose requests a record holds, then its subagents; and the seconds to the last answer. Raises BadRecord."""
        own: list[_Turn] = []
        others: list[_Agent] = []
        latest = end_s = 0.0
        waited = False
        for index, entry in enumerate(fields.items(record, "requests")):
            try:
                entry = fields.of(entry, "a request")
                at = fields.seconds(entry, "t", self._unit_s)
                if at < latest:
                    raise BadRecord(f"`t` is {at:g} s, before {latest:g} s of the request before: out of order")
                latest = at
                if entry.get("type") == "subagent":
                    others += self._subagents(entry, at)
                    waited, end_s = True, max(end_s, at)
                else:
                    own.append(self._turn(entry, at, own[-1] if own else None, waited))
                    waited, end_s = False, max(end_s, own[-1].ends_s)
            except BadRecord as error:
                raise BadRecord(f"request {index}: {error}") from None
        return [_Agent(0.0, own), *others], end_s

    def _subagents(self, entry: dict[str, Any], ends_s: float) -> list[_Agent]:
        """A subagent and its own, after their parent's start. One whose requests are not in the file is left out, with its tokens."""
        if "requests" not in entry:
            self.left_out["subagents_without_requests"] += 1
            if entry.get("total_tokens") is not None:
                self.left_out["tokens_of_subagents_without_requests"] += fields.tokens(entry, "total_tokens", low=0)
            return []
        agents, took_s = self.agents(entry)
        if entry.get("duration_ms") is not None:
            took_s = fields.seconds(entry, "duration_ms", 1e-3)
        start_s = max(0.0, ends_s - took_s)
        return [_Agent(start_s + agent.start_s, agent.turns) for agent in agents]

    def _turn(self, request: dict[str, Any], at: float, before: _Turn | None, waited: bool) -> _Turn:
        """A request; `waited`: a subagent was at work since the one before."""
        prompt, output = fields.tokens(request, "in"), fields.tokens(request, "out", low=0)
        api, think = (
            fields.seconds(request, name, self._unit_s) if request.get(name) is not None else math.nan
            for name in ("api_time", "think_time")
        )
        gap, answers = (0.0, {}) if before is None else _between(at, think, before, waited)
        size = self.size.narrowed(request, "hash_ids", prompt)
        blocks = fields.hashes(request["hash_ids"], "hash_ids")
        self.size = size
        return _Turn(request, prompt, output, at, api, gap, blocks, answers)


def _between(at: float, think_s: float, before: _Turn, waited: bool) -> tuple[float, dict[str, tuple[float, int]]]:
    """The think time before a request, and the answer before it in the ways in which it was recorded: as `api_time`, and as what the
    think time leaves of the time between the two. The wait for subagents is think time, whatever the record calls it."""
    between_s = max(0.0, at - before.ends_s)
    if waited:
        think_s = max(between_s, 0.0 if math.isnan(think_s) else think_s)
    spacing_s = at - before.at_s
    left_s = spacing_s - think_s if think_s <= spacing_s or think_s > _TOO_LONG * spacing_s else math.nan
    ways = {"api_time": before.api_s, "left": left_s}
    gap = between_s if math.isnan(think_s) else think_s
    return gap, {way: (seconds, before.output) for way, seconds in ways.items() if not math.isnan(seconds)}
