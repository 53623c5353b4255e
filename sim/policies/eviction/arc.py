"""ARC: one LRU list for sessions used once and one for the others; misses of what fell out of either move the border between them.

Source: Megiddo, Modha: ARC: A Self-Tuning, Low Overhead Replacement Cache, FAST 2003, with bytes for pages: the border moves by the
session's bytes, times the ratio of the ghost lists where that is more.

The textbook knows what is missed when it chooses a victim; a tier must make room first. So the border moves after the victim has left
instead of before, and on the border itself the victim is always from the second list, also for a miss that the second list's ghosts
know. All else is the textbook's.
"""

from mypy_extensions import mypyc_attr

from kvplan.sim.policies.base import View
from kvplan.sim.policies.segments import Segment, Segmented


@mypyc_attr(allow_interpreted_subclasses=True)
class Arc(Segmented):
    """O(1) per call, amortised."""

    NAME = "arc"

    def __init__(self, view: View) -> None:
        super().__init__(view)
        self._once, self._often = Segment(), Segment()
        self._once_ghosts, self._often_ghosts = Segment(), Segment()
        self._border = 0.0
        """Bytes that the first list should have."""

    def insert(self, session: int) -> None:
        capacity, size = self.view.capacity, self.view.size(session)
        once, often = self._once_ghosts, self._often_ghosts
        if session in once:
            self._border = min(self._border + size * max(often.bytes / once.bytes, 1), capacity)
            once.remove(session)
            self._put(session, self._often)
        elif session in often:
            self._border = max(self._border - size * max(once.bytes / often.bytes, 1), 0)
            often.remove(session)
            self._put(session, self._often)
        else:
            self._put(session, self._once)
        once.trim(capacity - self._once.bytes)
        often.trim(2 * capacity - self._once.bytes - self._often.bytes - once.bytes)

    def use(self, session: int) -> None:
        self._put(session, self._often)

    def remove(self, session: int) -> None:
        segment = self._segment.pop(session)
        ghosts = self._once_ghosts if segment is self._once else self._often_ghosts
        ghosts.append(session, segment.remove(session))

    def victim(self) -> int | None:
        of_once, of_often = self._once.first(), self._often.first()
        if of_once is None or of_often is None:
            return of_often if of_once is None else of_once
        return of_once if self._once.bytes > self._border else of_often
