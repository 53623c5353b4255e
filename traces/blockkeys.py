"""What the blocks of a context are called, one number each, worked out when asked for: parts of hashed blocks, blocks by who wrote them,
and those of a prompt with its answer. `kvplan.traces.blockpaths` says which context has which.
"""

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol


class Keys(Protocol):
    """Of a context's blocks."""

    def __len__(self) -> int: ...

    def __getitem__(self, block: int, /) -> int: ...


class TurnKeys(Keys, Protocol):
    """Of a turn's context."""

    @property
    def session(self) -> int:
        """The turn's, as the workload numbers it."""


class _Known:
    """Keys that can also be gone through one by one."""

    __slots__ = ()

    def __len__(self) -> int:
        raise NotImplementedError

    def __getitem__(self, block: int, /) -> int:
        raise NotImplementedError

    def __iter__(self) -> Iterator[int]:
        return iter([self[block] for block in range(len(self))])


class Asked(_Known):
    """Blocks of which it is known who asks for them."""

    __slots__ = ("_keys", "session")

    def __init__(self, keys: Keys, session: int) -> None:
        self._keys, self.session = keys, session

    def __len__(self) -> int:
        return len(self._keys)

    def __getitem__(self, block: int, /) -> int:
        return self._keys[block]


class Parts(_Known):
    """Blocks that are equal parts of others: what comes before a part is what comes before the whole, and the parts ahead of it."""

    __slots__ = ("_parts", "_whole")

    def __init__(self, whole: Sequence[int], parts: int) -> None:
        self._whole, self._parts = whole, parts

    def __len__(self) -> int:
        return len(self._whole) * self._parts

    def __getitem__(self, block: int, /) -> int:
        return self._whole[block // self._parts] * self._parts + block % self._parts


def _behind(ends: list[int], token: int) -> int:
    """The first part that ends behind a token: `bisect_right`, which costs several times as much where this is compiled."""
    low, high = 0, len(ends)
    while low < high:
        middle = (low + high) >> 1
        if token < ends[middle]:
            high = middle
        else:
            low = middle + 1
    return low


class Written(_Known):
    """Blocks of a session's context, by who wrote their last token."""

    __slots__ = ("_last", "block_tokens", "blocks", "ends", "session", "writers")

    def __init__(self, session: int, ends: list[int], writers: list[int], blocks: int, block_tokens: int) -> None:
        self.session = session
        self.ends = ends
        """Tokens of the context up to the end of each part of it."""
        self.writers = writers
        """Of each part: a row of the workload, or a number below 0 for what sessions begin with."""
        self.blocks, self.block_tokens = blocks, block_tokens
        self._last = len(ends) - 1
        """The part that its last block ends in, or a later one."""

    def __len__(self) -> int:
        return self.blocks

    def __getitem__(self, block: int, /) -> int:
        if block >= self.blocks:
            raise IndexError(block)
        token = (block + 1) * self.block_tokens - 1
        ends, last = self.ends, self._last
        part = 0 if token < ends[0] else last if token >= ends[last - 1] else _behind(ends, token)
        return ~(self.writers[part] << 32 | block)

    def up_to(self, blocks: int) -> "Written":
        """The same context with so many blocks."""
        return Written(self.session, self.ends, self.writers, blocks, self.block_tokens)


def grown(
    turns: Iterable[tuple[int, bool, bool, int, int, int]], begun: Iterator[Sequence[tuple[int, int]]], block_tokens: int
) -> list[Written]:
    """Of each of `turns` (session, whether it is its first, whether its oldest history was cut, tokens of history, prompt and answer), in
    the workload's order, the context with the answer. `begun`: what each session begins with, as (number, end) of its parts.

    Turns that keep all of the history share its list; an edit begins another; where the oldest was cut, the turn has written all of it
    anew."""
    found: list[Written] = []
    ends: list[int] = []
    writers: list[int] = []
    context = 0
    for turn, (session, is_first, is_cut, history, prompt, output) in enumerate(turns):
        if is_first:
            parts = next(begun, [])
            ends, writers = [end for _, end in parts], [-1 - number for number, _ in parts]
        elif is_cut:
            ends, writers = [], []
        elif context > history:
            kept = bisect_left(ends, history)
            ends, writers = [*ends[:kept], *[history] * (history > 0)], writers[: kept + (history > 0)]
        context = history + prompt + output
        if not ends or context > ends[-1]:
            ends.append(context)
            writers.append(turn)
        found.append(Written(session, ends, writers, context // block_tokens, block_tokens))
    return found


class Answered(_Known):
    """A context of which the first blocks are known by their hashes, and the others by who wrote them."""

    __slots__ = ("_hashed", "_known", "_written", "session")

    def __init__(self, hashed: Keys, known: int, written: TurnKeys) -> None:
        self._hashed, self._known, self._written = hashed, known, written
        self.session = written.session

    def __len__(self) -> int:
        return len(self._written)

    def __getitem__(self, block: int, /) -> int:
        return self._hashed[block] if block < self._known else self._written[block]
