"""When turns come: sessions as the trace has them, their next turns after the answer or, in an open loop, at their times."""

import math
from heapq import heappop, heappush

from kvplan.traces import Workload


class Arrivals:
    """Turns that are to come."""

    def __init__(self, workload: Workload) -> None:
        self._workload = workload
        self._coming = sorted((float(workload.arrival_s[turn]), turn) for turn in workload.first_turn[:-1].tolist())

    @property
    def next_s(self) -> float:
        """When the next one comes, of those that are known; infinity when there is none."""
        return self._coming[0][0] if self._coming else math.inf

    def take(self) -> int:
        """The next one has come."""
        return heappop(self._coming)[1]

    def after(self, turn: int, now: float) -> float:
        """When its session's next turn comes, if it ends now; infinity when there is none."""
        workload, following = self._workload, turn + 1
        if following == workload.turns or workload.is_first[following]:
            return math.inf
        return float(workload.arrival_s[following] if workload.open_loop else now + workload.gap_s[following])

    def expect(self, turn: int, at_s: float) -> None:
        """That turn will come then."""
        heappush(self._coming, (at_s, turn))
