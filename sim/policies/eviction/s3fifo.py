"""S3-FIFO: new sessions pass a small FIFO queue, and only those used twice there, or missed soon after, get into the main one.

Source: Yang et al.: FIFO queues are all you need for cache eviction, SOSP 2023, as in libCacheSim. The small queue has a tenth of the
bytes; what falls out of it is remembered (ghosts, 0.9 of the tier's bytes), and goes to the main queue if it comes back. The main queue
spares a used session and puts it at its end with one use (of three at most) less. Until the tier is first full, sessions join the main
queue when the small one is full.

Where the textbook walks over both queues, here two heaps say where that walk will end, and it is made when the victim leaves, so that
asking for one moves nothing.
"""

from itertools import count

from mypy_extensions import mypyc_attr

from kvplan.sim.policies.base import View
from kvplan.sim.policies.lazyheap import LazyHeap
from kvplan.sim.policies.segments import Segment, Segmented

SMALL, GHOSTS = 0.1, 0.9
"""Shares of the tier's bytes."""
PROMOTED, MOST = 2, 3
"""Uses that lead from the small to the main queue, and the most that count."""


@mypyc_attr(allow_interpreted_subclasses=True)
class S3Fifo(Segmented):
    """O(log n) per call, amortised: every step of the walk takes back a use. What was set aside is first in its queue again."""

    NAME = "s3-fifo"

    def __init__(self, view: View) -> None:
        super().__init__(view)
        self._small_limit = int(SMALL * view.capacity)
        self._main_limit = view.capacity - self._small_limit
        self._ghost_limit = int(GHOSTS * view.capacity)
        self._small, self._main, self._ghosts = Segment(), Segment(), Segment()
        self._uses: dict[int, int] = {}
        self._falling: LazyHeap[int] = LazyHeap()
        """Sessions of the small queue that are not to be promoted, by place."""
        self._rounds: LazyHeap[tuple[int, int]] = LazyHeap()
        """Sessions of the main queue, by uses (each spares it one round), then by place."""
        self._last_place, self._first_place = count(), count(-1, -1)
        self._was_full = False

    def insert(self, session: int) -> None:
        returns = session in self._ghosts
        if returns:
            self._ghosts.remove(session)
        self._ghosts.trim(self._ghost_limit)
        if returns or (not self._was_full and self._small.bytes >= self._small_limit):
            self._join_main(session, 0)
        else:
            self._uses[session] = 0
            self._put(session, self._small)
            self._falling.push(session, next(self._last_place))

    def use(self, session: int) -> None:
        queue = self._segment[session]
        queue.resize(session, self.view.size(session))
        uses = self._uses[session] = min(self._uses[session] + 1, MOST)
        if queue is self._main:
            _, place = self._rounds.key(session)
            self._rounds.push(session, (uses, place))
        elif uses >= PROMOTED:
            self._falling.discard(session)

    def victim(self) -> int | None:
        main = self._rounds.peek()
        if main is not None and self._main.bytes > self._main_limit:
            return main
        small = self._falling.peek()
        if small is not None:
            return small
        promoted = self._small.first()  # the whole small queue goes to the end of the main one, and its uses are forgotten
        return main if promoted is None or (main is not None and not self._uses[main]) else promoted

    def remove(self, session: int) -> None:
        if session == self.victim():
            self._walk_to(session)
            self._was_full = True
        self._falling.discard(session)
        self._rounds.discard(session)
        del self._uses[session]
        queue = self._segment.pop(session)
        size = queue.remove(session)
        if queue is self._small:
            self._ghosts.append(session, size)

    def set_aside(self, session: int) -> None:
        self._walk_to(session)
        self._falling.discard(session)
        self._rounds.discard(session)
        super().set_aside(session)

    def restore(self, session: int) -> None:
        super().restore(session)
        uses, place = self._uses[session], next(self._first_place)
        if self._segment[session] is self._main:
            self._rounds.push(session, (uses, place))
        elif uses < PROMOTED:
            self._falling.push(session, place)

    def _walk_to(self, victim: int) -> None:
        """What the textbook does on its way to the victim."""
        if self._segment[victim] is self._small or self._main.bytes <= self._main_limit:
            while (session := self._small.first()) is not None and self._uses[session] >= PROMOTED:
                self._falling.discard(session)
                self._join_main(session, 0)
        if self._segment[victim] is self._main:
            while (session := self._main.first()) is not None and (uses := self._uses[session]):
                self._join_main(session, uses - 1)

    def _join_main(self, session: int, uses: int) -> None:
        self._uses[session] = uses
        self._put(session, self._main)
        self._rounds.push(session, (uses, next(self._last_place)))
