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

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from kvplan.traces.blockkeys import Answered, Asked, Keys, Parts, TurnKeys, Written, grown
from kvplan.traces.context import contexts
from kvplan.traces.prefixes import prefixes
from kvplan.traces.reuse import in_order, starts
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
    paths: Sequence[TurnKeys]
    """A key for each full block of it; where the source hashes the rest too, one for that. With who asks, a session of the workload."""
    times_s: Sequence[float]
    """When each comes, ascending."""
    hashed: bool
    """Whether the keys are of block hashes."""
    ends: Sequence[int]
    """Tokens of each context when its request has ended: of the prompt, or in servers with the answer, of which paths have keys then."""
    cut: int = 0
    """Prompts that lack some of their history, to fit into a window."""

    def by(self, part: Sequence[int]) -> list["BlockContexts"]:
        """Those of the sessions of each part, which has a number for each session; of parts that have any."""
        rows: dict[int, list[int]] = {}
        for row, path in enumerate(self.paths):
            rows.setdefault(part[path.session], []).append(row)
        return [self._those(rows[number]) for number in sorted(rows)]

    def _those(self, rows: Sequence[int]) -> "BlockContexts":
        tokens, paths, times_s, ends = self.tokens, self.paths, self.times_s, self.ends
        return replace(
            self,
            tokens=[tokens[row] for row in rows],
            paths=[paths[row] for row in rows],
            times_s=[times_s[row] for row in rows],
            ends=[ends[row] for row in rows],
        )


def block_contexts(workload: Workload, block_tokens: int) -> BlockContexts:
    """The contexts of a workload with times, whole, in blocks of so many tokens. Raises TraceError when nobody knows what they share."""
    order = in_order(workload)
    times_s = starts(workload)[order].tolist()
    tokens = (workload.history_tokens + workload.prompt_tokens)[order]
    _check(workload)
    if workload.blocks is None:
        paths = written(workload, block_tokens)
        return BlockContexts(block_tokens, tokens.tolist(), [paths[turn] for turn in order.tolist()], times_s, False, tokens.tolist())
    hashed = _in_blocks(_whole(workload.blocks, tokens, order), workload.blocks.block_tokens, block_tokens)
    asked = [Asked(keys, session) for keys, session in zip(hashed, workload.session[order].tolist(), strict=True)]
    return BlockContexts(block_tokens, tokens.tolist(), asked, times_s, True, tokens.tolist())


def served_contexts(workload: Workload, block_tokens: int, window: int, ratio: float) -> BlockContexts:
    """The same as servers have them: cut to the window, with answers. Raises TraceError."""
    order = in_order(workload)
    _check(workload)
    history, prompt, output = contexts(workload, window, ratio)
    tokens, whole = history + prompt, workload.history_tokens + workload.prompt_tokens
    paths = turn_paths(workload, block_tokens, window, ratio)
    return BlockContexts(
        block_tokens,
        tokens[order].tolist(),
        [paths[turn] for turn in order.tolist()],
        starts(workload)[order].tolist(),
        workload.blocks is not None,
        (tokens + output)[order].tolist(),
        int((tokens < whole).sum()),
    )


def _check(workload: Workload) -> None:
    """Raises TraceError when nobody knows what contexts share."""
    if not known(workload):
        raise TraceError(_NOTHING)


def known(workload: Workload) -> bool:
    """Whether anybody knows what its requests share."""
    begun = workload.beginnings is not None and len(workload.beginnings.key) > 0
    return begun or workload.blocks is not None or workload.turns > workload.sessions


