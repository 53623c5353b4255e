"""kvplan's own tables, Parquet or CSV: one row a turn, `session`, `prompt_tokens`, `output_tokens`, and what is known of `arrival_s`,
`gap_s`, `dropped_tokens`, `tenant`, `root` and `after_s` (of a session that begins so long after another one), and `beginning` (of a
session that begins as others do: `key:tokens` of each part, with spaces between, in its first row); Parquet also `blocks` (hashes).
What is known of the turns' origin is in Parquet's metadata, and in the first row of a CSV file's column `origin` (a JSON object).

Columns as in `kvplan.traces.workload.Workload`. Arrivals of all turns without think times are an open loop. Rows of a session may be apart,
but keep their order. A session's label holds within its file. `kvplan trace convert` and `generate` write these; in CSV, names that a
spreadsheet would take for a formula begin with a `'`, which reading takes off again.
"""

import csv
import io
import json
import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np

from kvplan.foreign.text import guarded, unguarded
from kvplan.traces import fields, parquet, records
from kvplan.traces.beginnings import Beginnings
from kvplan.traces.build import Turns
from kvplan.traces.reading import Reading
from kvplan.traces.source import BadRecord, Head, Source
from kvplan.traces.workload import Families, TraceError, Workload

NAME = "canonical"
OFFERS = frozenset({"lengths", "times", "think times", "block hashes", "tenants"})
TIME_UNIT = "s"
EXAMPLE = """session,prompt_tokens,output_tokens,arrival_s,gap_s,tenant
a,100,20,0.0,0.0,free
b,50,10,1.5,0.0,pro
a,30,40,,12.5,free
"""
_COLUMNS = frozenset({"session", "prompt_tokens", "output_tokens"})
_METADATA = b"kvplan"
_KEYS = 1 << 63
_SUMS = frozenset({"recorded_cache", "tokens_left_out"})
"""What origins count, beside `left_out`: the counts of several tables are added up."""


def detect(head: Head) -> bool:
    """Whether a file is a table with our columns, or Parquet that is damaged."""
    if head.container == "parquet" and not head.keys:
        return True
    return head.container in ("csv", "parquet") and head.names >= _COLUMNS


def read(source: Source, reading: Reading, count_tokens: Callable[[str], int]) -> Workload:
    """All turns. Raises TraceError with the record number and what is wrong with it."""
    table, starts = Turns(), fields.Either("arrival_s")
    is_parquet = source.head().container == "parquet"
    as_named = str if is_parquet else unguarded
    sessions: dict[tuple[Path, str | int], int] = {}
    ends: list[tuple[float, int]] = []
    tenants: list[str] = []
    roots: list[int] = []
    after_s: list[float] = []
    begun: list[list[tuple[int, int]]] = []
    made = _Origins()
    unit_s = reading.unit_s(TIME_UNIT)

    def take(number: int, row: dict) -> None:
        prompt, output = fields.tokens(row, "prompt_tokens"), fields.tokens(row, "output_tokens", low=0)
        arrival, gap = (fields.seconds(row, name, unit_s) if _given(row, name) else math.nan for name in ("arrival_s", "gap_s"))
        dropped = fields.tokens(row, "dropped_tokens", low=0) if _given(row, "dropped_tokens") else 0
        blocks = fields.hashes(fields.items(row, "blocks"), "blocks") if _given(row, "blocks") else ()
        label, tenant = (source.file, fields.label(row, "session")), as_named(fields.tag(row, "tenant"))
        root = (source.file, fields.label(row, "root")) if _given(row, "root") else label
        after = 0.0 if root == label else fields.seconds(row, "after_s", unit_s)
        if root != label and (root not in sessions or roots[sessions[root]] != sessions[root]):
            raise BadRecord(f"`root` is {root[1]!r}, which is no session before it that comes by itself")
        known = label in sessions
        session = sessions.get(label, len(sessions))
        latest, context = ends[session] if known else (-math.inf, 0)
        if arrival < latest:
            raise BadRecord(f"`arrival_s` {arrival:g} is before the session's turn before: turns out of order")
        if dropped > context:
            raise BadRecord(f"`dropped_tokens` is {dropped:,}, more than the {context:,} tokens of the session before it")
        if _given(row, "origin"):
            made.add(_json(str(row["origin"])))
        if not known:
            starts.check(not math.isnan(arrival), number)
            sessions[label] = session
            tenants.append(tenant)
            roots.append(sessions[root])
            after_s.append(after)
            begun.append(_parts(as_named(str(row["beginning"]))) if _given(row, "beginning") else [])
            ends.append((-math.inf, 0))
        ends[session] = latest if math.isnan(arrival) else arrival, context - dropped + prompt + output
        table.add(session, prompt, output, number, arrival, gap, dropped, blocks)

    if is_parquet:
        source.each(lambda file: parquet.rows(file, _COLUMNS, partial(_said_of_itself, made=made)), take)
    else:
        source.each_row(_COLUMNS, take)
    raw = table.workload(made.block_tokens(), tenants if any(tenants) else None, made.left_out, **made.merged())
    if roots != list(range(len(roots))):
        raw = replace(raw, families=Families(np.array(roots, np.int32), np.array(after_s)))
    if any(begun):
        raw = replace(raw, beginnings=Beginnings.of(begun))
    return records.told(raw, reading, records.INCREMENTS)


