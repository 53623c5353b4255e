"""Least recently used, but in the last tier nothing leaves within five minutes of its last use: then new KV is not kept.

What providers promise as "kept for five minutes": Anthropic's prompt caching (2024) and its likes. A fixed promise, kept to all.
Sessions past their TTL are not dropped at once but when room is needed; `store.ttl` does the former.
"""

from collections import OrderedDict
from typing import ClassVar

from mypy_extensions import mypyc_attr

from kvplan.sim.policies.base import Eviction, View

TTL_S = 300.0
"""Seconds after its last use for which a session is kept."""


@mypyc_attr(allow_interpreted_subclasses=True)
class Ttl(Eviction):
    """O(1) per call."""

    NAME = "ttl"
    MAY_REFUSE: ClassVar[bool] = True

    def __init__(self, view: View) -> None:
        super().__init__(view)
        self._used_s: OrderedDict[int, float] = OrderedDict()
        self._aside: dict[int, float] = {}

    def insert(self, session: int) -> None:
        self._used_s[session] = self.view.now_s()

    def use(self, session: int) -> None:
        self.remove(session)
        self.insert(session)

    def remove(self, session: int) -> None:
        del self._used_s[session]

    def set_aside(self, session: int) -> None:
        self._aside[session] = self._used_s.pop(session)

    def restore(self, session: int) -> None:
        self._used_s[session] = self._aside.pop(session)
        self._used_s.move_to_end(session, last=False)

    def victim(self) -> int | None:
        session = next(iter(self._used_s), None)
        if session is not None and self.view.is_last and self.view.now_s() < self._used_s[session] + TTL_S:
            return None
        return session
