"""vLLM's pool of blocks for a model with layers that attend to a window: each group of layers has blocks of its own, all of one pool.

A lookup finds the longest prefix whose blocks the groups with full attention have all of, and those with a window the last, as far as the
window reaches; only these are used. What a new request needs again is named: all blocks of full attention, and of windows those before the
longest prefix that a lookup of the same prompt could find (its replay boundary), and those before the place up to which full attention had
its context when it began, where windows had less (a junction: others have that beginning, too); or all (`dense`).

Of its windows a request has one block more than a window reaches; until its prefill has ended also those that a step needs, which computes
many tokens at once. What a window has left is free: the last to go if it has a name, else the first. Both are kept in runs.

Left out: a block that several windows use counts for each, as if each had a copy that it is about to need; and a block that a window has
left goes when the next one is taken, or when the prefill has ended.
Source: vLLM 0.33, v1/core/single_type_kv_cache_manager.py, kv_cache_coordinator.py.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar

from kvplan.sim.store.blocks.base import Path
from kvplan.sim.store.blocks.pool import Use, Windows
from kvplan.sim.store.blocks.runs import Pieces, depth, runs_of
from kvplan.sim.store.blocks.vllm import VllmPool

Span = tuple[int, int]
"""Blocks from one up to another."""


def merged(spans: Iterable[Span]) -> list[Span]:
    """As few as they can be, in order; those without a block are left out."""
    found: list[Span] = []
    for start, stop in sorted(spans):
        if found and start <= found[-1][1]:
            found[-1] = found[-1][0], max(stop, found[-1][1])
        elif start < stop:
            found.append((start, stop))
    return found


@dataclass(frozen=True)
class Groups:
    """Of layers with as many layers each."""

    full: int
    """Those that attend to everything."""
    windowed: int
    window_tokens: int
    dense: bool = False
    """Whether every block of a window is named."""
    junctions: bool = True
    """Whether those before a junction are: vLLM's scheduler says where one is."""
    states: bool = False
    """Whether those with a window keep a state instead, of which a lookup needs that of the token before (`states.py`)."""

    def reach(self, block_tokens: int) -> int:
        """Blocks before a token that its window reaches into."""
        return -(-(self.window_tokens - 1) // block_tokens)


class OfGroup:
    """A context in the blocks of a group other than the first."""

    __slots__ = ("_group", "_path")

    def __init__(self, path: Path, group: int) -> None:
        self._path, self._group = path, group

    def __len__(self) -> int:
        return len(self._path)

    def __getitem__(self, block: int, /) -> tuple[int, object]:
        return self._group, self._path[block]


class Named:
    """Consecutive blocks of each window with names that a request uses."""

    def __init__(self, start: int, stop: int, groups: list[Pieces]) -> None:
        self.start, self.stop, self.groups = start, stop, groups


class WindowsUse(Use):
    """What one request has of the groups."""

    def __init__(
        self, path: Path, tokens: int, hit: int, paths: Sequence[Path], full: Sequence[Pieces], reach: int, ends: Sequence[int], ahead: int
    ) -> None:
        super().__init__(path, hit, full[0])
        self.tokens = tokens
        """When its prefill has ended."""
        self.paths, self.full = paths, full
        """Its context in each group, those of full attention first; and those with names of these, of which the first's are `pieces`."""
        self.reach, self.ends = reach, ends
        """Blocks of each window that a hit uses at most; before which blocks of windows are named."""
        self.ahead = ahead
        """Blocks of each window beyond those that it has when its prefill has ended."""
        self.named: list[Named] = []
        """The first first."""
        self.loaded = 0
        """Blocks up to which it has loaded its context; 0 where it has loaded none."""
        self.ended = False

    @property
    def since(self) -> int:
        """From which block on it has had windows."""
        return max(0, max(self.hit, self.loaded) - self.reach)

    @property
    def found(self) -> int:
        return len(self.full) * self.hit + (len(self.paths) - len(self.full)) * min(self.hit, self.reach)

    @property
    def contexts(self) -> Sequence[Path]:
        return self.paths[: len(self.full)]

    def below(self, blocks: int) -> list[tuple[int, int]]:
        since = self.since
        spans = [(since // blocks, -(-self.loaded // blocks))]
        for end in self.ends:
            stop = end // blocks
            first = max(0, stop * blocks - self.reach)
            spans.append((first // blocks if first >= since else -(-since // blocks), stop))
        return merged(spans)

    @property
    def windows(self) -> Windows:
        blocks = [block for each in self.named for block in range(each.start, each.stop)]
        return dict.fromkeys(self.paths[len(self.full) :], blocks)


class WindowsPool(VllmPool):
    """`usable` blocks, each of one group."""

    LESSENS: ClassVar[bool] = True
    USE: ClassVar[type[WindowsUse]] = WindowsUse

    def __init__(
        self, groups: Groups, usable: int, block_tokens: int, most_kept: int | None = None, step_tokens: int | None = None
    ) -> None:
        super().__init__(usable, block_tokens, most_kept)
        self._full, self._windowed = groups.full, groups.windowed
        self._dense, self._junctions = groups.dense, groups.junctions
        self._reach = groups.reach(block_tokens)
        self._has = self._reach + 1
        """Blocks of a window that a request has, when it decodes."""
        self._in_step = None if step_tokens is None else self.blocks(groups.window_tokens - 1 + step_tokens) + 1
        """Blocks of a window that a step needs at most; None: any."""

    # --- how many -------------------------------------------------------------------------------------------------------------

    def needed(self, tokens: int) -> int:
        blocks = self.blocks(tokens)
        return self._full * blocks + self._windowed * min(blocks, self._has)

    def alone(self, tokens: int, context: int) -> int:
        return self.needed(context) + self._windowed * self._ahead(tokens, 0, 1)

    def taken(self, path: Path, tokens: int, context: int) -> int:
        paths = self._paths(path)
        hit, there = self._hit(paths, tokens)
        return self.needed(context) + self._windowed * self._ahead(tokens, hit, there) - self._used(paths, hit)

    def least(self, path: Path, tokens: int, context: int) -> int:
        """See `Pool`. Of a block that goes a copy may be in use."""
        paths = self._paths(path)
        hit, there = self._hit(paths, tokens)
        return self.needed(context) + self._windowed * self._least_ahead(tokens, hit, there) - self._full * hit

    def _least_ahead(self, tokens: int, hit: int, there: int) -> int:
        """The same as `_ahead` at least, where less is there."""
        return self._ahead(tokens, hit, there)

    def _ahead(self, tokens: int, hit: int, there: int) -> int:
        """Blocks of each window beyond those that a request has when so many tokens are there, until they are: of a prompt of which it
        computes what is behind a hit. `there`: blocks that full attention has of it."""
        blocks = self.blocks(tokens)
        most = blocks - max(0, hit - self._reach)
        return (most if self._in_step is None else min(most, self._in_step)) - min(blocks, self._has)

    def counted(self, uses: Iterable[tuple[Use, int]]) -> tuple[int, int]:
        kept, used = self._runs.counted()
        windows, others = dict[int, int](), 0
        for use, tokens in uses:
            assert isinstance(use, WindowsUse)
            pieces = [piece for each in use.named for group in each.groups for piece in group]
            windows.update({id(run): run.blocks for run in runs_of(pieces)})
            others += self.needed(tokens) + self._windowed * use.ahead - sum(map(depth, use.full))
        return used - sum(windows.values()) + others, kept + self._unnamed

    # --- what is there --------------------------------------------------------------------------------------------------------

    def reach(self, path: Path, tokens: int) -> tuple[int, int]:
        paths = self._paths(path)
        hit, _ = self._hit(paths, tokens)
        return hit, self._used(paths, hit)

    def _used(self, paths: Sequence[Path], hit: int) -> int:
        """Of a hit's blocks of full attention, those in use."""
        return sum(self._runs.reach(of, hit)[1] for of in paths[: self._full])

    def _paths(self, path: Path) -> list[Path]:
        return [path, *(OfGroup(path, group) for group in range(1, self._full + self._windowed))]

    def _hit(self, paths: Sequence[Path], tokens: int) -> tuple[int, int]:
        """Blocks of the longest prefix of a prompt that all groups can go on from, and those that full attention has."""
        full = min(self._runs.reach(of, self._most(tokens))[0] for of in paths[: self._full])
        hit, shorter = full, self._until(paths, full)
        while shorter < hit:
            hit, shorter = shorter, self._until(paths, shorter)
        return hit, full

    def _until(self, paths: Sequence[Path], hit: int) -> int:
        """Where blocks begin that windows have not, of those that a hit takes: none that takes one of them will do."""
        for of in paths[self._full :]:
            hit = self._runs.until(of, max(0, hit - self._reach), hit)
        return hit

    # --- a request among others -----------------------------------------------------------------------------------------------

    def request(self, path: Path, tokens: int) -> int:
        return 0 if self.taken(path, tokens, tokens) > self._usable else super().request(path, tokens)

    def begin(self, path: Path, tokens: int, prompt: int | None = None) -> WindowsUse:
        paths = self._paths(path)
        hit, there = self._hit(paths, tokens)
        ends = [self._replayed(tokens, tokens if prompt is None else prompt), *([there] if self._junctions and there > hit else [])]
        full = [self._runs.take(of, hit) for of in paths[: self._full]]
        use = self.USE(path, tokens, hit, paths, full, self._reach, ends, self._ahead(tokens, hit, there))
        kept, start = self._runs.blocks, max(0, hit - self._reach)
        if start < hit:
            use.named.append(Named(start, hit, [self._runs.take_within(of, start, hit) for of in paths[self._full :]]))
        self._take(self.needed(tokens) + self._windowed * use.ahead - self._full * hit - (kept - self._runs.blocks))
        return use

    def _replayed(self, tokens: int, prompt: int) -> int:
        """Before which block windows are named for a lookup of the same prompt, when so many tokens are prefilled; 0: none are."""
        return self._most(prompt)

    def computed(self, use: Use, tokens: int) -> int:
        assert isinstance(use, WindowsUse)
        start, stop = depth(use.pieces), tokens // self._block_tokens
        for of, pieces in zip(use.paths, use.full, strict=False):
            pieces += self._runs.name(of, pieces, stop)
        kept, windows = self._kept(use, start, stop), use.paths[self._full :]
        for first, last in kept:
            groups = [self._runs.name_within(of, first, last, window) for window, of in enumerate(windows, 1)]
            use.named.append(Named(first, last, groups))
        return self._full * max(0, stop - start) + self._windowed * sum([last - first for first, last in kept])

    def loads(self, use: Use, tokens: int) -> None:
        assert isinstance(use, WindowsUse)
        use.loaded = tokens // self._block_tokens

    def _kept(self, use: WindowsUse, start: int, stop: int) -> list[Span]:
        """Which of these blocks of windows are named."""
        start = max(start, use.since)
        return merged([(start, stop)] if self._dense else [(max(start, end - self._reach), min(stop, end)) for end in use.ends])

    def decodes(self, use: Use, tokens: int, now: float) -> int | None:
        assert isinstance(use, WindowsUse)
        self._unnamed += self._windowed * use.ahead
        use.ahead = 0
        return self.goes_on(use, tokens, now)

    def goes_on(self, use: Use, tokens: int, now: float) -> int | None:
        assert isinstance(use, WindowsUse)
        left = self._before(use, self.blocks(tokens) - self._has)
        if left:
            self._unnamed += self._blocks(left) - self._leaves(left, now)
            self._take(self._blocks(left))
            self._forget(self._runs.blocks - self._most_kept)
        return (use.named[0].start + self._has) * self._block_tokens + 1 if use.named else None

    def _before(self, use: WindowsUse, place: int) -> list[Named]:
        """Cuts off what a request's windows have named before a place."""
        left = [self._cut(each, min(place, each.stop)) for each in use.named if each.start < place]
        use.named = [each for each in use.named if each.start < each.stop]
        return left

    def _cut(self, named: Named, place: int) -> Named:
        start, parts = named.start, [self._runs.parted(pieces, place) for pieces in named.groups]
        named.start, named.groups = place, [behind for _, behind in parts]
        return Named(start, place, [before for before, _ in parts])

    def _blocks(self, named: Sequence[Named]) -> int:
        return self._windowed * sum([each.stop - each.start for each in named])

    def end(self, use: Use, tokens: int, now: float = 0.0) -> None:
        assert isinstance(use, WindowsUse)
        held = self.needed(tokens) + self._windowed * use.ahead - sum(map(depth, use.full))
        for pieces in use.full:
            self._runs.give_back(pieces, now)
        self._unnamed += held - self._leaves(use.named, now)
        use.named = []
        use.ended = True
        self._forget(-self._unnamed)  # where more have names than it had at once
        self._forget(self._runs.blocks - self._most_kept)

    def _leaves(self, named: Sequence[Named], now: float) -> int:
        """Windows have left these, one group's after the other's, the last first; returns how many nobody uses any more."""
        kept = self._runs.blocks
        for group in range(self._windowed):
            self._runs.give_back([piece for each in named for piece in each.groups[group]], now)
        return self._runs.blocks - kept
