"""Any table of requests: CSV, TSV, JSON or Parquet, a row a request, read by the columns that `--columns` names.

What a column can hold is in `kvplan.traces.columns`: `prompt` counts the whole request, `new` only what it adds. Rows without a session are
sessions of one request. Text beside a `prompt_text`, in columns that nothing names, is counted as left out. With `latency` or `end`, a
later turn has a think time as well as an arrival. Times are dates, or numbers: in the unit that ends their column's name (`_ms`), else in
seconds, unless as a date that would be no time of ours (`kvplan.traces.moments`). Without `--columns` a log of requests is read whose
lengths bear names of their own, such as `prompt_tokens` and `completion_tokens`.
"""

import json
import math
from array import array
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from kvplan.traces import clock, columns, fields, records
from kvplan.traces.blocksize import BlockSize
from kvplan.traces.build import Requests
from kvplan.traces.moments import Moments
from kvplan.traces.reading import Reading
from kvplan.traces.source import BadRecord, Head, Source
from kvplan.traces.text import parts
from kvplan.traces.workload import TraceError, Workload

NAME = "table"
OFFERS = frozenset({"lengths", "times"})
TIME_UNIT = "s"
EXAMPLE = """{"request_id": "cmpl-1", "arrival_time": 1760000000.1, "prompt_tokens": 512, "completion_tokens": 90, "model": "m"}
{"request_id": "cmpl-2", "arrival_time": 1760000004.6, "prompt_tokens": 700, "completion_tokens": 40, "model": "m"}
"""
_BLOCK_TOKENS = 16
"""Of vLLM's blocks: taken where nothing else is said, and lengths and numbers of hashes allow it."""


def detect(head: Head) -> bool:
    """Whether a file begins like a log of requests with lengths under names of their own."""
    return columns.tells_lengths(head.names)


def read(source: Source, reading: Reading, count_tokens: Callable[[str], int]) -> Workload:
    """All requests. Raises TraceError with the record number and what is wrong with it."""
    names = _named(reading.columns) if reading.columns else _usual(source.head())
    requests, row, moments = Requests(source=source), _Row(names, count_tokens), Moments(reading)
    timed = fields.Either(names.get("arrival", "arrival"))
    latest: dict[str, int] = {}
    ends, answers = array("d"), array("d")
    found: Counter[str] = Counter()
    recorded, size = 0, BlockSize(_BLOCK_TOKENS, reading)

    def take(number: int, record: object) -> None:
        nonlocal recorded, size
        given = fields.of(record, "a row of a table")
        cells = row.cells(given)
        (prompt, output), cached = row.lengths(cells), row.cached(cells)
        row.leave_out(given)
        session, tenant = row.label(cells, "session"), row.label(cells, "tenant")
        arrival, end, think = row.times(cells, moments)
        if not prompt:
            found["requests_without_prompt"] += 1
            return
        if cached > prompt:
            raise BadRecord(f"{cached:,} cached tokens are more than the {prompt:,} of the prompt")
        blocks, left = row.blocks(cells, prompt, size)
        timed.check(not math.isnan(arrival), number)
        before = latest.get(session)
        gap = think if before is None or not math.isnan(think) else _since(ends[before], arrival)
        within = None if before is None else requests.session_of(before)
        added = requests.add(number, prompt, output, arrival, gap, blocks, within, tenant)
        size = left
        ends.append(end)
        recorded += cached
        if session:
            latest[session] = added
        if not math.isnan(end - arrival):
            answers.extend((end - arrival, output))

    source.each_table([name for name in names.values() if "." not in name], take)
    row.check_all_seen()
    clock.check_answers(np.frombuffer(answers).reshape(-1, 2), reading, TIME_UNIT)
    said = _origin(names, bool(reading.columns), moments, bool(latest)) | row.origin()
    if "blocks" in names:
        requests.block_tokens = size.tokens()
        said |= size.origin() | (requests.chain_by_prefix() if "session" not in names and len(requests) else {})
    workload = requests.workload(reading, _counts(names), bool(reading.columns), found, **said)
    return _with_cached(workload, recorded) if "cached" in names else workload