def _parts(text: str) -> list[tuple[int, int]]:
    """What a session begins with. Raises BadRecord."""
    try:
        parts = [(int(key), int(tokens)) for key, tokens in (part.split(":") for part in text.split())]
    except ValueError:
        raise BadRecord(
            f"`beginning` is {text[:40]!r}: write key:tokens of each part, with spaces between, such as 17:3000 4:3500"
        ) from None
    ends = [0, *(end for _, end in parts)]
    if any(later <= end for end, later in pairwise(ends)) or any(not -_KEYS <= key < _KEYS for key, _ in parts):
        raise BadRecord(f"`beginning` is {text[:40]!r}: tokens are those up to the end of a part, and grow; keys are numbers of 64 bits")
    return parts


def check_name(path: Path) -> None:
    """Raises TraceError when `write_canonical` knows no table of this suffix."""
    if path.suffix not in _WRITERS:
        raise TraceError(f"{path}: kvplan writes {' and '.join(_WRITERS)}")


def is_written(path: Path) -> bool:
    """Whether a file that is there is a table with our columns, which `write_canonical` may replace. Raises OSError."""
    if path.suffix == ".parquet":
        return parquet.keys(path)[0] >= _COLUMNS
    with path.open("rb") as file:
        return {*file.readline(1 << 16).decode(errors="replace").strip().split(",")} >= _COLUMNS


def write_canonical(workload: Workload, path: Path) -> None:
    """Writes a workload as `.parquet` or `.csv` (without block hashes). Raises TraceError for another suffix, OSError if it cannot."""
    check_name(path)
    if workload.tenant is not None and any("\0" in str(name) for name in workload.tenant):
        raise TraceError("a tenant's name holds a NUL character, which tables do not keep: rename it")
    _WRITERS[path.suffix](workload, path)


class _Origins:
    """What the tables of a trace say of where they come from."""

    def __init__(self) -> None:
        self.left_out: Counter[str] = Counter()
        """Parts of the first source that are not in the tables."""
        self._said: dict[str, list] = {}
        self._sums: defaultdict[str, Counter[str]] = defaultdict(Counter)
        self._block_tokens: set[int] = set()

    def add(self, origin: object, block_tokens: object = None) -> None:
        """The origin of one table. Raises BadRecord when it is none."""
        if not isinstance(origin, dict):
            raise BadRecord("`origin` is not a JSON object")
        origin = dict(origin)
        left_out = origin.pop("left_out", {})
        if not isinstance(left_out, dict) or not all(type(count) is int and count >= 0 for count in left_out.values()):
            raise BadRecord("`origin` has a `left_out` that does not count anything")
        if block_tokens is not None:
            self._block_tokens.add(fields.tokens({"block_tokens": block_tokens}, "block_tokens"))
        self.left_out.update(left_out)
        for name, value in origin.items():
            if name in _SUMS and isinstance(value, dict) and all(type(count) is int for count in value.values()):
                self._sums[name].update(value)
                continue
            values = self._said.setdefault("converted_from" if name == "source" else name, [])
            values += [value] * (value not in values)

    def merged(self) -> dict[str, object]:
        """What all tables say; counts are added up, and where else they differ it is all of it."""
        said = {name: values[0] if len(values) == 1 else "; ".join(map(str, values)) for name, values in self._said.items()}
        return said | {name: dict(counts) for name, counts in self._sums.items()}

    def block_tokens(self) -> int | None:
        """Tokens of a block. Raises TraceError when tables differ."""
        if len(self._block_tokens) > 1:
            raise TraceError(f"the tables have blocks of {' and '.join(map(str, sorted(self._block_tokens)))} tokens: read them apart")
        return next(iter(self._block_tokens), None)


