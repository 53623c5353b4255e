"""Schedulers that give each waiting turn a rank, and serve the smallest first."""

from abc import abstractmethod

from mypy_extensions import mypyc_attr
from sortedcontainers import SortedList

from kvplan.sim.policies.base import JobView, Scheduler


@mypyc_attr(allow_interpreted_subclasses=True)
class RankedQueue(Scheduler):
    """O(log n) per call. A turn's rank is worked out when it comes, and again in `update`."""

    def __init__(self, view: JobView) -> None:
        super().__init__(view)
        self._order: SortedList[tuple[float, int]] = SortedList()
        self._rank: dict[int, float] = {}
        self.pushed = 0
        """Turns that have come so far, the one that is being ranked included."""

    @abstractmethod
    def rank(self, turn: int) -> float:
        """Place of a turn: smaller is sooner; of equal ranks the lower turn number."""

    def push(self, turn: int) -> float:
        self.pushed += 1
        return self._place(turn)

    def _place(self, turn: int) -> float:
        rank = self._rank[turn] = self.rank(turn)
        self._order.add((rank, turn))
        return rank

    def head(self) -> int | None:
        return self._order[0][1] if self._order else None

    def pop(self) -> int:
        turn = self._order.pop(0)[1]
        del self._rank[turn]
        return turn

    def position_at(self, index: int) -> float | None:
        return self._order[index][0] if index < len(self._order) else None

    def __len__(self) -> int:
        return len(self._order)

    def update(self, turn: int) -> float:
        self._order.remove((self._rank[turn], turn))
        return self._place(turn)


CLASS_APART = 2.0**40
"""Between ranks of one class and the next, for orders by class first and by arrival number second; exact in a float."""
