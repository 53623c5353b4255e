"""What the engine writes down while it runs: one row per turn, a thinned time series, and running sums."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from kvplan.sim.metrics.output import Books, RunOutput
from kvplan.sim.metrics.rows import Rows

_SERIES_ROWS = 2000


class Recorder(Rows):
    """Rows and sums of one run."""

    replicas: Sequence[Any] = ()
    """Whose books are kept."""
    watch: Callable[["Recorder"], None] | None = None
    """Called with this recorder now and then."""

    def __init__(self, turns: int, warmup_turns: int, progress=None) -> None:
        super().__init__(turns)
        self.completed = 0
        self._series: list[tuple] = []
        self._warm_s: float | None = None
        self._warm: tuple[Books, ...] = ()
        self._warmup_turns = warmup_turns
        self._stride = max(1, turns // _SERIES_ROWS)
        self._marks = iter(sorted({*range(self._stride, turns, self._stride), warmup_turns, turns} - {0}))
        self._next = next(self._marks, -1)
        """Turns completed when there is next something to be done beside."""
        self._progress = progress

    def done(self, turn: int, now: float, replica) -> None:
        """A turn has ended on `replica`."""
        self.done_s[turn] = now
        count = self.completed
        self.order[turn] = count
        self.completed = count = count + 1
        if count == self._next:
            self._next = next(self._marks, -1)
            self._look(count, now, replica)

    def _look(self, count: int, now: float, replica) -> None:
        """So many turns have been completed, the last one on this replica."""
        if count % self._stride == 0 or count == self.turns:
            self._series.append(replica.sample(now))
            if self._progress is not None:
                self._progress(count, self.turns)
            if self.watch is not None:
                self.watch(self)
        if count == self._warmup_turns:
            for peer in self.replicas:
                peer.begin(now)
            self._warm_s, self._warm = now, tuple(peer.books(now) for peer in self.replicas)

    def output(self, events: int = 0) -> RunOutput:
        """The finished run."""
        end_s = float(self.columns["done_s"].max())
        ended = tuple(replica.books(end_s) for replica in self.replicas)
        names = ["time_s", "replica", "waiting", "running", "hbm_running_bytes", *(f"{tier}_bytes" for tier in ended[0].peak_bytes)]
        return RunOutput(
            columns=self.columns,
            series={name: np.array(values) for name, values in zip(names, zip(*self._series, strict=True), strict=True)},
            links=tuple(name.removesuffix(".bytes") for name in ended[0].sums if name.endswith(".bytes")),
            ended=ended,
            warm_s=self._warm_s,
            warm=self._warm,
            clipped=self.clipped,
            events=events,
        )
