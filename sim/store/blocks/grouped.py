"""Tiers of chunks below vLLM's pool for a model with windows or states: a chunk is one group's, as a block of the pool is, and all are as
large.

What is offered is whole in full attention; of a window or a state it is what the pool names: before the last prefix that a lookup of the
prompt could find, and before the place where it parts from others. A lookup finds the longest prefix whose chunks the groups with full
attention have all of, those with a window the last, as far as it reaches into chunks, and those with a state the one that ends there; the
pool has what is before its own hit. Only these are loaded, and come up from lower tiers, each from the first that has it: all of them, or
none where the first has no room for all.

All groups are in one order. Of what one request has used together windows and states go before full attention, the last chunk before the
others.

Left out: vLLM has them go by their places in the context, of all groups; a window of one token more than whole chunks counts there as a
chunk more; it stores each state by itself, here with what its prompt stores beside it, or not at all; and what a request loads, or the pool
had before that, is not offered again. Costs by the chunk in windows. A chunk of several blocks would have one state, at its end, and room
for as many; it is not simulated.
Source: vLLM 0.33.0, distributed/kv_transfer/kv_connector/v1/offloading/scheduler.py (of a state `_build_aligned_boundary_store_jobs`, of
those that the pool hands over: `take_boundary_state_offloads` in v1/core/kv_cache_manager.py), offloading/config.py (a state is a window of
one chunk), v1/kv_offload/cpu/manager.py and policies/lru.py. Its lookups are finer than chunks where `prefix_match_unit` is set, alone.
"""

from collections.abc import Iterable, Sequence
from itertools import pairwise

from kvplan.sim.store.blocks.base import Context, Path
from kvplan.sim.store.blocks.below import Part
from kvplan.sim.store.blocks.chunks import Chunks, Coming, Lookup, Rise
from kvplan.sim.store.blocks.runs import Pieces, depth
from kvplan.sim.store.blocks.windows import Groups, OfGroup


class InChunks:
    """A context in chunks, with those that it has of windows."""

    __slots__ = ("_path", "session", "windows")

    def __init__(self, path: Context, windows: Sequence[int]) -> None:
        self._path, self.session, self.windows = path, path.session, windows

    def __len__(self) -> int:
        return len(self._path)

    def __getitem__(self, chunk: int, /) -> object:
        return self._path[chunk]


class _Slot:
    """A place in the order: the leading chunks of a context in a group with full attention, or one of a window's."""

    def __init__(self, part: Part, pieces: Pieces, alone: bool) -> None:
        self.part, self.alone = part, alone
        self.pieces = pieces
        """Those of it that are there; with `store` those that come."""

    @property
    def missing(self) -> Part:
        part = self.part
        return part if self.alone and not self.pieces else Part(part.path, max(part.start, depth(self.pieces)), part.stop)


class GroupedChunks(Chunks):
    """Room for `usable` chunks, each of one group."""

    def __init__(self, groups: Groups, usable: int) -> None:
        super().__init__(usable)
        self._full, self._windowed = groups.full, groups.windowed

    def groups(self, path: Path) -> tuple[list[Path], list[Path]]:
        """A context in each group: with full attention, and with windows."""
        paths = [path, *(OfGroup(path, group) for group in range(1, self._full + self._windowed))]
        return paths[: self._full], paths[self._full :]

    def prefix(self, path: Path, most: int, coming: bool = False) -> int:
        """Up to which chunk full attention has a context, `most` at most; `coming`: those on their way count as there."""
        full, _ = self.groups(path)
        return min((self._runs.named(of, most) if coming else self._runs.reach(of, most))[0] for of in full)

    def named(self, path: Path, chunk: int) -> bool:
        """Whether one group's chunk of a window has room."""
        return self._runs.first(path[chunk]) is not None

    def ready(self, path: Path, chunk: int) -> bool:
        """Whether it is there."""
        run = self._runs.first(path[chunk])
        return run is not None and run.ready

    def room_beside(self, path: Path, stop: int) -> int:
        """Chunks for which there is room while those in use stay, and those that there are of so many leading ones of a context."""
        assert isinstance(path, InChunks)
        full, windows = self.groups(path)
        reached = [self._runs.named(of, stop) for of in full]
        alone = [self._runs.first(of[chunk]) for of in windows for chunk in path.windows]
        kept = sum(there - used for there, used in reached) + sum(run is not None and not run.users for run in alone)
        return self._usable - self._runs.used - kept

    def hold(self, path: Path, chunks: int) -> Pieces:
        return _in_order(self._slots(path, chunks))

    def renew(self, path: Context, full: int, now: float = 0.0) -> None:
        self.let_go(path, _in_order(self._slots(path, full)), now)

    def store(self, path: Context, full: int, now: float = 0.0, start: int = 0) -> Coming | None:
        slots = self._slots(path, full)
        missing = [part for part in [slot.missing for slot in slots] if part.chunks]
        if not missing or not self._make_room(sum([part.chunks for part in missing])):
            self.dropped += bool(missing)
            self.let_go(path, _in_order(slots), now)
            return None
        start, new = min([slot.missing.start for slot in slots if not slot.alone]), Pieces()
        for slot in slots:
            part, pieces, alone = slot.part, slot.pieces, slot.alone
            named = [self._runs.name_alone(part.path, part.start)] if alone and not pieces else []
            named += [] if alone else self._runs.name(part.path, pieces, part.stop)
            pieces += named
            new += named
        for piece in new:
            piece.run.ready = False
        return Coming(path, start, full, _in_order(slots), new, _joined(missing))

    def _slots(self, path: Path, stop: int) -> list[_Slot]:
        """What a context has of its leading chunks, and takes; the first in the order of those that go is the last of it."""
        assert isinstance(path, InChunks)
        full, windows = self.groups(path)
        slots = [_Slot(Part(of, 0, stop), self._runs.take(of, stop), False) for of in full]
        for of in windows:
            slots += [_Slot(Part(of, chunk, chunk + 1), self._runs.take(of, chunk + 1, chunk), True) for chunk in path.windows]
        return slots


