"""Finds the trace formats: every module of `traces.formats` is one.

A format module has `NAME`, `OFFERS` (what its files hold: text, lengths, times, …), `EXAMPLE` (a small valid file), `detect(head)`
and `read(path, count_tokens)`. Adding a format is adding a file.
"""

import difflib
import pkgutil
from dataclasses import replace
from functools import cache
from importlib import import_module
from pathlib import Path
from types import ModuleType

import traces.formats
from traces import tokens
from traces.workload import TraceError, Workload

_HEAD_BYTES = 1 << 16


@cache
def known_formats() -> dict[str, ModuleType]:
    """Name -> module of every format."""
    found: dict[str, ModuleType] = {}
    for info in pkgutil.iter_modules(traces.formats.__path__):
        module = import_module(f"traces.formats.{info.name}")
        if module.NAME in found:
            raise TypeError(f"two trace formats are named {module.NAME!r}")
        found[module.NAME] = module
    return found


def read(path: Path, format: str | None = None, tokenizer: Path | None = None) -> Workload:
    """The workload in a file, of the format named or detected. Raises TraceError."""
    path = Path(path)
    module = _named(format) if format else _detected(path)
    count_tokens, label = tokens.counter(tokenizer)
    workload = module.read(path, count_tokens)
    origin = {"source": str(path), "format": module.NAME, **workload.origin}
    if "text" in module.OFFERS:
        origin["tokens"] = label
    return replace(workload, origin=origin)


def _named(format: str) -> ModuleType:
    if format not in known_formats():
        near = difflib.get_close_matches(format, known_formats(), n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise TraceError(f"unknown trace format {format!r}: {hint}known are {', '.join(known_formats())}")
    return known_formats()[format]


def _detected(path: Path) -> ModuleType:
    try:
        with open(path, "rb") as file:
            head = file.read(_HEAD_BYTES)
    except OSError as error:
        raise TraceError(f"cannot read {path}: {error.strerror}") from None
    if not head.strip():
        raise TraceError(f"{path} is empty")
    for module in known_formats().values():
        if module.detect(head):
            return module
    raise TraceError(f"{path}: format not recognised; known are {', '.join(known_formats())} (--format names one)")
