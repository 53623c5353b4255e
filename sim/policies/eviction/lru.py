"""Least recently used: the session whose last turn ended (or that came into the tier) longest ago leaves first."""

from collections import OrderedDict

from mypy_extensions import mypyc_attr

from kvplan.sim.policies.base import Eviction, View


@mypyc_attr(allow_interpreted_subclasses=True)
class Lru(Eviction):
    """O(1) per call."""

    NAME = "lru"

    def __init__(self, view: View) -> None:
        super().__init__(view)
        self._order: OrderedDict[int, None] = OrderedDict()

    def insert(self, session: int) -> None:
        self._order[session] = None

    def remove(self, session: int) -> None:
        del self._order[session]

    def restore(self, session: int) -> None:
        self._order[session] = None
        self._order.move_to_end(session, last=False)

    def victim(self) -> int | None:
        return next(iter(self._order), None)

    def use(self, session: int) -> None:
        self._order.move_to_end(session)
