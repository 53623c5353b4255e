"""Tiers of chunks below vLLM's pool for a model with windows or states: a chunk is one group's, as a block of the pool is, and all are as
large.

What is offered is whole in full attention; of a window or a state it is what the pool names: before the last prefix that a lookup of the
prompt could find, and before the place where it parts from others. A lookup finds the longest prefix whose chunks the groups with full
attention have all of, those with a window the last, as far as it reaches into chunks, and those with a state the one that ends there; the
pool has what is before its own hit. Only these are loaded, and come up from lower tiers, each from the first that has it: all of them, or
none where the first has no room for all.

A chunk of several blocks has room for as many, of each group. Of a state it has one, that of its end: a state elsewhere is not stored, and
one block of it is written and loaded, which has the room of all. Lower tiers get whole chunks.

All groups are in one order. Of what one request has used together windows go before full attention, the last chunk before the others;
states go by their places in the context, in which full attention of one place goes after them.

Left out: vLLM has windows go by their places as well; a window of one token more than whole chunks counts there as a
chunk more; it stores each state by itself, here with what its prompt stores beside it, or not at all; and what a request loads, or the pool
had before that, is not offered again. Of a window a chunk of several blocks is written whole.
Source: vLLM 0.33.0, distributed/kv_transfer/kv_connector/v1/offloading/scheduler.py (of a state `_build_aligned_boundary_store_jobs`, of
those that the pool hands over: `take_boundary_state_offloads` in v1/core/kv_cache_manager.py), offloading/config.py (a state is a window of
one chunk), v1/kv_offload/cpu/manager.py and policies/lru.py. Its lookups are finer than chunks where `prefix_match_unit` is set, alone.
"""

from collections.abc import Sequence
from itertools import pairwise

from kvplan.sim.store.blocks.base import Context, Path
from kvplan.sim.store.blocks.below import Part
from kvplan.sim.store.blocks.chunks import Chunks, Coming, Lookup, Rise
from kvplan.sim.store.blocks.runs import Piece, Pieces, Run, depth
from kvplan.sim.store.blocks.windows import Groups, OfGroup, Span, merged


class InChunks:
    """A context in chunks, with those that it has of windows."""

    __slots__ = ("_path", "session", "windows")

    def __init__(self, path: Context, windows: Sequence[Span]) -> None:
        self._path, self.session, self.windows = path, path.session, windows

    def __len__(self) -> int:
        return len(self._path)

    def __getitem__(self, chunk: int, /) -> object:
        return self._path[chunk]


class _Slot:
    """A place in the order: the leading chunks of a context in a group with full attention, or consecutive ones of a window's."""

    def __init__(self, part: Part, pieces: Pieces, window: int) -> None:
        self.part, self.window = part, window
        """`window`: which; 0: full attention."""
        self.pieces = pieces
        """Those of it that are there; with `store` those that come."""

    def missing(self) -> list[Part]:
        """What is not there of it."""
        part, chunk, parts = self.part, self.part.start, []
        for piece in self.pieces:
            if chunk < piece.run.start:
                parts.append(Part(part.path, chunk, piece.run.start))
            chunk = piece.stop
        return [*parts, Part(part.path, chunk, part.stop)] if chunk < part.stop else parts