def _in_order(slots: Iterable[_Slot]) -> Pieces:
    return [piece for slot in slots for piece in slot.pieces]


def _joined(parts: Iterable[Part]) -> list[Part]:
    """Consecutive ones of one group as one."""
    found: list[Part] = []
    for part in parts:
        if found and found[-1].path is part.path and found[-1].stop == part.start:
            found[-1] = Part(part.path, found[-1].start, part.stop)
        else:
            found.append(part)
    return found


def reached_by_groups(tiers: Sequence[GroupedChunks], reach: int, context: Context, hit: int, most: int, coming: bool = False) -> Lookup:
    """What tiers, if any, have together of a context, up to chunk `most` at most. The pool has those before `hit`; of windows a hit takes
    `reach` chunks. `coming`: those on their way to the first count as there."""
    if not tiers:
        return Lookup(context, [0], [], [])
    found = _Search(tiers, reach, context, hit, most, coming).found()
    chunks = sum(rise.chunks for rise in found.rises)
    if not chunks or chunks <= tiers[0].room_beside(found.path, found.stops[-1]):
        return found
    above = _Search(tiers[:1], reach, context, hit, most, coming).found()
    return Lookup(above.path, above.stops + above.stops[-1:] * (len(tiers) - 1), above.rises, above.beside)


class _Search:
    """For what one prompt finds."""

    def __init__(self, tiers: Sequence[GroupedChunks], reach: int, context: Context, hit: int, most: int, coming: bool) -> None:
        self._first, self._lower = first, lower = tiers[0], tiers[1:]
        self._reach, self._context, self._hit, self._coming = reach, context, hit, coming
        self._full, self._windows = first.groups(context)
        self._stops = [0, first.prefix(context, most, coming)]
        waits = first.prefix(context, most, True) > self._stops[1]
        for tier in lower:
            self._stops.append(self._stops[-1] if waits else max(self._stops[-1], tier.prefix(context, most)))

    def found(self) -> Lookup:
        """Of the longest prefix that all groups can go on from."""
        end = self._longest()
        stops, windows = [min(stop, end) for stop in self._stops], range(self._from(end), end)
        beside = [Part(of, self._hit, end) for of in self._full[1:]] + [Part(of, windows.start, end) for of in self._windows]
        return Lookup(InChunks(self._context, windows), stops, self._rises(stops, windows), beside)

    def _longest(self) -> int:
        end = self._stops[-1]
        while end > self._hit:
            missing = self._missing(end)
            if missing is None:
                return end
            end = missing
        return self._hit

    def _from(self, end: int) -> int:
        """The first chunk of windows that a prefix takes."""
        return max(self._hit, end - self._reach)

    def _missing(self, end: int) -> int | None:
        """A chunk that windows have not, of those that a prefix takes: none that takes it will do."""
        start = self._from(end)
        for chunk in (start, *range(end - 1, start, -1)):
            if any(self._source(of, chunk) > len(self._lower) for of in self._windows):
                return chunk
        return None

    def _source(self, of: Path, chunk: int) -> int:
        """The tier that has a window's chunk, by how many are above it; more than there are, where none has."""
        nowhere = len(self._lower) + 1
        if self._first.named(of, chunk):
            return 0 if self._coming or self._first.ready(of, chunk) else nowhere
        return next((below for below, tier in enumerate(self._lower, 1) if tier.ready(of, chunk)), nowhere)

    def _rises(self, stops: Sequence[int], windows: Sequence[int]) -> list[Rise]:
        """What comes up for a prefix: of each tier what those above it have not, and beside it what must stay."""
        rises, sources = [], {chunk: [self._source(of, chunk) for of in self._windows] for chunk in windows}
        for below, (start, stop) in enumerate(pairwise(stops[1:]), 1):
            chunks = len(self._full) * (stop - start)
            chunks += sum(source > 0 for each in sources.values() for source in each if max(each) == below)
            if chunks:
                there = [chunk for chunk, each in sources.items() if max(each) <= below]
                rises.append(Rise(below + 1, InChunks(self._context, there), start, stop, chunks))
        return rises
