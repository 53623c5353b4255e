"""W-TinyLFU: new sessions pass a small LRU window; to get further, they must have been used more often lately than who would leave.

Source: Einziger, Friedman, Manes: TinyLFU, ACM Transactions on Storage 13(4), 2017: window 1 %, main part a segmented LRU with 80 %
protected, frequencies from a sketch that ages. A tier cannot refuse what comes, so admission is the choice of victim between the
oldest of the window and the next of the main part; the winner moves from the window when there is room. Contests are held before the
newcomer joins the window, not after. Left out: the adaptive window and the random admissions against attacks of later versions.
"""

from mypy_extensions import mypyc_attr

from kvplan.sim.policies.base import View
from kvplan.sim.policies.segments import Segment, Segmented
from kvplan.sim.policies.sketch import Sketch

WINDOW, PROTECTED = 0.01, 0.8
"""Shares of the tier's bytes, and of the main part's."""


@mypyc_attr(allow_interpreted_subclasses=True)
class WTinyLfu(Segmented):
    """O(1) per call, amortised."""

    NAME = "w-tinylfu"

    def __init__(self, view: View) -> None:
        super().__init__(view)
        self._window, self._probation, self._protected = Segment(), Segment(), Segment()
        self._window_limit = int(WINDOW * view.capacity)
        self._main_limit = view.capacity - self._window_limit
        self._protected_limit = int(PROTECTED * self._main_limit)
        self._seen = Sketch()

    def insert(self, session: int) -> None:
        self._seen.add(session)
        self._put(session, self._window)
        self._seen.fit(len(self._segment))
        while self._window.bytes > self._window_limit and self._probation.bytes + self._protected.bytes < self._main_limit:
            oldest = self._window.first()
            if oldest is None or oldest == session:
                return
            self._put(oldest, self._probation)

    def use(self, session: int) -> None:
        self._seen.add(session)
        segment = self._segment[session]
        self._put(session, self._window if segment is self._window else self._protected)
        while self._protected.bytes > self._protected_limit:
            oldest = self._protected.first()
            if oldest is None or oldest == session:
                return
            self._put(oldest, self._probation)

    def remove(self, session: int) -> None:
        self._segment.pop(session).remove(session)

    def victim(self) -> int | None:
        candidate = self._window.first()
        resident = self._probation.first()
        if resident is None:
            resident = self._protected.first()
        if candidate is None or resident is None:
            return resident if candidate is None else candidate
        return resident if self._seen.count(candidate) > self._seen.count(resident) else candidate
