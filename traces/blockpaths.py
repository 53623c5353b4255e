"""The contexts of requests in blocks, for caches of blocks: for each block a key that two contexts share exactly where they are the same up
to and with it.

Keys are numbers of prefixes where the source has block hashes. Without them only what is shared by construction is known: a session's turns
go on from one another, and sessions may have beginnings in common (`kvplan.traces.beginnings`); then who wrote a block's last token, a turn
or a common part, and the block's place, say all that came before it. Blocks of another size than that of the hashes are parts of theirs, or
several together.
Keys are worked out when asked for, so a context costs as many as a cache looks at.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol

import numpy as np

from kvplan.traces.prefixes import prefixes
from kvplan.traces.reuse import in_order
from kvplan.traces.workload import Blocks, TraceError, Workload

_NOTHING = (
    "no prompt is known to share anything with another: the workload has neither block hashes, nor sessions of several turns, nor"
    " sessions that begin alike; a cache of blocks needs one of them (hash_ids of requests, a session_id, chats, or workload.applications)"
)


class Keys(Protocol):
    """Of a context's blocks."""

    def __len__(self) -> int: ...

    def __getitem__(self, block: int, /) -> int: ...


@dataclass(frozen=True)
class BlockContexts:
    """The requests of a workload in order of their starts."""

    block_tokens: int
    tokens: Sequence[int]
    """Of each prompt, with its history."""
    paths: Sequence[Keys]
    """A key for each full block of it; where the source hashes the rest too, one for that."""
    hashed: bool
    """Whether the keys are of block hashes."""


def block_contexts(workload: Workload, block_tokens: int) -> BlockContexts:
    """The contexts of a workload with times, whole, in blocks of so many tokens. Raises TraceError when nobody knows what they share."""
    order = in_order(workload)
    tokens = (workload.history_tokens + workload.prompt_tokens)[order]
    if workload.blocks is None:
        if not known(workload):
            raise TraceError(_NOTHING)
        paths = written(workload, block_tokens)
        return BlockContexts(block_tokens, tokens.tolist(), [paths[turn] for turn in order.tolist()], False)
    return BlockContexts(block_tokens, tokens.tolist(), _hashed(workload.blocks, tokens, order, block_tokens), True)


def known(workload: Workload) -> bool:
    """Whether anybody knows what its requests share."""
    begun = workload.beginnings is not None and len(workload.beginnings.key) > 0
    return begun or workload.blocks is not None or workload.turns > workload.sessions


def _hashed(blocks: Blocks, tokens: np.ndarray, order: np.ndarray, block_tokens: int) -> Sequence[Keys]:
    """Of block hashes, those of an unfull last block too."""
    counts = np.minimum(np.diff(blocks.first)[order], -(-tokens // blocks.block_tokens))
    tree = prefixes(blocks.ids, blocks.first[:-1][order], counts)
    keys, bounds = tree.node.data, tree.first.tolist()
    whole = [keys[start:stop] for start, stop in pairwise(bounds)]
    if blocks.block_tokens == block_tokens:
        return whole
    if blocks.block_tokens % block_tokens == 0:
        return [_Parts(path, blocks.block_tokens // block_tokens) for path in whole]
    if block_tokens % blocks.block_tokens == 0:
        return [path[block_tokens // blocks.block_tokens - 1 :: block_tokens // blocks.block_tokens] for path in whole]
    raise TraceError(
        f"the trace's hashes are of blocks of {blocks.block_tokens:,} tokens: blocks of {block_tokens:,} are no part of them, and none is a"
        f" multiple of the other; take {blocks.block_tokens:,}"
    )


@dataclass(frozen=True, slots=True)
class _Parts:
    """Blocks that are equal parts of others: what comes before a part is what comes before the whole, and the parts ahead of it."""

    whole: Sequence[int]
    parts: int

    def __len__(self) -> int:
        return len(self.whole) * self.parts

    def __getitem__(self, block: int) -> int:
        return self.whole[block // self.parts] * self.parts + block % self.parts


@dataclass(frozen=True, slots=True)
class Written:
    """Blocks of a session's context, by who wrote their last token."""

    ends: Sequence[int]
    """Tokens of the context up to the end of each part of it."""
    writers: Sequence[int]
    """Of each part: a row of the workload, or a number below 0 for what sessions begin with."""
    blocks: int
    block_tokens: int

    def __len__(self) -> int:
        return self.blocks

    def __getitem__(self, block: int) -> int:
        if block >= self.blocks:
            raise IndexError(block)
        return self.writers[bisect_right(self.ends, (block + 1) * self.block_tokens - 1)] << 32 | block


def written(workload: Workload, block_tokens: int) -> list[Written]:
    """Per turn. Turns that keep all of the history share its list; an edit begins another."""
    found: list[Written] = []
    ends: list[int] = []
    writers: list[int] = []
    begun = iter([] if workload.beginnings is None else workload.beginnings.numbered().parts())
    columns, context = (workload.is_first, workload.history_tokens, workload.prompt_tokens, workload.output_tokens), 0
    for turn, (first, history, prompt, output) in enumerate(zip(*(column.tolist() for column in columns), strict=True)):
        if first:
            parts = next(begun, [])
            ends, writers = [end for _, end in parts], [-1 - number for number, _ in parts]
        elif context > history:
            kept = bisect_left(ends, history)
            ends, writers = [*ends[:kept], *[history] * (history > 0)], writers[: kept + (history > 0)]
        context = history + prompt + output
        if not ends or context > ends[-1]:
            ends.append(context)
            writers.append(turn)
        found.append(Written(ends, writers, (history + prompt) // block_tokens, block_tokens))
    return found
