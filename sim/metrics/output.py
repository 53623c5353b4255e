"""What an engine is given of a run, and what it gives: all that the summary, the reports and the planner know of it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from kvplan.sim.config import Config
from kvplan.sim.deployment import Deployment
from kvplan.traces import Workload


@dataclass(frozen=True)
class RunInput:
    """One run, and who wants to hear of it while it goes on."""

    config: Config
    """Policies by name, warm-up, seed, and how KV is loaded, saved and kept."""
    deployment: Deployment
    """What the configuration means in bytes and seconds."""
    workload: Workload
    longest_run: int | None = None
    """Most decode steps of one event. The result does not depend on it but for rounding, which is what tests use it for."""
    progress: Callable[[int, int], None] | None = None
    """Called now and then with turns completed, and with all turns."""
    watch: Callable[[Any], None] | None = None
    """Called as often with the columns so far (`kvplan.sim.metrics.recorder`), and ends the run by raising what it likes."""
    observer: Any = None
    """Hears what happens (`kvplan.sim.observers`)."""
    passing: int = 0
    """So many turns, the first that come, take no time of the server: what is kept of them is there at once. So stores are full when the
    others come. Of servers of blocks."""


@dataclass(frozen=True)
class Books:
    """Running sums of one replica, from its start to a moment. A difference of two is what happened between."""

    sums: Mapping[str, float]
    """Seconds of GPUs by what they went to (`prefill_s`, `decode_s`, `load_stall_s`, `save_stall_s`), `prefilled_tokens`, per link
    `<link>.bytes` and `<link>.busy_s`; with a store `skipped_saves`, per tier `<tier>.byte_seconds`, `<tier>.written`, `<tier>.read`."""
    peak_bytes: Mapping[str, int]
    """Per tier, the most that it held since the measured span began."""

    @classmethod
    def of(cls, spent: Mapping[str, float], links: Mapping[str, tuple[float, float]], tiers: Sequence["TierBooks"]) -> "Books":
        """From what GPUs spent, and (bytes, busy seconds) of each link."""
        sums = dict(spent)
        for name, (size, busy_s) in links.items():
            sums[f"{name}.bytes"], sums[f"{name}.busy_s"] = size, busy_s
        for tier in tiers:
            sums |= {f"{tier.name}.byte_seconds": tier.byte_seconds, f"{tier.name}.written": tier.written, f"{tier.name}.read": tier.read}
        return cls(sums, {tier.name: tier.peak_bytes for tier in tiers})


class TierBooks(NamedTuple):
    """Of one tier, from its start to a moment."""

    name: str
    byte_seconds: float
    written: float
    read: float
    peak_bytes: int
    """Since the measured span began."""


@dataclass(frozen=True)
class RunOutput:
    """One run, warm-up included."""

    columns: Mapping[str, np.ndarray]
    """One row per turn, in the workload's order: times (s), tokens, tier, `order` of completion (`kvplan.sim.metrics.recorder`)."""
    series: Mapping[str, np.ndarray]
    """Samples, of one replica each: `time_s`, `replica`, `waiting`, `running`, `hbm_running_bytes`, and `<tier>_bytes`."""
    links: tuple[str, ...]
    """Names of the links, in the order in which they are shown."""
    ended: tuple[Books, ...]
    """Per replica, at the end of the last turn."""
    warm_s: float | None = None
    """When the warm-up ended; None without one."""
    warm: tuple[Books, ...] = ()
    """Per replica, at that time."""
    clipped: int = 0
    """Turns whose prompt and answer alone passed the window and were cut to it."""
    events: int = 0
    """Events that the engine scheduled."""

    def spent(self) -> dict[str, float]:
        """Sums of all replicas together, since the end of the warm-up."""
        total: dict[str, float] = {}
        for replica, books in enumerate(self.ended):
            before = self.warm[replica].sums if self.warm else {}
            for name, value in books.sums.items():
                total[name] = total.get(name, 0) + value - before.get(name, 0)
        return total


Engine = Callable[[RunInput], RunOutput]
"""Runs a run: the SimPy engine (`kvplan.sim.engine.service`) is one, and a test answers from a table."""
