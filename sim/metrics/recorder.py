"""What the engine writes down while it runs: one row per turn, a thinned time series, and running sums.

The engine writes through memoryviews, which cost less than arrays for single numbers. Rows are in the workload's order; `order`
gives the order of completion, which the warm-up cut goes by.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from kvplan.sim.metrics.output import Books, RunOutput

_FLOATS = ("arrival_s", "admitted_s", "first_token_s", "done_s", "stall_s")
_INTS = ("prompt_tokens", "history_tokens", "cached_tokens", "output_tokens", "order")
_SERIES_ROWS = 2000


class Recorder:
    """Columns and sums of one run. NO_TIER marks turns that found nothing."""

    NO_TIER = -1

    def __init__(self, turns: int, warmup_turns: int, progress=None) -> None:
        self.columns: dict[str, np.ndarray] = {name: np.full(turns, np.nan) for name in _FLOATS}
        self.columns |= {name: np.zeros(turns, np.int64) for name in _INTS}
        self.columns["tier"] = np.full(turns, self.NO_TIER, np.int8)
        self.columns["overflow"] = np.zeros(turns, np.int8)
        self.arrival_s, self.admitted_s, self.first_token_s, self.done_s, self.stall_s = self._views(_FLOATS)
        self.prompt_tokens, self.history_tokens, self.cached_tokens, self.output_tokens, self.order = self._views(_INTS)
        self.columns["replica"] = np.zeros(turns, np.int16)
        self.tier, self.overflow, self.replica = self._views(("tier", "overflow", "replica"))
        self.turns = turns
        self.completed = 0
        self.clipped = 0
        """Turns whose prompt and answer alone passed the window and were cut to it."""
        self._series: list[tuple] = []
        self._warm_s: float | None = None
        self._warm: tuple[Books, ...] = ()
        self._warmup_turns = warmup_turns
        self._stride = max(1, turns // _SERIES_ROWS)
        self._progress = progress
        self.replicas: Sequence[Any] = ()
        """Whose books are kept."""
        self.watch: Callable[[Recorder], None] | None = None
        """Called with this recorder now and then."""

    def also(self, name: str):
        """A column of seconds that not every run has."""
        self.columns[name] = np.full(self.turns, np.nan)
        return self.columns[name].data

    def _views(self, names):
        return [memoryview(self.columns[name]) for name in names]

    def entered(self, job, tier: int, overflow: bool, now: float) -> None:
        """A turn has been admitted as this job, which loads from a tier."""
        turn = job.turn
        if overflow:
            self.overflow[turn] = 1
        if job.prompt + job.output < self.prompt_tokens[turn] + self.output_tokens[turn]:
            self.clipped += 1
            self.prompt_tokens[turn], self.output_tokens[turn] = job.prompt, job.output
        self.admitted_s[turn] = now
        self.history_tokens[turn] = job.history
        self.cached_tokens[turn] = job.cached
        self.tier[turn] = tier
        self.stall_s[turn] = job.prefill_s - job.compute_s

    def done(self, turn: int, now: float, replica) -> None:
        """A turn has ended on `replica`."""
        self.done_s[turn] = now
        count = self.completed
        self.order[turn] = count
        self.completed = count = count + 1
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
