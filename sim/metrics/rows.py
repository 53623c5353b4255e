"""One row per turn, in the workload's order: what an engine writes down of each.

It writes through memoryviews, which cost less than arrays for single numbers.
"""

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from kvplan.sim.engine.batch import Job

_TIMES = ("arrival_s", "admitted_s", "first_token_s", "done_s")
_INTS = ("prompt_tokens", "history_tokens", "cached_tokens", "output_tokens", "order")


class Rows:
    """Columns of one run. NO_TIER marks turns that found nothing. `order` is the order of completion, which the warm-up cut goes by."""

    NO_TIER = -1

    def __init__(self, turns: int) -> None:
        self.turns = turns
        self.clipped = 0
        """Turns whose prompt and answer alone passed the window and were cut to it."""
        self.columns: dict[str, np.ndarray] = {name: np.full(turns, np.nan) for name in _TIMES}
        self.columns["stall_s"] = np.zeros(turns)
        self.columns |= {name: np.zeros(turns, np.int64) for name in _INTS}
        self.columns["tier"] = np.full(turns, self.NO_TIER, np.int8)
        self.columns["overflow"] = np.zeros(turns, np.int8)
        self.columns["replica"] = np.zeros(turns, np.int16)
        self.arrival_s, self.admitted_s, self.first_token_s, self.done_s = self._views(_TIMES)
        self.prompt_tokens, self.history_tokens, self.cached_tokens, self.output_tokens, self.order = self._views(_INTS)
        self.stall_s, self.tier, self.overflow, self.replica = self._views(("stall_s", "tier", "overflow", "replica"))

    def also(self, name: str):
        """A column of seconds that not every run has."""
        self.columns[name] = np.full(self.turns, np.nan)
        return self.columns[name].data

    def also_counts(self, name: str):
        """The same of whole numbers."""
        self.columns[name] = np.zeros(self.turns, np.int64)
        return self.columns[name].data

    def preempted(self, turn: int) -> None:
        """A turn has given way to others, and is to be computed again. Not every run has the column."""
        self._count("preemptions", turn)

    def deferred(self, turn: int) -> None:
        """A turn whose time has come waits for its KV, and others pass it. Not every run has the column."""
        self._count("deferrals", turn)

    def _count(self, name: str, turn: int) -> None:
        if name not in self.columns:
            self.columns[name] = np.zeros(self.turns, np.int64)
        self.columns[name][turn] += 1

    def _views(self, names: tuple[str, ...]) -> list[Any]:
        return [self.columns[name].data for name in names]

    def entered(self, job: "Job", tier: int, cut: int, now: float) -> None:
        """A turn has been admitted as this job, which loads from a tier, without the oldest `cut` tokens of its history."""
        turn = job.turn
        if job.is_cut:
            self._cut(job, cut)
        self.admitted_s[turn] = now
        self.history_tokens[turn] = job.history
        if job.cached:
            self.cached_tokens[turn], self.tier[turn] = job.cached, tier
        if job.prefill_s != job.compute_s:
            self.stall_s[turn] = job.prefill_s - job.compute_s

    def passed(self, job: "Job", cut: int, now: float) -> None:
        """A turn that takes no time: nothing of it is computed."""
        job.cached, job.compute_s, job.prefill_s = job.known, 0.0, 0.0
        self.entered(job, self.NO_TIER, cut, now)
        self.first_token_s[job.turn] = now

    def _cut(self, job: "Job", cut: int) -> None:
        """Its turn passes the window: with its history, or even without."""
        turn = job.turn
        if cut:
            self.overflow[turn] = 1
        if job.prompt + job.output < self.prompt_tokens[turn] + self.output_tokens[turn]:
            self.clipped += 1
            self.prompt_tokens[turn], self.output_tokens[turn] = job.prompt, job.output
