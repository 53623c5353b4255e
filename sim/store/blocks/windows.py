"""vLLM's pool of blocks for a model with layers that attend to a window: each group of layers has blocks of its own, all of one pool.

A lookup finds the longest prefix whose blocks the groups with full attention have all of, and those with a window the last, as far as the
window reaches; only these are used. What a new request needs again is named: all blocks of full attention, and of windows those before the
longest prefix that a lookup of the same prompt could find (its replay boundary), and those before the place up to which full attention had
its context when it began, where windows had less (a junction: others have that beginning, too); or all (`dense`).

Of its windows a request has one block more than a window reaches; until its prefill has ended also those that a step needs, which computes
many tokens at once. What a window has left is free: the last to go if it has a name, else the first. Full attention is kept in runs;
windows cost by the block, as many as they reach in each group.

Left out: a block that several windows use counts for each, as if each had a copy that it is about to need; and a block that a window has
left goes when the next one is taken, or when the prefill has ended.
Source: vLLM 0.33, v1/core/single_type_kv_cache_manager.py, kv_cache_coordinator.py.
"""

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from kvplan.sim.store.blocks.base import Path
from kvplan.sim.store.blocks.pool import Use, Windows
from kvplan.sim.store.blocks.runs import Piece, Pieces, depth
from kvplan.sim.store.blocks.vllm import VllmPool


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
        self.named: deque[tuple[int, list[Piece]]] = deque()
        """Blocks of windows with names that it uses, in each group; the first first."""
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

    def below(self, blocks: int) -> list[int]:
        chunks = set(range(self.since // blocks, -(-self.loaded // blocks)))
        for end in self.ends:
            stop = end // blocks
            first = max(0, stop * blocks - self.reach)
            chunks.update(chunk for chunk in range(first // blocks, stop) if max(first, chunk * blocks) >= self.since)
        return sorted(chunks)

    @property
    def windows(self) -> Windows:
        return {path: [block for block, _ in self.named] for path in self.paths[len(self.full) :]}


class WindowsPool(VllmPool):
    """`usable` blocks, each of one group."""

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

    def _ahead(self, tokens: int, hit: int, there: int) -> int:
        """Blocks of each window beyond those that a request has when so many tokens are there, until they are: of a prompt of which it
        computes what is behind a hit. `there`: blocks that full attention has of it."""
        blocks = self.blocks(tokens)
        most = blocks - max(0, hit - self._reach)
        return (most if self._in_step is None else min(most, self._in_step)) - min(blocks, self._has)

    def counted(self, uses: Iterable[tuple[Use, int]]) -> tuple[int, int]:
        kept, used = self._runs.counted()
        windows, others = set[int](), 0
        for use, tokens in uses:
            assert isinstance(use, WindowsUse)
            windows.update(id(piece.run) for _, pieces in use.named for piece in pieces)
            others += self.needed(tokens) + self._windowed * use.ahead - sum(map(depth, use.full))
        return used - len(windows) + others, kept + self._unnamed

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
        hit, missing = full, self._missing(paths, full)
        while missing is not None:
            hit, missing = missing, self._missing(paths, missing)
        return hit, full

    def _missing(self, paths: Sequence[Path], hit: int) -> int | None:
        """A block that windows have not, of those that a hit takes: none that takes it will do."""
        start = max(0, hit - self._reach)
        for block in (start, *range(hit - 1, start, -1)) if hit else ():
            if not all(self._runs.has(of[block]) for of in paths[self._full :]):
                return block
        return None

    # --- a request among others -----------------------------------------------------------------------------------------------

    def request(self, path: Path, tokens: int) -> int:
        return 0 if self.taken(path, tokens, tokens) > self._usable else super().request(path, tokens)

    def begin(self, path: Path, tokens: int, prompt: int | None = None) -> WindowsUse:
        paths = self._paths(path)
        hit, there = self._hit(paths, tokens)
        ends = [self._replayed(tokens, tokens if prompt is None else prompt), *([there] if self._junctions and there > hit else [])]
        full = [self._runs.take(of, hit) for of in paths[: self._full]]
        use = WindowsUse(path, tokens, hit, paths, full, self._reach, ends, self._ahead(tokens, hit, there))
        kept = self._runs.blocks
        for block in range(max(0, hit - self._reach), hit):
            use.named.append((block, [self._runs.take(of, block + 1, block)[0] for of in paths[self._full :]]))
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
        kept = self._kept(use, start, stop)
        for block in kept:
            use.named.append((block, [self._runs.name_alone(of, block) for of in use.paths[self._full :]]))
        return self._full * max(0, stop - start) + self._windowed * len(kept)

    def loads(self, use: Use, tokens: int) -> None:
        assert isinstance(use, WindowsUse)
        use.loaded = tokens // self._block_tokens

    def _kept(self, use: WindowsUse, start: int, stop: int) -> Sequence[int]:
        """Which of these blocks of windows are named."""
        start = max(start, use.since)
        if self._dense:
            return range(start, stop)
        return sorted({block for end in use.ends for block in range(max(start, end - self._reach), min(stop, end))})

    def decodes(self, use: Use, tokens: int, now: float) -> int | None:
        assert isinstance(use, WindowsUse)
        self._unnamed += self._windowed * use.ahead
        use.ahead = 0
        return self.goes_on(use, tokens, now)

    def goes_on(self, use: Use, tokens: int, now: float) -> int | None:
        assert isinstance(use, WindowsUse)
        named, first, left = use.named, self.blocks(tokens) - self._has, []
        while named and named[0][0] < first:
            left.append(named.popleft()[1])
        if left:
            self._unnamed += self._windowed * len(left) - self._leaves(left, now)
            self._take(self._windowed * len(left))
            self._forget(self._runs.blocks - self._most_kept)
        return (named[0][0] + self._has) * self._block_tokens + 1 if named else None

    def end(self, use: Use, tokens: int, now: float = 0.0) -> None:
        assert isinstance(use, WindowsUse)
        held = self.needed(tokens) + self._windowed * use.ahead - sum(map(depth, use.full))
        for pieces in use.full:
            self._runs.give_back(pieces, now)
        self._unnamed += held - self._leaves([pieces for _, pieces in use.named], now)
        use.named.clear()
        use.ended = True
        self._forget(-self._unnamed)  # where more have names than it had at once
        self._forget(self._runs.blocks - self._most_kept)

    def _leaves(self, blocks: Sequence[Sequence[Piece]], now: float) -> int:
        """Windows have left these, one group's after the other's, the last first; returns how many nobody uses any more."""
        kept = self._runs.blocks
        for group in range(self._windowed):
            for pieces in reversed(blocks):
                self._runs.give_back([pieces[group]], now)
        return self._runs.blocks - kept
