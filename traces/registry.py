"""Finds the trace formats: every module of `kvplan.traces.formats` is one.

A format module has `NAME`, `OFFERS` (what its files hold: text, lengths, times, …), `EXAMPLE` (a small valid file), `TIME_UNIT` where its
times are numbers and no dates, `detect(head)` and `read(source, reading, count_tokens)`. Adding a format is adding a file.
"""

import difflib
import pkgutil
from collections.abc import Callable, Collection
from dataclasses import replace
from functools import cache, partial
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import kvplan.traces.formats
from kvplan.traces import clock, columns, shapes, tokens
from kvplan.traces.formats import table
from kvplan.traces.reading import Reading
from kvplan.traces.source import Head, Source
from kvplan.traces.workload import TraceError, Workload


@cache
def known_formats() -> dict[str, ModuleType]:
    """Name -> module of every format."""
    found: dict[str, ModuleType] = {}
    for info in pkgutil.iter_modules(kvplan.traces.formats.__path__):
        module = import_module(f"kvplan.traces.formats.{info.name}")
        if module.NAME in found:
            raise TypeError(f"two trace formats are named {module.NAME!r}")
        found[module.NAME] = module
    return found


def read_trace(path: Path, format: str | None = None, progress: Callable[[int, int], None] | None = None, **settings: Any) -> Workload:
    """The workload in a file, or in a folder of files, of the format named or detected. Raises TraceError.

    `settings` are those of `Reading`: tokenizer, skip_bad, records, times, …. `progress(done, total)` is called in bytes.
    """
    reading = Reading(**settings)
    source = Source(path, reading.skip_bad, progress)
    module = _chosen(source, format, reading)
    source.other_format = partial(_other_format, partial(_has_columns, reading.columns.values()) if reading.columns else module.detect)
    count_tokens = tokens.Counter(reading.tokenizer, reading.vocabulary, reading.model)
    try:
        workload = module.read(source, reading, count_tokens)
        doubts = (
            clock.doubtful_times(workload, reading, module.TIME_UNIT)
            if hasattr(module, "TIME_UNIT") and "times" not in workload.origin
            else ""
        )
    except TraceError as error:
        bad = f"; {source.skipped:,} bad records were left out, the first: {source.first_reason}" if source.skipped else ""
        raise TraceError(f"{error}{bad}" if str(source.path) in str(error) else f"{source.path}: {error}{bad}") from None
    origin = {"source": str(path), "format": module.NAME, **workload.origin, **count_tokens.origin()}
    if "answers" not in origin and (unanswered := int((workload.output_tokens == 0).sum())):
        origin["unanswered"] = unanswered
    if workload.families is not None:
        origin["subagents"] = workload.sessions - len(workload.roots)
    if doubts:
        origin["doubtful_times"] = doubts
    if source.skipped:
        origin["left_out"] = {**origin.get("left_out", {}), "bad_records": source.skipped}
        origin["first_bad_record"] = source.first_reason
    return replace(workload, files=tuple(source.starts), origin=origin)


def _chosen(source: Source, format: str | None, reading: Reading) -> ModuleType:
    """The format that is named, by itself or by the columns of a table, or that the files are of."""
    if reading.columns:
        if format not in (None, table.NAME):
            raise TraceError(f"--columns says how to read a table, not the format {format}: leave one of them out")
        return table
    return _named(format) if format else _detected(source)


def _named(format: str) -> ModuleType:
    if format not in known_formats():
        near = difflib.get_close_matches(format, known_formats(), n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise TraceError(f"unknown trace format {format!r}: {hint}known are {', '.join(known_formats())}")
    return known_formats()[format]


def _detected(source: Source) -> ModuleType:
    found: dict[str, Path] = {}
    for file, head in source.heads():
        module = next((module for module in known_formats().values() if module.detect(head)), None)
        if module is None:
            raise TraceError(f"{file}: format not recognised: {_unknown(file, head)}")
        found.setdefault(module.NAME, file)
    if len(found) > 1:
        raise TraceError(f"{source.path} holds mixed formats: " + ", ".join(f"{file.name} is {name}" for name, file in found.items()))
    return known_formats()[next(iter(found))]


def _unknown(file: Path, head: Head) -> str:
    """What a file is that is of no known format, and what to do with it."""
    within = [key for keys in head.within.values() for key in keys]
    if known := shapes.told(file, head.start, [*head.names, *within]):
        return known
    if head.fault:
        return f"{head.fault}; known are {', '.join(known_formats())} (--format names one)"
    if head.names:
        return f"no known format begins like this; {columns.hint(head.names, head.numbers)}"
    json, binary = head.container in ("array", "objects"), b"\0" in head.start
    kind = "JSON, but of no records with keys" if json else "no text" if binary else "plain text, of which nothing tells requests or turns"
    return f"it is {kind}; known are {', '.join(known_formats())}, and any table by its columns (--columns)"


def _has_columns(columns: Collection[str], head: Head) -> bool:
    """Whether a record is of a table that is read by its columns."""
    return {name.partition(".")[0] for name in columns} <= head.keys


def _other_format(detect: Callable[[Head], bool], record: object) -> str:
    """The format that a record is of, when it is not of the one that `detect` knows, and is of another's."""
    if not isinstance(record, dict):
        return ""
    head = Head("objects", frozenset(record))
    return "" if detect(head) else next((name for name, other in known_formats().items() if other.detect(head)), "")
