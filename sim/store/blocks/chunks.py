"""A tier of chunks below a pool, for requests that overlap: what is stored is on its way for a while, and what is loaded may not go then.

The rules are those of `kvplan.sim.store.blocks.offload`: only what is missing is stored, and nothing where it would not fit; the chunks of
a request that ends are renewed, tail before head. A chunk on its way has its room, is not stored again, and is not found before it has
come; until then what comes before it stays, and is renewed with it.
"""

from typing import NamedTuple

from kvplan.sim.store.blocks.base import Path
from kvplan.sim.store.blocks.runs import Pieces, Runs, depth


class Coming(NamedTuple):
    """Chunks on their way into a tier."""

    path: Path
    start: int
    """The first of them."""
    stop: int
    there: Pieces
    """What comes before them."""
    missing: Pieces


class Chunks:
    """Room for `usable` chunks."""

    def __init__(self, usable: int) -> None:
        self._usable = usable
        self._runs = Runs()

    @property
    def held(self) -> int:
        """Chunks that have room, those on their way too."""
        return self._runs.blocks + self._runs.used

    def reach(self, path: Path, most: int) -> int:
        """Leading chunks of a context that are there, up to `most`."""
        return self._runs.reach(path, most)[0]

    def extent(self, path: Path, most: int) -> int:
        """The same, with those on their way."""
        return self._runs.extent(path, most)

    def room_beyond(self, path: Path, there: int) -> int:
        """Chunks that can come beside so many leading ones of a context."""
        return self._usable - self._runs.used - there + self._runs.reach(path, there)[1]

    def hold(self, path: Path, chunks: int) -> Pieces:
        """So many leading chunks of a context may not go until they are let go."""
        return self._runs.take(path, chunks)

    def let_go(self, pieces: Pieces) -> None:
        """They may."""
        self._runs.give_back(pieces)

    def store(self, path: Path, full: int) -> "Coming | None":
        """The first `full` chunks of a context are offered. Those that are missing are on their way from now on, until `arrive`; None where
        none is, or they have no room."""
        there = self._runs.take(path, full)
        start = depth(there)
        if not start < full <= self._usable - self._runs.used + start:
            self._runs.give_back(there)
            return None
        self._runs.evict(max(0, self.held + full - start - self._usable))
        missing = self._runs.name(path, start, full)
        for piece in missing:
            piece.run.ready = False
        return Coming(path, start, full, there, missing)

    def arrive(self, coming: "Coming") -> None:
        """Chunks that were on their way are there, and may go."""
        for run in [run for piece in coming.missing for run in piece.runs()]:
            run.ready = True
        self._runs.give_back(coming.there + coming.missing)

    def renew(self, path: Path, full: int) -> None:
        """A request with these chunks has ended."""
        self._runs.give_back(self._runs.take(path, full))

    def counted(self) -> tuple[int, int]:
        """For guards: chunks one by one, and those that there is room for."""
        return sum(self._runs.counted()), self._usable