def turn_paths(workload: Workload, block_tokens: int, window: int, ratio: float) -> Sequence[TurnKeys]:
    """Per turn, in the workload's order: keys of the full blocks of its context after the answer, where contexts are cut to the window
    (`kvplan.traces.context`). Raises TraceError when blocks are no parts of those that are hashed."""
    columns = contexts(workload, window, ratio)
    cut = _cut(workload, *columns)
    if workload.blocks is None:
        return _grown(workload, columns, cut, block_tokens)
    history, prompt, _ = columns
    whole = _whole(workload.blocks, _prompts(workload), np.arange(workload.turns))
    hashed, said = _in_blocks(whole, workload.blocks.block_tokens, block_tokens), _Said(workload, workload.blocks, whole)
    as_hashed = history == workload.history_tokens  # of others positions are not those that were hashed
    grown = _grown(workload, columns, cut | (as_hashed & list(map(said.parts, range(workload.turns)))), block_tokens)
    tokens = as_hashed * np.where(prompt < workload.prompt_tokens, np.minimum(said.tokens, history + prompt), said.tokens)
    known = np.minimum(tokens // block_tokens, [len(path) for path in grown])
    return [Answered(hashed[source], blocks, own) for source, blocks, own in zip(said.source, known.tolist(), grown, strict=True)]


def _prompts(workload: Workload) -> np.ndarray:
    """int64 per turn: tokens of its prompt, with the history."""
    return workload.history_tokens + workload.prompt_tokens


def _cut(workload: Workload, history: np.ndarray, prompt: np.ndarray, output: np.ndarray) -> np.ndarray:
    """bool per turn: some of the oldest history was cut off."""
    dropped = 0 if workload.dropped_tokens is None else workload.dropped_tokens
    before = np.append(0, (history + prompt + output)[:-1]) - dropped
    return ~workload.is_first & (history < before)


class _Said:
    """What hashes say of each turn's context, with the answer: its own prompt's, or those of another turn of its session, as far as those
    in between go on from one another. Those of unfull blocks say nothing: who goes on has others. Where hashes differ, whatever lengths
    say, nobody goes on. `whole`: keys of the hashed blocks."""

    def __init__(self, workload: Workload, blocks: Blocks, whole: Sequence[Sequence[int]]) -> None:
        self._whole, self._tokens = whole, blocks.block_tokens
        self._kept = np.append(workload.history_tokens, 0).tolist()
        turns = range(workload.turns)
        self.source = list(turns)
        """Whose prompt has them …"""
        self.tokens = (np.minimum(_prompts(workload) // self._tokens, np.diff(blocks.first)) * self._tokens).tolist()
        """… and of how many tokens."""
        for turn, other in [*((turn, turn + 1) for turn in reversed(turns[:-1])), *((turn, turn - 1) for turn in turns[1:])]:
            shared = self._shared(turn, other)
            if shared > self.tokens[turn] and self._alike(turn, other, self.tokens[turn]):
                self.source[turn], self.tokens[turn] = self.source[other], shared

    def _shared(self, turn: int, other: int) -> int:
        """Of how many tokens a neighbour says what they are."""
        return min(self._kept[max(turn, other)], self.tokens[other])

    def _alike(self, turn: int, other: int, tokens: int) -> bool:
        last = -(-tokens // self._tokens) - 1
        return last < 0 or self._whole[self.source[turn]][last] == self._whole[self.source[other]][last]

    def parts(self, turn: int) -> bool:
        """Whether a turn has other text than the one before it, where it was to go on from that."""
        return turn > 0 and not self._alike(turn, turn - 1, min(self._shared(turn, turn - 1), self.tokens[turn]))


def _whole(blocks: Blocks, tokens: np.ndarray, order: np.ndarray) -> Sequence[Sequence[int]]:
    """Keys of prompts of so many tokens in blocks as they are hashed, those of an unfull last block too."""
    counts = np.minimum(np.diff(blocks.first)[order], -(-tokens // blocks.block_tokens))
    tree = prefixes(blocks.ids, blocks.first[:-1][order], counts)
    keys, bounds = tree.node.data, tree.first.tolist()
    return [keys[start:stop] for start, stop in pairwise(bounds)]


def _in_blocks(whole: Sequence[Sequence[int]], hashed_tokens: int, block_tokens: int) -> Sequence[Keys]:
    """The same in blocks of so many tokens, where those that are hashed have `hashed_tokens`."""
    if hashed_tokens == block_tokens:
        return whole
    if hashed_tokens % block_tokens == 0:
        return [Parts(path, hashed_tokens // block_tokens) for path in whole]
    if block_tokens % hashed_tokens == 0:
        return [path[block_tokens // hashed_tokens - 1 :: block_tokens // hashed_tokens] for path in whole]
    raise TraceError(
        f"the trace's hashes are of blocks of {hashed_tokens:,} tokens: blocks of {block_tokens:,} are no part of them, and none is a"
        f" multiple of the other; take {hashed_tokens:,}"
    )


def written(workload: Workload, block_tokens: int) -> list[Written]:
    """Per turn, the blocks of its prompt, with all of its history."""
    columns = workload.history_tokens, workload.prompt_tokens, workload.output_tokens
    grown = _grown(workload, columns, np.zeros(workload.turns, bool), block_tokens)
    prompts = ((columns[0] + columns[1]) // block_tokens).tolist()
    return [path.up_to(blocks) for path, blocks in zip(grown, prompts, strict=True)]


def _grown(workload: Workload, columns: tuple[np.ndarray, np.ndarray, np.ndarray], cut: np.ndarray, block_tokens: int) -> list[Written]:
    """Per turn, of `columns` (history, prompt, output), with the answer."""
    rows = zip(*(column.tolist() for column in (workload.session, workload.is_first, cut, *columns)), strict=True)
    return grown(rows, iter([] if workload.beginnings is None else workload.beginnings.numbered().parts()), block_tokens)
