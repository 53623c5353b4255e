"""Progress on stderr, on a terminal: a bar for what takes longer than two seconds."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from kvplan.sim.build_workload import build_workload, recorded_workload
from kvplan.sim.config import Config
from kvplan.traces import Workload

_PATIENCE_S = 2.0


def turns_of(config: Config, **how) -> Workload:
    """`build_workload`, with a bar while a trace is read."""
    with progress("reading" if config.workload.trace else "drawing sessions", "bytes") as report:
        return build_workload(config, report, **how)


def trace_of(config: Config) -> Workload | None:
    """`recorded_workload`, with a bar."""
    with progress("reading", "bytes") as report:
        return recorded_workload(config, report)


@contextmanager
def progress(label: str, unit: str = "turns") -> Iterator[Callable[[int, int], None]]:
    """Yields a function `report(done, total)`; the bar appears once two seconds have passed."""
    if not sys.stderr.isatty():
        yield lambda done, total: None
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    done = DownloadColumn() if unit == "bytes" else MofNCompleteColumn()
    columns = TextColumn("{task.description}"), BarColumn(), done, TextColumn("" if unit == "bytes" else unit), TimeRemainingColumn()
    bar = Progress(*columns, console=Console(stderr=True), transient=True)
    task = bar.add_task(label, total=None)
    started = time.monotonic()
    shown = False

    def report(done: int, total: int) -> None:
        nonlocal shown
        if not shown and time.monotonic() - started > _PATIENCE_S:
            bar.start()
            shown = True
        if shown:
            bar.update(task, completed=done, total=total)

    try:
        yield report
    finally:
        if shown:
            bar.stop()
