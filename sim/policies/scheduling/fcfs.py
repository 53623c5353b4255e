"""First come, first served."""

from collections import deque

from mypy_extensions import mypyc_attr

from kvplan.sim.policies.base import JobView, Scheduler


@mypyc_attr(allow_interpreted_subclasses=True)
class Fcfs(Scheduler):
    """O(1) per call. Positions are arrival numbers."""

    NAME = "fcfs"

    def __init__(self, view: JobView) -> None:
        super().__init__(view)
        self._turns: deque[int] = deque()
        self._pushed = 0

    def push(self, turn: int) -> float:
        self._turns.append(turn)
        position = self._pushed
        self._pushed = position + 1
        return position

    def head(self) -> int | None:
        return self._turns[0] if self._turns else None

    def pop(self) -> int:
        return self._turns.popleft()

    def position_at(self, index: int) -> float | None:
        waiting = len(self._turns)
        return self._pushed - waiting + index if index < waiting else None

    def __len__(self) -> int:
        return len(self._turns)
