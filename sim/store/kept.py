"""What bytes of a session mean to whoever owns a store: what growing writes, and what is left of use when a history loses some."""

from typing import Protocol


class Kept(Protocol):
    """`kvplan.hwmodels.footprint.Footprint` is one."""

    def grown(self, before: int, after: int) -> int:
        """Bytes that are written when a session of `before` bytes becomes one of `after`: no less than it grows by."""

    def rest(self, size: int, start: int, stop: int | None) -> int:
        """Bytes that remain of use of a session's `size` when it loses the oldest `start` and all beyond `stop`, as in `Useful`."""


class Proportional:
    """Every byte stands for itself: bytes of tokens that are all alike."""

    def grown(self, before: int, after: int) -> int:
        return after - before

    def rest(self, size: int, start: int, stop: int | None) -> int:
        return max(0, (size if stop is None else min(size, stop)) - start)


PROPORTIONAL = Proportional()