class _Row:
    """Takes the cells out of a record, by their names or their paths."""

    def __init__(self, names: Mapping[str, str], count_tokens: Callable[[str], int]) -> None:
        self._names, self._count = names, count_tokens
        self._unseen = set(names.values())
        self._known = frozenset(names.values()) | {name.partition(".")[0] for name in names.values()}
        self._left_out: Counter[str] = Counter()
        self._prompt, self._output = (next(role for role in roles if role in names) for roles in (columns.PROMPTS, columns.ANSWERS))

    def cells(self, record: dict[str, Any]) -> dict[str, Any]:
        """Column -> cell; None where there is none. Raises BadRecord when the prompt or the answer is missing."""
        found = {name: _cell(record, name) for name in self._names.values()}
        for role in (self._prompt, self._output):
            if found[self._names[role]] is _MISSING:
                fields.required(record, self._names[role])
        self._unseen -= {name for name, value in found.items() if value is not _MISSING}
        return {name: None if value is _MISSING or _is_blank(value) else value for name, value in found.items()}

    def leave_out(self, record: Mapping[str, Any]) -> None:
        """Counts the text beside a prompt of text, in columns that nothing names: it may belong to the prompt."""
        if self._prompt.endswith("_text"):
            for name, text in parts.no_part({key: value for key, value in record.items() if not _is_number(value)}, self._known):
                self._left_out[f"`{name[:60]}`".encode("utf-8", "backslashreplace").decode()] += self._count(text) or 1

    def origin(self) -> dict[str, Any]:
        """What the origin shall say of it."""
        return {"tokens_left_out": dict(self._left_out.most_common())} if self._left_out else {}

    def check_all_seen(self) -> None:
        """Raises TraceError for a column that no record had."""
        if self._unseen:
            raise TraceError(f"no record has a {min(self._unseen)!r}, which columns names: is it spelt so?")

    def lengths(self, cells: dict[str, Any]) -> tuple[int, int]:
        """Tokens of prompt and answer."""
        return self._length(cells, self._prompt), self._length(cells, self._output)

    def _length(self, cells: dict[str, Any], role: str) -> int:
        name = self._names[role]
        if not role.endswith("_text"):
            return fields.tokens(cells, name, low=0)
        text = "" if cells[name] is None else fields.text(cells, name)
        return max(self._count(text), 1) if text.strip() else 0

    def cached(self, cells: dict[str, Any]) -> int:
        """Tokens of the prompt that were recorded as served from a cache; 0 where nothing is."""
        name = self._names.get("cached", "")
        return 0 if cells.get(name) is None else fields.tokens(cells, name, low=0)

    def blocks(self, cells: dict[str, Any], prompt: int, size: BlockSize) -> tuple[Sequence[int], BlockSize]:
        """Block hashes of the prompt, a list or one as JSON text, and the sizes of a block that they leave."""
        name = self._names.get("blocks")
        if name is None:
            return [], size
        given = cells[name]
        found = {name: _listed(given) if isinstance(given, str) else given}
        return fields.hashes(fields.items(found, name), name), size.narrowed(found, name, prompt)

    def label(self, cells: dict[str, Any], role: str) -> str:
        """A name; empty where there is none."""
        name = self._names.get(role, "")
        value = cells.get(name)
        if isinstance(value, float) and value.is_integer():  # whole numbers of a column that has gaps
            value = int(value)
        return fields.tag({name: value}, name)

    def times(self, cells: dict[str, Any], moments: Moments) -> tuple[float, float, float]:
        """(arrival, end of the answer, think time before) in seconds; NaN for what is not known."""
        arrival, end = (self._seconds(cells, role, moments, dated=True) for role in ("arrival", "end"))
        latency, think = (self._seconds(cells, role, moments, dated=False) for role in ("latency", "think"))
        if "arrival" not in self._names:
            arrival = end - latency
        if end < arrival:
            raise BadRecord(f"`{self._names['end']}` is {arrival - end:,.3g} s before `{self._names['arrival']}`")
        return arrival, arrival + latency if math.isnan(end) else end, think

    def _seconds(self, cells: dict[str, Any], role: str, moments: Moments, dated: bool) -> float:
        name = self._names.get(role, "")
        return math.nan if cells.get(name) is None else moments.seconds(cells, name, dated)


_MISSING = object()


def _listed(text: str) -> object:
    """What a cell of text lists, as JSON or apart by spaces."""
    try:
        return json.loads(text) if text.lstrip().startswith("[") else text.split()
    except (ValueError, RecursionError):
        return text


def _is_number(value: Any) -> bool:
    """Whether a cell of text is a number, as all are in CSV."""
    try:
        return isinstance(value, str) and math.isfinite(float(value))
    except ValueError:
        return False


def _is_blank(value: Any) -> bool:
    """An empty cell, or the NaN that tables of numbers have for one."""
    return value is None or value == "" or (isinstance(value, float) and math.isnan(value))


def _cell(record: dict[str, Any], name: str) -> Any:
    """The value of a key, or of one within others, `usage.prompt_tokens`."""
    if name in record:
        return record[name]
    value: Any = record
    for key in name.split("."):
        if not isinstance(value, dict) or key not in value:
            return _MISSING
        value = value[key]
    return value


def _counts(names: Mapping[str, str]) -> str:
    """What the lengths count by the names of their columns."""
    return records.REQUESTS if "prompt" in names or "prompt_text" in names else records.INCREMENTS


def _since(end: float, arrival: float) -> float:
    """Seconds between them, none where the next came before the end; NaN where either is not known."""
    return math.nan if math.isnan(arrival - end) else max(0.0, arrival - end)


def _with_cached(workload: Workload, cached: int) -> Workload:
    """The workload, whose origin says what the log recorded as cached, and what a store that forgets nothing would hold."""
    history, prompt = (int(column.sum(dtype=np.int64)) for column in (workload.history_tokens, workload.prompt_tokens))
    sums = {"requests": workload.turns, "prompt_tokens": history + prompt, "cached_tokens": cached, "history_tokens": history}
    return replace(workload, origin={**workload.origin, "recorded_cache": sums})


def _named(names: Mapping[str, str]) -> dict[str, str]:
    """The columns that the user names. Raises TraceError when they cannot be."""
    try:
        return columns.checked(dict(names))
    except ValueError as error:
        raise TraceError(str(error)) from None


def _usual(head: Head) -> dict[str, str]:
    """The columns by their usual names. Raises TraceError when they do not tell lengths or texts."""
    names = columns.usual(head.names)
    try:
        return columns.checked(names or {"prompt": ""})
    except ValueError:
        raise TraceError(f"record 1 does not tell what its columns hold: {columns.hint(head.names, head.numbers)}") from None


def _origin(names: Mapping[str, str], by_user: bool, moments: Moments, has_sessions: bool) -> dict[str, object]:
    said: dict[str, object] = {"columns": columns.written(names) + ("" if by_user else ", by their usual names (--columns says otherwise)")}
    if not has_sessions and "blocks" not in names:
        said["requests"] = "each a session of its own: no column names sessions (session=…)"
    return said | ({"time_units": moments.units} if moments.units else {})
