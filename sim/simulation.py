"""`simulate(config) -> Result`: the pure function in the middle of kvplan. Resolve, run an engine, summarize."""

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from os import PathLike
from typing import TYPE_CHECKING

import numpy as np

from kvplan.sim.build_workload import build_workload
from kvplan.sim.config import Config, load
from kvplan.sim.engine import guards, service
from kvplan.sim.metrics.output import Engine, RunInput
from kvplan.sim.metrics.recorder import Recorder
from kvplan.sim.metrics.schema import Summary
from kvplan.sim.metrics.summary import summarize
from kvplan.sim.servable import servable
from kvplan.traces import Workload

if TYPE_CHECKING:
    import pandas as pd

_MANY_TURNS = 100_000
"""From so many on it is worth the time to look for the engine, whose parts know each other, and give its memory back before the summary."""


_YOUNG = 100_000
"""Objects that are made before the collector looks at them, while an engine runs: those that go are hardly ever in circles, and those that
stay are many. Looking at each 700 anew took a seventh of a compiled run."""


@dataclass(frozen=True, repr=False)
class Result:
    """What a run gave."""

    config: Config
    workload: Workload
    summary: Summary
    """summary.json, key by key in `kvplan.sim.metrics.schema`."""
    columns: dict[str, np.ndarray]
    """Per turn, in the workload's order; seconds since the start of the trace, tokens. Turns of the warm-up are included."""
    series: dict[str, np.ndarray]
    """Time series: replica, waiting and running jobs, HBM bytes of running jobs, bytes per tier."""
    events: int
    """Events that the run scheduled."""

    def to_frame(self) -> "pd.DataFrame":
        """One row per turn: `columns` as a table."""
        import pandas as pd

        return pd.DataFrame(self.columns)

    def __repr__(self) -> str:
        from kvplan.sim.report import table

        return f"<Result: {table.title(self.summary)}, {self.summary['hit_rate']['resumed']:.1%} of resumed turns hit>"

    def _repr_html_(self) -> str:
        """For notebooks: what `kvplan simulate` prints."""
        from kvplan.sim.report import console, table

        return console.html(table.comparison(self.summary, None))


def simulate(
    config: Config | str | PathLike[str] | None = None,
    workload: Workload | None = None,
    progress: Callable[[int, int], None] | None = None,
    longest_run: int | None = None,
    watch: Callable[[Recorder], None] | None = None,
    observer: object | None = None,
    engine: Engine = service.run_service,
    passing: int = 0,
) -> Result:
    """Replays the configuration's workload (or the one given) through the simulated server. `config`: as `kvplan.load` takes it.

    `progress`, `longest_run`, `watch`, `observer` and `passing`: as `RunInput` has them. `engine`: what runs it, the SimPy engine when
    nobody says.
    Raises ConfigError and TraceError, and PolicyError when a user's own policy fails.
    """
    config = load(config)
    if workload is None:
        workload = build_workload(config)
    deployment = servable(config, workload)
    with _rarely_collected():
        output = engine(RunInput(config, deployment, workload, longest_run, progress, watch, observer, passing))
    if workload.turns >= _MANY_TURNS:
        gc.collect()
    summary = summarize(config, deployment, workload, output)
    if guards.enabled():
        guards.check_summary(summary)
    columns = {"session": workload.session, "turn": workload.turn, **output.columns}
    return Result(config, workload, summary, columns, dict(output.series), output.events)


@contextmanager
def _rarely_collected() -> Iterator[None]:
    before = gc.get_threshold()
    gc.set_threshold(max(_YOUNG, before[0]) if before[0] else 0, *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)
