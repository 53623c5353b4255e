"""2Q: a FIFO queue for new sessions, and an LRU list for those that come back soon after they fell out of it.

Source: Johnson, Shasha: 2Q: A Low Overhead High Performance Buffer Management Replacement Algorithm, VLDB 1994, the full version, with
its bounds in bytes: a quarter of the tier for the queue, ghosts for half a tier. Uses in the queue count for nothing: it is there to
tell sessions in one burst of use from those in long use.
"""

from mypy_extensions import mypyc_attr

from kvplan.sim.policies.base import View
from kvplan.sim.policies.segments import Segment, Segmented

QUEUE, GHOSTS = 0.25, 0.5
"""Shares of the tier's bytes."""


@mypyc_attr(allow_interpreted_subclasses=True)
class TwoQ(Segmented):
    """O(1) per call, amortised."""

    NAME = "2q"

    def __init__(self, view: View) -> None:
        super().__init__(view)
        self._queue, self._main, self._ghosts = Segment(), Segment(), Segment()
        self._queue_limit = int(QUEUE * view.capacity)
        self._ghost_limit = int(GHOSTS * view.capacity)

    def insert(self, session: int) -> None:
        if session in self._ghosts:
            self._ghosts.remove(session)
            self._put(session, self._main)
        else:
            self._put(session, self._queue)
        self._ghosts.trim(self._ghost_limit)

    def use(self, session: int) -> None:
        if self._segment[session] is self._main:
            self._put(session, self._main)
        else:
            self._queue.resize(session, self.view.size(session))

    def remove(self, session: int) -> None:
        segment = self._segment.pop(session)
        size = segment.remove(session)
        if segment is self._queue:
            self._ghosts.append(session, size)

    def victim(self) -> int | None:
        of_queue, of_main = self._queue.first(), self._main.first()
        if of_queue is None or of_main is None:
            return of_main if of_queue is None else of_queue
        return of_queue if self._queue.bytes > self._queue_limit else of_main