def _given(row: dict, name: str) -> bool:
    value = row.get(name)
    return value is not None and value != "" and not (isinstance(value, float) and math.isnan(value))


def _said_of_itself(schema, made: _Origins) -> None:
    """What a Parquet file's metadata say goes to `made`. Raises TraceError."""
    said = (schema.metadata or {}).get(_METADATA)
    try:
        if said is not None:
            said = fields.of(_json(said), "a JSON object")
            made.add(said.get("origin", {}), said.get("block_tokens"))
    except BadRecord as error:
        raise TraceError(f"its metadata {error}") from None


def _json(text: str | bytes) -> object:
    """The value that a JSON text says; None where it is none."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _columns(workload: Workload) -> dict[str, np.ndarray]:
    found = {name: getattr(workload, name) for name in ("session", "prompt_tokens", "output_tokens", "arrival_s", "gap_s")}
    if workload.open_loop:
        del found["gap_s"]
    if workload.dropped_tokens is not None:
        found["dropped_tokens"] = workload.dropped_tokens
    if workload.tenant is not None:
        found["tenant"] = workload.tenant[workload.session]
    if workload.families is not None:
        found["root"], found["after_s"] = (column[workload.session] for column in (workload.families.root, workload.families.after_s))
    if workload.beginnings is not None:
        found["beginning"] = np.full(workload.turns, "", object)
        found["beginning"][workload.first_turn[:-1]] = [_written(parts) for parts in workload.beginnings.parts()]
    return found


def _written(parts: Iterable[tuple[int, int]]) -> str:
    return " ".join(f"{key}:{end}" for key, end in parts)


def _write_csv(workload: Workload, path: Path) -> None:
    columns = {name: values.tolist() for name, values in _columns(workload).items()}
    if workload.origin:
        columns["origin"] = [json.dumps(dict(workload.origin), sort_keys=True), *[""] * (workload.turns - 1)]
    text = io.StringIO()
    out = csv.writer(text)  # lines end in CR LF: only so is a CR in a name quoted
    out.writerow(columns)
    out.writerows(map(_csv_cell, row) for row in zip(*columns.values(), strict=True))
    path.write_text(text.getvalue(), encoding="utf-8", newline="")


def _csv_cell(value: object) -> object:
    """Nothing for what is not known; a name so that no spreadsheet takes it for a formula."""
    if isinstance(value, str):
        return guarded(value)
    return "" if isinstance(value, float) and math.isnan(value) else value


def _write_parquet(workload: Workload, path: Path) -> None:
    import pyarrow
    from pyarrow import parquet as tables

    columns = {name: pyarrow.array(values, from_pandas=True) for name, values in _columns(workload).items()}
    blocks = workload.blocks
    if blocks is not None:
        columns["blocks"] = pyarrow.ListArray.from_arrays(pyarrow.array(blocks.first, pyarrow.int32()), pyarrow.array(blocks.ids))
    meta = {"block_tokens": blocks.block_tokens if blocks else None, "origin": dict(workload.origin)}
    table = pyarrow.table(columns).replace_schema_metadata({_METADATA: json.dumps(meta, sort_keys=True).encode()})
    with path.open("wb") as file:  # given a path, pyarrow takes UTF-8 names only
        tables.write_table(table, file)


_WRITERS = {".parquet": _write_parquet, ".csv": _write_csv}
