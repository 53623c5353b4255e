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
        self.tier, self.overflow = self._views(("tier", "overflow"))
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
        self.watch: Callable[[Recorder], None] | None = None
        """Called with this recorder now and then."""

    def also(self, name: str):
        """A column of seconds that not every run has."""
        self.columns[name] = np.full(self.turns, np.nan)
        return self.columns[name].data

    def _views(self, names):
        return [memoryview(self.columns[name]) for name in names]

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
            for peer in replica.peers:
                peer.begin(now)
            self._warm_s, self._warm = now, tuple(_books(peer, now) for peer in replica.peers)

    def output(self, replicas: Sequence[Any], events: int = 0) -> RunOutput:
        """The finished run of these replicas."""
        end_s = float(self.columns["done_s"].max())
        names = ["time_s", "replica", "waiting", "running", "hbm_running_bytes", *(f"{tier.name}_bytes" for tier in _tiers(replicas[0]))]
        return RunOutput(
            columns=self.columns,
            series={name: np.array(values) for name, values in zip(names, zip(*self._series, strict=True), strict=True)},
            links=tuple(link.name for link in replicas[0].links),
            ended=tuple(_books(replica, end_s) for replica in replicas),
            warm_s=self._warm_s,
            warm=self._warm,
            clipped=self.clipped,
            events=events,
        )


def _tiers(replica) -> list:
    return replica.store.tiers if replica.store is not None else []


def _books(replica, now: float) -> Books:
    """Every running sum of a replica: what has been done by `now`."""
    found = dict(replica.spent(now))
    for link in replica.links:
        found[f"{link.name}.bytes"], found[f"{link.name}.busy_s"] = link.done(now)
    if replica.store is not None:
        found["skipped_saves"] = replica.store.skipped_saves
        for tier, (written, read) in zip(replica.store.tiers, replica.traffic(now), strict=True):
            found[f"{tier.name}.byte_seconds"] = tier.byte_seconds(now)
            found[f"{tier.name}.written"] = written
            found[f"{tier.name}.read"] = read
    return Books(found, {tier.name: tier.peak for tier in _tiers(replica)})
