"""The time that measuring may take, and whether one more point fits into it."""

import time
from collections.abc import Callable

from kvplan.validate.calibration.measure.task import Task
from kvplan.validate.calibration.measure.timing import REPETITIONS

POINTS_PER_BUDGET = 60
"""A point repeats for this share of the budget at most, unless even the fewest repetitions take longer."""
HEADROOM = 1.3
"""How much longer than foreseen a point may take: preparation, and another machine's noise."""


class Budget:
    """`seconds` from now on. It learns from each point how long work of its kind takes."""

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic):
        self._clock, self._end = clock, clock() + seconds
        self.per_point_s = seconds / POINTS_PER_BUDGET
        self._largest: dict[str, tuple[float, float]] = {}

    @property
    def left_s(self) -> float:
        """Seconds that are left; negative when it was exceeded."""
        return self._end - self._clock()

    def allows(self, task: Task) -> bool:
        """Whether the point is foreseen to end in time; of a quantity's first point nothing is known."""
        return self.left_s > HEADROOM * self._foreseen_s(task)

    def learn(self, task: Task, median_s: float) -> None:
        """Takes note of a point. The largest one tells most, as small ones are slower per unit of work."""
        work, _ = self._largest.get(task.like, (0.0, 0.0))
        if task.work >= work:
            self._largest[task.like] = (task.work, median_s)

    def _foreseen_s(self, task: Task) -> float:
        work, seconds = self._largest.get(task.like, (1.0, 0.0))
        each = seconds * max(1.0, task.work / work)
        least, most = (count + 1 for count in REPETITIONS)  # one more to warm up
        return min(most * each, max(self.per_point_s, least * each))