class GroupedChunks(Chunks):
    """Room for `usable` chunks, each of one group."""

    def __init__(self, groups: Groups, usable: int, threshold: int = 1) -> None:
        super().__init__(usable, threshold)
        self._full, self._windowed, self._states = groups.full, groups.windowed, groups.states

    def groups(self, path: Path) -> tuple[list[Path], list[Path]]:
        """A context in each group: with full attention, and with windows."""
        paths = [path, *(OfGroup(path, group) for group in range(1, self._full + self._windowed))]
        return paths[: self._full], paths[self._full :]

    def prefix(self, path: Path, most: int, coming: bool = False) -> int:
        """Up to which chunk full attention has a context, `most` at most; `coming`: those on their way count as there."""
        full, _ = self.groups(path)
        return min((self._runs.named(of, most) if coming else self._runs.reach(of, most))[0] for of in full)

    def within(self, path: Path, start: int, stop: int) -> list[tuple[Run, int, int]]:
        """Of one group's chunks of a window between two, those that have room, in runs."""
        return self._runs.within(path, start, stop)

    def room_beside(self, path: Path, stop: int) -> int:
        """Chunks for which there is room while those in use stay, and those that there are of so many leading ones of a context."""
        assert isinstance(path, InChunks)
        full, windows = self.groups(path)
        kept = sum([there - used for there, used in [self._runs.named(of, stop) for of in full]])
        for of in windows:
            for span in path.windows:
                kept += sum([end - begin for run, begin, end in self._runs.within(of, *span) if not run.users])
        return self._usable - self._runs.used - kept

    def hold(self, path: Path, chunks: int) -> Pieces:
        return self._in_order(self._slots(path, chunks))

    def renew(self, path: Context, full: int, now: float = 0.0) -> None:
        self.let_go(path, self._in_order(self._slots(path, full)), now)

    def store(self, path: Context, full: int, now: float = 0.0, start: int = 0) -> Coming | None:
        if self._offers.threshold > 1:
            path, full = self._offered(path, full, start)
        slots = self._slots(path, full)
        of_slots = [slot.missing() for slot in slots]
        missing = [part for parts in of_slots for part in parts]
        if not missing or not self._make_room(sum([part.chunks for part in missing])):
            self.dropped += bool(missing)
            self.let_go(path, self._in_order(slots), now)
            return None
        start, new = min([depth(slot.pieces) for slot in slots if not slot.window]), Pieces()
        for slot, parts in zip(slots, of_slots, strict=True):
            if slot.window:
                named = [self._runs.name_missing(part.path, part.start, part.stop, slot.window) for part in parts]
                slot.pieces = sorted(slot.pieces + named, key=_start)
            else:
                named = self._runs.name(slot.part.path, slot.pieces, slot.part.stop)
                slot.pieces += named
            new += named
        for piece in new:
            piece.run.ready = False
        beside = sum([part.chunks for slot, parts in zip(slots, of_slots, strict=True) if slot.window for part in parts])
        return Coming(path, start, full, self._in_order(slots), new, missing, beside)

    def _offered(self, path: Context, full: int, new: int) -> tuple[Context, int]:
        """Those that have been offered often enough, or are there: of windows and states each by itself."""
        assert isinstance(path, InChunks)
        _, (of, *_) = self.groups(path)
        chunks = [chunk for span in path.windows for chunk in range(*span)]
        enough = [chunk for chunk in chunks if self.within(of, chunk, chunk + 1) or self._offers.are_enough(of[chunk])]
        windows = merged((chunk, chunk + 1) for chunk in enough)
        return InChunks(path, windows), self._due(path, self.prefix(path, full, True), full, new)

    def _in_order(self, slots: Sequence[_Slot]) -> Pieces:
        """The last goes first."""
        whole, others = [slot.pieces for slot in slots if not slot.window], [slot for slot in slots if slot.window]
        if not self._states:
            return [piece for pieces in (*whole, *(slot.pieces for slot in others)) for piece in pieces]
        ordered = Pieces()
        for end in sorted({slot.part.stop for slot in others}):
            parted = [self._runs.parted(pieces, end) for pieces in whole]
            ordered += [piece for before, _ in parted for piece in before]
            ordered += [piece for slot in others if slot.part.stop == end for piece in slot.pieces]
            whole = [behind for _, behind in parted]
        return ordered + [piece for pieces in whole for piece in pieces]

    def _slots(self, path: Path, stop: int) -> list[_Slot]:
        """What a context has of its leading chunks, and takes; the first in the order of those that go is the last of it."""
        assert isinstance(path, InChunks)
        full, windows = self.groups(path)
        spans = [(chunk, chunk + 1) for span in path.windows for chunk in range(*span)] if self._states else path.windows
        slots = [_Slot(Part(of, 0, stop), self._runs.take(of, stop), 0) for of in full]
        for window, of in enumerate(windows, 1):
            slots += [_Slot(Part(of, *span), self._runs.take_within(of, *span), window) for span in spans]
        return slots


def _start(piece: Piece) -> int:
    return piece.run.start


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
        self._tiers, first = tiers, tiers[0]
        self._reach, self._context, self._hit, self._coming = reach, context, hit, coming
        self._full, self._windows = first.groups(context)
        self._stops = [0, first.prefix(context, most, coming)]
        waits = first.prefix(context, most, True) > self._stops[1]
        for tier in tiers[1:]:
            self._stops.append(self._stops[-1] if waits else max(self._stops[-1], tier.prefix(context, most)))

    def found(self) -> Lookup:
        """Of the longest prefix that all groups can go on from."""
        end = self._longest()
        start, stops = self._from(end), [min(stop, end) for stop in self._stops]
        beside = [Part(of, self._hit, end) for of in self._full[1:]] + [Part(of, start, end) for of in self._windows]
        return Lookup(InChunks(self._context, [(start, end)]), stops, self._rises(stops, start, end), beside)

    def _longest(self) -> int:
        end = self._stops[-1]
        while end > self._hit:
            there = end
            for of in self._windows:
                there = self._until(of, there)
            if there == end:
                return end
            end = there
        return self._hit

    def _from(self, end: int) -> int:
        """The first chunk of windows that a prefix takes."""
        return max(self._hit, end - self._reach)

    def _until(self, of: Path, end: int) -> int:
        """Where chunks begin that a window has not, of those that a prefix takes: none that takes one of them will do."""
        return next((start for source, start, _ in reversed(self._sources(of, self._from(end), end)) if source == len(self._tiers)), end)

    def _sources(self, of: Path, start: int, stop: int, above: int = 0) -> list[tuple[int, int, int]]:
        """Which tier has a window's chunks between two, by how many are above it, and which of them: as many as there are, where none has.
        Those `above` have none of these."""
        found, chunk = [], start
        for run, begin, end in self._tiers[above].within(of, start, stop) if above < len(self._tiers) else ():
            if not run.ready and above:
                continue
            if chunk < begin:
                found += self._sources(of, chunk, begin, above + 1)
            found.append((above if run.ready or self._coming else len(self._tiers), begin, end))
            chunk = end
        if chunk < stop:
            found += [(above, chunk, stop)] if above == len(self._tiers) else self._sources(of, chunk, stop, above + 1)
        return found

    def _rises(self, stops: Sequence[int], start: int, end: int) -> list[Rise]:
        """What comes up for a prefix: of each tier what those above it have not, and beside it what must stay."""
        if len(stops) == 2:
            return []
        rises, sources = [], [self._sources(of, start, end) for of in self._windows]
        places = [*sorted({begin for each in sources for _, begin, _ in each}), end]
        spans = [(span, [next(above for above, _, last in each if last > span[0]) for each in sources]) for span in pairwise(places)]
        for below, (first, stop) in enumerate(pairwise(stops[1:]), 1):
            chunks = len(self._full) * (stop - first)
            chunks += sum([(span[1] - span[0]) * sum([above > 0 for above in each]) for span, each in spans if max(each) == below])
            if chunks:
                there = merged([span for span, each in spans if max(each) <= below])
                rises.append(Rise(below + 1, InChunks(self._context, there), first, stop, chunks))
        return rises
