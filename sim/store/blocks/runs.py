"""Blocks that have names, cut into runs: blocks of one context that were used together last are one entry, in use or in the order in which
those go that nobody uses.

Who uses a context uses it from its start, and when its use ends its tail goes before its head. So others can only have used a run's head
since, a run is evicted from its tail, and no block is there whose parent is not. A request makes one run and uses up those that it covers:
its cost is that of the runs, not of the blocks, and of a binary search where contexts part.

Blocks of a window are used from where the window begins. So their runs are listed at every sixteenth block of the context too, and one is
found at any block of it; blocks that are not there cost a look each. They too are evicted from the tail.

Several may use a block at once. Who has computed what was there already has a copy of it: the one that had its name first is found, as
long as it is there. Runs of which there are copies stay apart from others, and are cut where a copy begins, so that each begins where one
ends that came before it.
"""

from collections.abc import Hashable
from typing import Final

from kvplan.sim.store.blocks.base import Path


class Run:
    """The blocks from `start` up to `stop` of a context."""

    __slots__ = ("ahead", "behind", "copied", "head", "number", "path", "ready", "rest", "since", "start", "stop", "users", "window")
    ahead: "Run"
    """In the order, the one that goes before it."""
    behind: "Run"

    def __init__(
        self, path: Path, start: int, stop: int, head: Hashable = None, number: int = 0, users: int = 0, copied: bool = False
    ) -> None:
        self.path = path
        self.window = 0
        """Which window's blocks it has; 0: those of full attention."""
        self.head = head
        """Key of its first block."""
        self.start = start
        self.stop = stop
        self.number = number
        """Among all, in the order in which they had their names."""
        self.users = users
        self.copied = copied
        """Whether there are copies of it, or were."""
        self.ready = True
        """Whether all of it is there, and nothing on its way."""
        self.since = 0.0
        """When its last use ended, where nobody uses it."""
        self.rest: Run | None = None
        """What it went on with before it was cut."""

    @property
    def blocks(self) -> int:
        """How many."""
        return self.stop - self.start

    def shared(self, path: Path, most: int, start: int) -> int:
        """Up to which block, at most, another context that has the run's block `start` has the run."""
        stop = min(self.stop, most)
        if path is self.path or path[stop - 1] == self.path[stop - 1]:
            return stop
        same, other = start + 1, stop - 1
        while same < other:
            middle = (same + other + 1) // 2
            same, other = (middle, other) if path[middle - 1] == self.path[middle - 1] else (same, middle - 1)
        return same

    def goes_on_as(self, run: "Run") -> bool:
        """Whether another begins where it ends, and the two can be one."""
        return self.stop == run.start and self.window == run.window and not (self.copied or run.copied)

    def follow(self, run: "Run") -> None:
        """Goes after another, and before the one that did."""
        self.ahead, self.behind = run, run.behind
        self.behind.ahead = run.behind = self

    def leave(self) -> None:
        """Is in no order any more."""
        self.ahead.behind, self.behind.ahead = self.behind, self.ahead
        self.ahead = self.behind = _NOWHERE  # it keeps nobody: of runs that go, memory is free at once


def empty_order() -> Run:
    """What comes before the first to go, and after the last; nobody is in between yet."""
    end = Run((), 0, 0)
    end.ahead = end.behind = end
    return end


_NOWHERE: Final = Run((), 0, 0)
_NONE: Final[list[Run]] = []
_MARK: Final = 16
"""Runs of windows are listed at each block whose number is a multiple of it."""


def _number(run: Run) -> int:
    return run.number


def _first(found: list[Run]) -> Run:
    """Of several with one block, that which had its name first."""
    return found[0] if len(found) == 1 else min(found, key=_number)


class Piece:
    """What somebody uses of a context: a run as it was, and where it stopped then."""

    __slots__ = ("run", "stop")

    def __init__(self, run: Run, stop: int) -> None:
        self.run, self.stop = run, stop

    @property
    def copied(self) -> bool:
        """Whether there are copies of any of it, or were."""
        return self.run.copied or (self.run.stop < self.stop and any(run.copied for run in runs_of([self])))


Pieces = list[Piece]
"""Of one context, from its start."""


def runs_of(pieces: Pieces) -> list[Run]:
    """What their runs have been cut into since."""
    found = []
    for piece in pieces:
        run = piece.run
        found.append(run)
        while run.stop < piece.stop:
            assert run.rest is not None
            run = run.rest
            found.append(run)
    return found


def depth(pieces: Pieces) -> int:
    """Where they end."""
    return pieces[-1].stop if pieces else 0


