"""The contexts of requests in blocks, for caches of blocks: for each block a key that two contexts share exactly where they are the same up
to and with it.

Keys are numbers of prefixes where the source has block hashes. Without them only what is shared by construction is known: a session's turns
go on from one another, and sessions may have beginnings in common (`kvplan.traces.beginnings`); then who wrote a block's last token, a turn
or a common part, and the block's place, say all that came before it. Blocks of another size than that of the hashes are parts of theirs, or
several together.
Keys are worked out when asked for, so a context costs as many as a cache looks at.

What an answer's hashes are only the session's next prompt says, as far as it goes on from that; where it does not, they are nobody else's.
A context whose oldest tokens were cut has other positions, and shares nothing with what was there before.
"""

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from kvplan.traces.blockkeys import Answered, Keys, Parts, TurnKeys, Written
from kvplan.traces.context import contexts
from kvplan.traces.prefixes import prefixes
from kvplan.traces.reuse import in_order
from kvplan.traces.workload import Blocks, TraceError, Workload

_NOTHING = (
    "no prompt is known to share anything with another: the workload has neither block hashes, nor sessions of several turns, nor"
    " sessions that begin alike; a cache of blocks needs one of them (hash_ids of requests, a session_id, chats, or workload.applications)"
)


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


def turn_paths(workload: Workload, block_tokens: int, window: int, ratio: float) -> Sequence[TurnKeys]:
    """Per turn, in the workload's order: keys of the full blocks of its context after the answer, where contexts are cut to the window
    (`kvplan.traces.context`). Raises TraceError when blocks are no parts of those that are hashed."""
    columns = contexts(workload, window, ratio)
    cut = _cut(workload, *columns)
    grown = _grown(workload, columns, cut, block_tokens)
    if workload.blocks is None:
        return grown
    history, prompt, _ = columns
    hashed = _hashed(workload.blocks, _prompts(workload), np.arange(workload.turns), block_tokens)
    sources, said = _said(workload, workload.blocks)
    said = np.where(prompt < workload.prompt_tokens, np.minimum(said, history + prompt), said)
    said[history != workload.history_tokens] = 0
    known = np.minimum(said // block_tokens, [len(path) for path in grown])
    return [Answered(hashed[source], blocks, own) for source, blocks, own in zip(sources, known.tolist(), grown, strict=True)]


def _prompts(workload: Workload) -> np.ndarray:
    """int64 per turn: tokens of its prompt, with the history."""
    return workload.history_tokens + workload.prompt_tokens


def _cut(workload: Workload, history: np.ndarray, prompt: np.ndarray, output: np.ndarray) -> np.ndarray:
    """bool per turn: some of the oldest history was cut off."""
    dropped = 0 if workload.dropped_tokens is None else workload.dropped_tokens
    before = np.append(0, (history + prompt + output)[:-1]) - dropped
    return ~workload.is_first & (history < before)


def _said(workload: Workload, blocks: Blocks) -> tuple[list[int], np.ndarray]:
    """Per turn, whose prompt has the hashes of its context with the answer, and of how many tokens: its own, or that of another turn of its
    session, as far as those in between go on from one another. Those of unfull blocks say nothing: who goes on has others."""
    said = np.minimum(_prompts(workload) // blocks.block_tokens, np.diff(blocks.first)) * blocks.block_tokens
    source = list(range(workload.turns))
    kept = np.append(workload.history_tokens, 0).tolist()
    for turn, other in [*((turn, turn + 1) for turn in reversed(source[:-1])), *((turn, turn - 1) for turn in source[1:])]:
        shared = min(kept[max(turn, other)], said[other])
        if shared > said[turn]:
            source[turn], said[turn] = source[other], shared
    return source, said


def _hashed(blocks: Blocks, tokens: np.ndarray, order: np.ndarray, block_tokens: int) -> Sequence[Keys]:
    """Of block hashes, those of an unfull last block too."""
    counts = np.minimum(np.diff(blocks.first)[order], -(-tokens // blocks.block_tokens))
    tree = prefixes(blocks.ids, blocks.first[:-1][order], counts)
    keys, bounds = tree.node.data, tree.first.tolist()
    whole = [keys[start:stop] for start, stop in pairwise(bounds)]
    if blocks.block_tokens == block_tokens:
        return whole
    if blocks.block_tokens % block_tokens == 0:
        return [Parts(path, blocks.block_tokens // block_tokens) for path in whole]
    if block_tokens % blocks.block_tokens == 0:
        return [path[block_tokens // blocks.block_tokens - 1 :: block_tokens // blocks.block_tokens] for path in whole]
    raise TraceError(
        f"the trace's hashes are of blocks of {blocks.block_tokens:,} tokens: blocks of {block_tokens:,} are no part of them, and none is a"
        f" multiple of the other; take {blocks.block_tokens:,}"
    )


def written(workload: Workload, block_tokens: int) -> list[Written]:
    """Per turn, the blocks of its prompt, with all of its history."""
    columns = workload.history_tokens, workload.prompt_tokens, workload.output_tokens
    grown = _grown(workload, columns, np.zeros(workload.turns, bool), block_tokens)
    prompts = ((columns[0] + columns[1]) // block_tokens).tolist()
    return [path.up_to(blocks) for path, blocks in zip(grown, prompts, strict=True)]


def _grown(workload: Workload, columns: tuple[np.ndarray, np.ndarray, np.ndarray], cut: np.ndarray, block_tokens: int) -> list[Written]:
    """Per turn, of `columns` (history, prompt, output), with the answer. Turns that keep all of the history share its list; an edit begins
    another; where the oldest was `cut`, the turn has written all of it anew."""
    found: list[Written] = []
    ends: list[int] = []
    writers: list[int] = []
    begun = iter([] if workload.beginnings is None else workload.beginnings.numbered().parts())
    rows, context = zip(*(column.tolist() for column in (workload.session, workload.is_first, cut, *columns)), strict=True), 0
    for turn, (session, first, is_cut, history, prompt, output) in enumerate(rows):
        if first:
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
