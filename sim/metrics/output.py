"""What an engine gives of a run, as plain data: all that the summary, the reports and the planner know of it."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Books:
    """Running sums of one replica, from its start to a moment. A difference of two is what happened between."""

    sums: Mapping[str, float]
    """Seconds of GPUs by what they went to (`prefill_s`, `decode_s`, `load_stall_s`, `save_stall_s`), `prefilled_tokens`, per link
    `<link>.bytes` and `<link>.busy_s`; with a store `skipped_saves`, per tier `<tier>.byte_seconds`, `<tier>.written`, `<tier>.read`."""
    peak_bytes: Mapping[str, int]
    """Per tier, the most that it held since the measured span began."""


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
