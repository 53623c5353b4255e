"""An order of blocks by last use, cut into runs: blocks of one context that were used last together are one entry.

Who uses a context uses it from its start, and in the order its tail comes before its head. So others can only have used a run's head since,
a run is evicted from its tail, and no block is there whose parent is not. A request makes one run and uses up those that it covers: its
cost is that of the runs, not of the blocks, and of a binary search where contexts part.
"""

from collections import OrderedDict
from collections.abc import Hashable

from kvplan.sim.store.blocks.base import Path


class Run:
    """The blocks from `start` up to `stop` of a context."""

    __slots__ = ("path", "start", "stop")

    def __init__(self, path: Path, start: int, stop: int) -> None:
        self.path = path
        self.start = start
        self.stop = stop

    def shared(self, path: Path, most: int) -> int:
        """Up to which block, at most, another context that has the run's first block has the run."""
        stop = min(self.stop, most)
        if path[stop - 1] == self.path[stop - 1]:
            return stop
        same, other = self.start + 1, stop - 1
        while same < other:
            middle = (same + other + 1) // 2
            same, other = (middle, other) if path[middle - 1] == self.path[middle - 1] else (same, middle - 1)
        return same


class Runs:
    """Blocks that nobody uses just now, the next to go first.

    A block may be there more than once: the copies after the first are runs of one block each.
    """

    def __init__(self) -> None:
        self.blocks = 0
        self._order: OrderedDict[Run, None] = OrderedDict()
        self._heads: dict[Hashable, list[Run]] = {}

    def has(self, path: Path, block: int) -> bool:
        """Whether a run begins with this block of the context."""
        return path[block] in self._heads

    def take(self, path: Path, most: int, depth: int = 0) -> list[int]:
        """Takes a context's leading blocks out, from `depth` up to `most`: they are in use. Returns where each of their runs stopped,
        and before these `depth`."""
        stops = [depth]
        while depth < most and (found := self._heads.get(path[depth])):
            stop = found[0].shared(path, most)
            self._behead(found[0], stop)
            stops.append(stop)
            self.blocks -= stop - depth
            depth = stop
        return stops

    def put(self, path: Path, stop: int, start: int = 0) -> None:
        """The use of these blocks of a context has ended: they are the last to go, and the last of them before the others."""
        if start < stop:
            self._list(Run(path, start, stop), 0)

    def put_copy(self, path: Path, block: int) -> None:
        """The same for one block that is there already: the copy is used when those before it have gone."""
        self._list(Run(path, block, block + 1), len(self._heads[path[block]]))

    def evict(self, count: int) -> None:
        """So many blocks go; no more than there are."""
        self.blocks -= count
        while count:
            run = next(iter(self._order))
            gone = min(count, run.stop - run.start)
            count -= gone
            if gone == run.stop - run.start:
                self._forget(run)
            run.stop -= gone

    def evict_run(self) -> None:
        """The first run goes, all of it."""
        run = next(iter(self._order))
        self.blocks -= run.stop - run.start
        self._forget(run)

    def _list(self, run: Run, place: int) -> None:
        self._order[run] = None
        self._heads.setdefault(run.path[run.start], []).insert(place, run)
        self.blocks += run.stop - run.start

    def _behead(self, run: Run, stop: int) -> None:
        """The run begins at `stop` now; its blocks were there before any copy of them."""
        if stop == run.stop:
            self._forget(run)
            return
        self._unlist(run)
        run.start = stop
        self._heads.setdefault(run.path[stop], []).insert(0, run)

    def _forget(self, run: Run) -> None:
        del self._order[run]
        self._unlist(run)

    def _unlist(self, run: Run) -> None:
        head = run.path[run.start]
        found = self._heads[head]
        found.remove(run)
        if not found:
            del self._heads[head]


class OfRuns:
    """A cache of `usable` blocks, which are in runs while nobody uses them. What is done with them is the subclass's."""

    def __init__(self, usable: int, block_tokens: int) -> None:
        self._usable = usable
        self._block_tokens = block_tokens
        self._runs = Runs()

    @property
    def held(self) -> int:
        """See `BlockCache`."""
        return self._runs.blocks
