"""Pensieve: the session with the lowest recompute cost, divided by the time since its last use, leaves first.

Source: Yu, Lin, Li: Stateful Large Language Model Serving with Pensieve, EuroSys 2025. There chunks of 32 tokens leave, so costs are
those of equal numbers of bytes; whole sessions leave here, so cost is recompute seconds per byte.

The order changes as time passes: an exact answer needs a look at every session. Instead sessions are kept in classes of cost, STEP
apart, each in order of last use, and the best of the first of each is taken: its cost over idle time is at most STEP times the lowest.
"""

import math
from collections import OrderedDict

from mypy_extensions import mypyc_attr

from kvplan.sim.policies.base import Eviction, View

STEP = 2 ** (1 / 8)
"""Ratio of the bounds of a cost class: 9 %. Costs per byte that differ 256-fold make 64 classes."""


@mypyc_attr(allow_interpreted_subclasses=True)
class Pensieve(Eviction):
    """O(1) per call, but a look at every class, of which there are 8 for each doubling of cost, for a victim."""

    NAME = "pensieve"
    NEEDS = frozenset({"costs"})

    def __init__(self, view: View) -> None:
        super().__init__(view)
        self._classes: dict[int, OrderedDict[int, tuple[float, float]]] = {}
        """Class -> session -> (cost per byte, time of last use), least recently used first."""
        self._class: dict[int, int] = {}
        self._aside: dict[int, tuple[float, float]] = {}

    def insert(self, session: int) -> None:
        cost = self.view.recompute_s(session) / self.view.size(session)
        number = self._class[session] = math.floor(math.log(cost, STEP))
        self._classes.setdefault(number, OrderedDict())[session] = (cost, self.view.now_s())

    def use(self, session: int) -> None:
        self.remove(session)
        self.insert(session)

    def remove(self, session: int) -> None:
        self._take_out(session)
        del self._class[session]

    def set_aside(self, session: int) -> None:
        self._aside[session] = self._take_out(session)

    def restore(self, session: int) -> None:
        members = self._classes.setdefault(self._class[session], OrderedDict())
        members[session] = self._aside.pop(session)
        members.move_to_end(session, last=False)

    def victim(self) -> int | None:
        now_s = self.view.now_s()
        best, most = None, -1.0
        for members in self._classes.values():
            session, (cost, used_s) = next(iter(members.items()))
            idle_per_cost = (now_s - used_s) / cost
            if idle_per_cost > most:
                best, most = session, idle_per_cost
        return best

    def _take_out(self, session: int) -> tuple[float, float]:
        number = self._class[session]
        members = self._classes[number]
        found = members.pop(session)
        if not members:
            del self._classes[number]
        return found
