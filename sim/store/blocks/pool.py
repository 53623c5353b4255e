"""HBM's blocks as one pool, which requests use and in which prefixes stay when these have ended. Which go first, and what becomes of those
that are computed twice, is the engine's: `kvplan.sim.store.blocks.vllm`, `kvplan.sim.store.blocks.sglang`.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import ClassVar

from kvplan.sim.store.blocks.base import Path
from kvplan.sim.store.blocks.runs import OfRuns, Pieces, Run, depth


class Use:
    """What one request has of a pool."""

    def __init__(self, path: Path, hit: int, pieces: Pieces) -> None:
        self.path, self.hit, self.pieces = path, hit, pieces
        """`hit`: blocks that were there; `pieces`: those with names."""

    @property
    def found(self) -> int:
        """Blocks that were there, of all layers."""
        return self.hit

    @property
    def contexts(self) -> Sequence[Path]:
        """For guards: by the names of which blocks its context is there from the start."""
        return [self.path]

    @property
    def windows(self) -> "Windows":
        """For guards."""
        return {}

    def below(self, blocks: int) -> list[tuple[int, int]]:
        """Chunks of so many blocks that tiers below are to have of its windows, from one up to another."""
        return []


Windows = Mapping[Path, Sequence[int]]
"""Of layers with windows, by the names that blocks of a context have: those with names that somebody uses."""


class Pool(OfRuns):
    """`usable` blocks, of which `most_kept` may be kept when nobody uses them; None: all. `together`: tokens of a request that one step
    computes at most; None: any."""

    JOINS: ClassVar[bool] = True
    """Whether runs of blocks are one where one request used them together last."""
    LESSENS: ClassVar[bool] = False
    """Whether a request may take fewer blocks when some have lost their names."""

    def __init__(self, usable: int, block_tokens: int, most_kept: int | None = None, together: int | None = None) -> None:
        super().__init__(usable, block_tokens, self.JOINS)
        self._unnamed = usable
        """Free blocks without a name."""
        self._most_kept = usable if most_kept is None else most_kept
        """Free blocks that may have one."""
        self._together = None if together is None else max(1, together // block_tokens)
        """Blocks that one step computes of a request at most."""

    @property
    def free(self) -> int:
        """Blocks that nobody uses."""
        return self._unnamed + self._runs.blocks

    @property
    def empty(self) -> int:
        """Of these, those without a name."""
        return self._unnamed

    @property
    def in_use(self) -> int:
        """Those that somebody does."""
        return self._usable - self.free

    @property
    def filled(self) -> int:
        """Blocks that are in use or have a name."""
        return self._usable - self._unnamed

    def fits(self, tokens: int) -> bool:
        """Whether a prompt can be served."""
        return self.alone(tokens, tokens) <= self._usable

    def request(self, path: Path, tokens: int) -> int:
        """See `BlockCache`."""
        if not self.fits(tokens):
            return 0
        use = self.begin(path, tokens)
        self.computed(use, tokens)
        self.end(use, tokens)
        return use.hit * self._block_tokens

    # --- a request among others -----------------------------------------------------------------------------------------------

    def reach(self, path: Path, tokens: int) -> tuple[int, int]:
        """Blocks that a prompt of so many tokens would hit, and how many of these are in use."""
        hit, used, _ = self._runs.reach(path, self._most(tokens))
        return hit, used

    def alone(self, tokens: int, context: int) -> int:
        """Blocks that a request takes which finds nothing: a prompt of so many tokens, of `context` at its end."""
        return self.needed(context)

    def taken(self, path: Path, tokens: int, context: int) -> int:
        """Free blocks that a request takes, of `context` tokens at its end."""
        return self.needed(context) - self.reach(path, tokens)[1]

    def least(self, path: Path, tokens: int, context: int) -> int:
        """The same at least, whatever loses its name meanwhile while others decode."""
        return self.taken(path, tokens, context)

    def begin(self, path: Path, tokens: int, prompt: int | None = None) -> Use:
        """A request that has what it takes begins, with so many tokens: its prompt, and where `prompt` is less, some of its answer."""
        pieces = self._runs.take(path, self._most(tokens))
        use = Use(path, depth(pieces), pieces)
        self._take(self.needed(tokens) - use.hit)
        return use

    def grow(self, blocks: int) -> None:
        """Requests that decode take so many free blocks more."""
        self._take(blocks)

    def _take(self, blocks: int) -> None:
        """So many free blocks are in use, those without a name first."""
        self._forget(blocks - self._unnamed)
        self._unnamed -= blocks

    def computed(self, use: Use, tokens: int) -> int:
        """So many tokens of a request are there now. Returns the blocks that have names since."""
        raise NotImplementedError

    def loads(self, use: Use, tokens: int) -> None:
        """A request that has begun loads its context up to so many tokens."""

    def decodes(self, use: Use, tokens: int, now: float) -> int | None:
        """A request's prefill has ended, not its answer, and it has blocks for so many tokens. Returns with how many its windows will have
        left more of them; None: with none."""
        return None

    def goes_on(self, use: Use, tokens: int, now: float) -> int | None:
        """The same of one that has blocks for so many tokens by now."""
        return None

    def decoded(self, use: Use, tokens: int, context: int, now: float) -> None:
        """A request gets from its prompt of so many tokens to the end of its answer at once, and takes what it needs for that."""
        until = self.decodes(use, tokens + 1, now) if context > tokens + 1 else None
        while until is not None and until <= context:
            until = self.goes_on(use, until, now)
        self.grow(self.needed(context) - self.needed(tokens))

    def end(self, use: Use, tokens: int, now: float = 0.0) -> None:
        """A request has ended, or given way, of which so many tokens have blocks."""
        self._unnamed += self.needed(tokens) - depth(use.pieces)
        self._runs.give_back(use.pieces, now)
        self._forget(self._runs.blocks - self._most_kept)

    def expire(self, ttl_s: float, now: float) -> list[Run]:
        """Free blocks that nobody has used for longer lose their names; returns them."""
        gone = self._runs.expire(ttl_s, now)
        self._unnamed += sum(run.blocks for run in gone)
        return gone

    def counted(self, uses: Iterable[tuple[Use, int]]) -> tuple[int, int]:
        """For guards: blocks in use by these, of so many tokens each, and free ones, run by run."""
        kept, used = self._runs.counted()
        return used + sum(self.needed(tokens) - depth(use.pieces) for use, tokens in uses), kept + self._unnamed

    def _most(self, tokens: int) -> int:
        return (tokens - 1) // self._block_tokens

    def needed(self, tokens: int) -> int:
        """Blocks that a request with so many tokens has when its prefill has ended."""
        return self.blocks(tokens)

    def blocks(self, tokens: int) -> int:
        """Of so many tokens."""
        return -(-tokens // self._block_tokens)

    def _forget(self, blocks: int) -> None:
        """So many free blocks lose their names, if it is more than none; it may be more of them."""
        raise NotImplementedError
