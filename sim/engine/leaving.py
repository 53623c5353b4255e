"""When windows of jobs that decode leave blocks with names: after so many decode steps, since a job has a token more after each."""

from collections.abc import Iterator
from heapq import heappop, heappush

from kvplan.sim.store.blocks.pool import Use


class Leaving:
    """One replica's."""

    def __init__(self) -> None:
        self._steps = 0
        """Of decoding, so far."""
        self._waiting: list[tuple[int, int, int, Use]] = []
        """A heap of (after which step, number, tokens then, whose)."""
        self._numbers = 0

    def wait(self, use: Use, tokens: int, until: int | None) -> None:
        """A job that has so many tokens after this step will have left a block when it has `until`; None: it has none to leave."""
        if until is not None:
            self._numbers += 1
            heappush(self._waiting, (self._steps + until - tokens, self._numbers, until, use))

    def after(self, steps: int) -> Iterator[tuple[int, int, Use]]:
        """So many steps are done. Gives after which of them a job's windows have left a block, its tokens then, and what it uses; it may
        wait again meanwhile."""
        before, now, waiting = self._steps, self._steps + steps, self._waiting
        while waiting and waiting[0][0] <= now:
            self._steps, _, tokens, use = heappop(waiting)
            yield self._steps - before, tokens, use
        self._steps = now
