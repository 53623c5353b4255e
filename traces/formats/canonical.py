"""kvplan's own tables, Parquet or CSV: one row a turn, `session`, `prompt_tokens`, `output_tokens`, and what is known of `arrival_s`,
`gap_s`, `dropped_tokens`, `tenant`; Parquet also `blocks` (a list of hashes).

Columns as in `traces.workload.Workload`. Arrivals of all turns without think times are an open loop. Rows of a session may be apart,
but keep their order. `kvplan trace convert` and `generate` write these.
"""

import csv
import io
import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from traces import fields
from traces.build import Turns
from traces.source import BadRecord, Head, Source, reason
from traces.workload import TraceError, Workload

NAME = "canonical"
OFFERS = frozenset({"lengths", "times", "think times", "block hashes", "tenants"})
EXAMPLE = """session,prompt_tokens,output_tokens,arrival_s,gap_s,tenant
a,100,20,0.0,0.0,free
b,50,10,1.5,0.0,pro
a,30,40,,12.5,free
"""
_COLUMNS = frozenset({"session", "prompt_tokens", "output_tokens"})
_METADATA = b"kvplan"


def detect(head: Head) -> bool:
    """Whether a file is Parquet, or CSV with our columns."""
    return head.container == "parquet" or (head.container == "csv" and _COLUMNS <= head.keys)


def read(source: Source, count_tokens: Callable[[str], int]) -> Workload:
    """All turns. Raises TraceError with the record number and what is wrong with it."""
    table = Turns()
    sessions: dict[object, int] = {}
    latest: dict[int, float] = {}
    tenants: list[str] = []
    meta: dict = {}

    def take(number: int, row: dict) -> None:
        prompt, output = fields.tokens(row, "prompt_tokens"), fields.tokens(row, "output_tokens")
        arrival, gap = (fields.seconds(row, name, 1.0) if _given(row, name) else math.nan for name in ("arrival_s", "gap_s"))
        dropped = fields.tokens(row, "dropped_tokens", low=0) if _given(row, "dropped_tokens") else 0
        label = fields.label(row, "session")
        session = sessions.get(label, len(sessions))
        if arrival < latest.get(session, -math.inf):
            raise BadRecord(f"`arrival_s` {arrival:g} is before the session's turn before: turns out of order")
        if label not in sessions:
            sessions[label] = session
            tenants.append(str(row.get("tenant") or ""))
        latest[session] = arrival
        table.add(session, prompt, output, number, arrival, gap, dropped, row.get("blocks") or ())

    if source.head().container == "parquet":
        for file in source.files:
            meta |= _each_parquet_row(source, file, take)
    else:
        source.each_row(_COLUMNS, take)
    origin = dict(meta.get("origin", {}))
    left_out = origin.pop("left_out", None)
    if "source" in origin:
        origin["converted_from"] = origin.pop("source")
    return table.workload(meta.get("block_tokens"), tenants if any(tenants) else None, left_out, **origin)


def write(workload: Workload, path: Path) -> None:
    """Writes a workload as `.parquet` or `.csv` (without block hashes). Raises TraceError for another suffix, OSError if it cannot."""
    if path.suffix == ".csv":
        _write_csv(workload, path)
    elif path.suffix == ".parquet":
        _write_parquet(workload, path)
    else:
        raise TraceError(f"{path}: kvplan writes .parquet and .csv")


def _given(row: dict, name: str) -> bool:
    value = row.get(name)
    return value is not None and value != "" and not (isinstance(value, float) and math.isnan(value))


def _each_parquet_row(source: Source, file: Path, take: Callable[[int, dict], None]) -> dict:
    import pyarrow
    import pyarrow.parquet as parquet

    try:
        table = parquet.ParquetFile(file)
        missing = _COLUMNS - set(table.schema_arrow.names)
        if missing:
            raise TraceError(f"{file}: the column {sorted(missing)[0]!r} is missing")
        for number, row in enumerate(_rows(table), 1):
            try:
                take(number, row)
            except BadRecord as error:
                source.bad(f"{file}, record {number}", error)
        return json.loads((table.schema_arrow.metadata or {}).get(_METADATA, b"{}"))
    except TraceError:
        raise
    except (pyarrow.ArrowException, OSError, ValueError, OverflowError) as error:
        raise TraceError(f"{file}: unreadable Parquet ({reason(error)})") from None


def _rows(table) -> Iterator[dict]:
    for batch in table.iter_batches(batch_size=4096):
        yield from batch.to_pylist()


def _columns(workload: Workload) -> dict[str, np.ndarray]:
    found = {name: getattr(workload, name) for name in ("session", "prompt_tokens", "output_tokens", "arrival_s", "gap_s")}
    if workload.open_loop:
        del found["gap_s"]
    if workload.dropped_tokens is not None:
        found["dropped_tokens"] = workload.dropped_tokens
    if workload.tenant is not None:
        found["tenant"] = workload.tenant[workload.session]
    return found


def _write_csv(workload: Workload, path: Path) -> None:
    columns = _columns(workload)
    text = io.StringIO()
    out = csv.writer(text, lineterminator="\n")
    out.writerow(columns)
    out.writerows(
        ["" if isinstance(value, float) and math.isnan(value) else value for value in row]
        for row in zip(*(column.tolist() for column in columns.values()), strict=True)
    )
    path.write_text(text.getvalue(), encoding="utf-8")


def _write_parquet(workload: Workload, path: Path) -> None:
    import pyarrow
    import pyarrow.parquet as parquet

    columns = {name: pyarrow.array(values, from_pandas=True) for name, values in _columns(workload).items()}
    blocks = workload.blocks
    if blocks is not None:
        columns["blocks"] = pyarrow.ListArray.from_arrays(pyarrow.array(blocks.first, pyarrow.int32()), pyarrow.array(blocks.ids))
    meta = {"block_tokens": blocks.block_tokens if blocks else None, "origin": dict(workload.origin)}
    table = pyarrow.table(columns).replace_schema_metadata({_METADATA: json.dumps(meta, sort_keys=True).encode()})
    parquet.write_table(table, path)