class Runs:
    """`joins`: whether runs whose use ends together are one then."""

    def __init__(self, joins: bool = True) -> None:
        self.blocks = self.used = 0
        """That nobody uses just now, and that somebody does."""
        self._joins = joins
        self._names = 0
        self._heads: dict[Hashable, list[Run]] = {}
        self._order = empty_order()

    # --- what is there --------------------------------------------------------------------------------------------------------

    def reach(self, path: Path, most: int) -> tuple[int, int, int]:
        """How many leading blocks of a context are there and ready, up to `most`; how many of these are in use; and how many have names,
        ready or on their way."""
        ready = used = stop = 0
        for run, start, stop in self._along(path, most):
            if ready == start and run.ready:
                ready = stop
                used += (stop - start) * bool(run.users)
        return ready, used, stop

    def named(self, path: Path, most: int) -> tuple[int, int]:
        """How many leading blocks of a context have names, ready or on their way, up to `most`; and how many of these are in use."""
        along = self._along(path, most)
        return along[-1][2] if along else 0, sum([stop - start for run, start, stop in along if run.users])

    def within(self, path: Path, start: int, stop: int) -> list[tuple[Run, int, int]]:
        """Runs of a window that together have what is there of a context's blocks between two, and which blocks of each."""
        heads, along, block = self._heads, [], start
        while block < stop:
            found = heads.get(path[block], _NONE)
            run = _first(found) if found else None
            if block == start and (run is None or run.copied):
                run = self._over(path, start) or run
            if run is None:
                block += 1
                continue
            end = run.shared(path, stop, block)
            along.append((run, block, end))
            block = end
        return along

    def _over(self, path: Path, block: int) -> Run | None:
        """The run of a window that has a block and those before it: it had its name before any copy of the block."""
        for before in range(block - 1, block - block % _MARK - 1, -1):
            for run in self._heads.get(path[before], _NONE):
                if run.stop > block and run.path[block] == path[block]:
                    return run
        return None

    def until(self, path: Path, start: int, stop: int) -> int:
        """Of a window's blocks between two, where the last begin that are not there; `stop` where all are."""
        missing, block = stop, start
        for _, begin, end in self.within(path, start, stop):
            if block < begin:
                missing = block
            block = end
        return block if block < stop else missing

    def counted(self) -> tuple[int, int]:
        """For guards: `blocks` and `used`, run by run."""
        runs = [run for key, runs in self._heads.items() for run in runs if run.head == key]
        return sum(run.blocks for run in runs if not run.users), sum(run.blocks for run in runs if run.users)

    def _along(self, path: Path, most: int, start: int = 0) -> list[tuple[Run, int, int]]:
        """Runs that together have a context's leading blocks from `start` on, and which blocks of each."""
        heads, along, copies = self._heads, [], _NONE
        while start < most:
            key = path[start]
            found = heads.get(key, _NONE)
            if copies or len(found) > 1:
                copies = found = [*found, *[run for run in copies if run.stop > start and run.path[start] == key]]
            if not found:
                break
            run = _first(found)
            stop = run.shared(path, most, start)
            along.append((run, start, stop))
            start = stop
        return along

    # --- use ------------------------------------------------------------------------------------------------------------------

    def take(self, path: Path, most: int, start: int = 0) -> Pieces:
        """A context's leading blocks from `start` up to `most`, as far as there are, are in use by one more."""
        return self._taken(self._along(path, most, start))

    def take_within(self, path: Path, start: int, stop: int) -> Pieces:
        """What is there of a window's blocks between two is in use by one more."""
        return self._taken(self.within(path, start, stop))

    def _taken(self, along: list[tuple[Run, int, int]]) -> Pieces:
        pieces = []
        for found, begin, stop in along:
            run = found if begin == found.start else self._cut(found, begin)
            if stop < run.stop:
                self._cut(run, stop)
            if not run.users:
                run.leave()
                self.used += stop - begin
                self.blocks -= stop - begin
            run.users += 1
            pieces.append(Piece(run, stop))
        return pieces

    def name(self, path: Path, before: Pieces, stop: int) -> Pieces:
        """A context's blocks from where `before` ends up to `stop` are there from now on, and in use by one, who uses those before."""
        start = known = depth(before)
        if start >= stop:
            return []
        head = path[start]
        if head not in self._heads and not any(piece.copied for piece in before):
            return [Piece(self._list(path, start, stop, False, head), stop)]
        self._part(path, start)
        for run, _, end in self._along(path, stop):
            if end > start:
                run.copied, known = True, end
        parts = (start, known, True), (known, stop, False)
        return [Piece(self._list(path, begin, end, copied, path[begin]), end) for begin, end, copied in parts if begin < end]

    def _part(self, path: Path, place: int) -> None:
        """A context's runs that are on both sides of a place, each from the same block as one that is found, are cut there."""
        for _, begin, _ in self._along(path, place):
            for run in [*self._heads.get(path[begin], _NONE)]:
                if run.start < place < run.stop and run.path[place] == path[place]:
                    self._cut(run, place)

    def name_within(self, path: Path, start: int, stop: int, window: int) -> Pieces:
        """A window's blocks between two are there from now on, whatever is before them, and in use by one: each copy as a run."""
        pieces, block = [], start
        for run, begin, end in self.within(path, start, stop):
            run.copied = True
            if block < begin:
                pieces.append(self.name_missing(path, block, begin, window))
            pieces += [Piece(self._list(path, copy, copy + 1, True, path[copy], window), copy + 1) for copy in range(begin, end)]
            block = end
        return [*pieces, self.name_missing(path, block, stop, window)] if block < stop else pieces

    def name_missing(self, path: Path, start: int, stop: int, window: int) -> Piece:
        """The same of blocks of which none is there yet."""
        return Piece(self._list(path, start, stop, False, path[start], window), stop)

    def parted(self, pieces: Pieces, place: int) -> tuple[Pieces, Pieces]:
        """What somebody uses, as what is before a place and what is behind it."""
        before, behind = Pieces(), Pieces()
        for run in runs_of(pieces):
            if run.start < place < run.stop:
                rest = self._cut(run, place)
                behind.append(Piece(rest, rest.stop))
            (before if run.start < place else behind).append(Piece(run, run.stop))
        return before, behind

    def give_back(self, pieces: Pieces, now: float = 0.0, order: Run | None = None) -> list[Run]:
        """One use has ended: what nobody uses then is the last to go, and the last of it before the others; returns it. Never sooner than
        the one before. `order`: another than that of all."""
        end = self._order if order is None else order
        free = self._joined(runs_of(pieces))
        for run in reversed(free):
            run.since = now
            run.follow(end.ahead)
        return free

    def _joined(self, runs: list[Run]) -> list[Run]:
        """Those that nobody uses any more, as few as they can be."""
        free: list[Run] = []
        for run in runs:
            run.users -= 1
            if run.users:
                continue
            self.used -= run.stop - run.start
            self.blocks += run.stop - run.start
            last = free[-1] if free else None
            if self._joins and last is not None and last.goes_on_as(run):
                self._unlist(run)
                last.path, last.stop, last.number = run.path, run.stop, max(run.number, last.number)
                last.rest = None  # nobody's piece goes on there
                self._mark(last, run.start)
            else:
                free.append(run)
        return free

    # --- room -----------------------------------------------------------------------------------------------------------------

    def evict(self, count: int, order: Run | None = None) -> None:
        """So many blocks go, of an order or of that of all; no more than there are that nobody uses."""
        end = self._order if order is None else order
        self.blocks -= count
        while count:
            run = end.behind
            gone = min(count, run.blocks)
            count -= gone
            if gone == run.blocks:
                self._forget(run)
            else:
                self._unmark(run, run.stop - gone)
            run.stop -= gone

    def evict_first(self) -> int:
        """The first run goes, all of it; returns its blocks."""
        run = self._order.behind
        self.blocks -= run.blocks
        self._forget(run)
        return run.blocks

    def expire(self, ttl_s: float, now: float) -> list[Run]:
        """What nobody has used for longer goes; returns it."""
        gone = []
        while (run := self._order.behind) is not self._order and run.since + ttl_s < now:
            self.blocks -= run.blocks
            self._forget(run)
            gone.append(run)
        return gone

    # --- runs -----------------------------------------------------------------------------------------------------------------

    def _list(self, path: Path, start: int, stop: int, copied: bool, head: Hashable, window: int = 0) -> Run:
        self._names = number = self._names + 1
        run = Run(path, start, stop, head, number, 1, copied)
        run.window = window
        self._list_at(run, head)
        self._mark(run, start + 1)
        self.used += stop - start
        return run

    def _cut(self, run: Run, place: int) -> Run:
        """What is behind a place is a run of its own; returns it."""
        head = run.path[place]
        rest = Run(run.path, place, run.stop, head, run.number, run.users, run.copied)
        self._unmark(run, place)
        rest.window, rest.ready, rest.since, run.stop = run.window, run.ready, run.since, place
        rest.rest, run.rest = run.rest, rest
        self._list_at(rest, head)
        self._mark(rest, place + 1)
        if not run.users:
            rest.follow(run.ahead)
        return rest

    def _forget(self, run: Run) -> None:
        run.leave()
        self._unlist(run)

    def _unlist(self, run: Run) -> None:
        self._unlist_at(run, run.head)
        self._unmark(run, run.start + 1)

    def _list_at(self, run: Run, key: Hashable) -> None:
        found = self._heads.get(key)
        if found is None:
            self._heads[key] = [run]
        else:
            found.append(run)

    def _unlist_at(self, run: Run, key: Hashable) -> None:
        found = self._heads[key]
        if len(found) > 1:
            found.remove(run)
        else:
            del self._heads[key]

    def _mark(self, run: Run, start: int) -> None:
        """Lists a run of a window at the marks from a block on."""
        if run.window:
            for mark in range(-(-start // _MARK) * _MARK, run.stop, _MARK):
                self._list_at(run, run.path[mark])

    def _unmark(self, run: Run, start: int) -> None:
        if run.window:
            for mark in range(-(-start // _MARK) * _MARK, run.stop, _MARK):
                self._unlist_at(run, run.path[mark])


class OfRuns:
    """A cache of `usable` blocks. What is done with them is the subclass's."""

    def __init__(self, usable: int, block_tokens: int, joins: bool = True) -> None:
        self._usable = usable
        self._block_tokens = block_tokens
        self._runs = Runs(joins)

    @property
    def held(self) -> int:
        """See `BlockCache`."""
        return self._runs.blocks + self._runs.used
