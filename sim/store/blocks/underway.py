"""Chunks under way: which of a context's chunks are being written to a tier or loaded from it, and until when.

Contexts are the same up to a chunk where they have the same key there, so one key tells whether two transfers have a chunk in common.
"""

from collections.abc import Hashable
from heapq import heappop, heappush

from kvplan.sim.store.blocks.base import Path


class _Transfer:
    def __init__(self, path: Path, start: int, stop: int, end_s: float) -> None:
        self.path, self.start, self.stop, self.end_s = path, start, stop, end_s


class UnderWay:
    """Those of one tier. A question costs as many steps as transfers of contexts with the same first chunk are under way."""

    def __init__(self) -> None:
        self._transfers: dict[Hashable, list[_Transfer]] = {}
        """By first chunk of their context."""
        self._ends: list[tuple[float, int, Hashable]] = []
        """A heap of (end, number, first chunk)."""
        self._begun = 0

    def begins(self, path: Path, start: int, stop: int, end_s: float) -> None:
        """Chunks of a context are under way until then."""
        self._begun += 1
        heappush(self._ends, (end_s, self._begun, path[0]))
        self._transfers.setdefault(path[0], []).append(_Transfer(path, start, stop, end_s))

    def until(self, path: Path, start: int, stop: int, now: float) -> float:
        """When all of these chunks have come that are under way; now, where none is."""
        self._end(now)
        ends = [now]
        for other in self._transfers.get(path[0], ()):
            first = max(start, other.start)
            if first < min(stop, other.stop) and path[first] == other.path[first]:
                ends.append(other.end_s)
        return max(ends)

    def _end(self, now: float) -> None:
        """What has come by now is under way no more."""
        while self._ends and self._ends[0][0] <= now:
            _, _, head = heappop(self._ends)
            left = [transfer for transfer in self._transfers.get(head, ()) if transfer.end_s > now]
            if left:
                self._transfers[head] = left
            else:
                self._transfers.pop(head, None)
