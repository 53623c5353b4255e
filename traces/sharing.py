"""What a store that all requests share, and that forgets nothing, would hold and hit: by block hashes, or by construction.

A request hits the leading run of its full blocks that an earlier request had. Answers are there when they come back in a prompt.
"""

from dataclasses import dataclass
from itertools import takewhile

import numpy as np

from kvplan.traces.blockkeys import Written
from kvplan.traces.blockpaths import known, written
from kvplan.traces.blockreuse import full_blocks
from kvplan.traces.reuse import in_order
from kvplan.traces.workload import Blocks, Workload


@dataclass(frozen=True)
class Sharing:
    """Of all requests, in blocks."""

    block_tokens: int
    distinct: int
    """Different blocks: what the store holds in the end."""
    hits: int
    own: int
    """Of the hits: those that the session itself had before."""
    prompt_tokens: int
    """Of all prompts, histories included."""

    def rate(self, blocks: int) -> float:
        """So many hits, as a share of all prompt tokens."""
        return blocks * self.block_tokens / self.prompt_tokens


def sharing(workload: Workload, block_tokens: int) -> Sharing | None:
    """Of a workload with times, in blocks of its hashes or else of so many tokens; None where nobody knows what its requests share."""
    tokens, order = workload.history_tokens + workload.prompt_tokens, in_order(workload)
    if workload.blocks is not None:
        return Sharing(workload.blocks.block_tokens, *_of_hashes(workload.blocks, tokens, workload.session, order), int(tokens.sum()))
    if not known(workload):
        return None
    own = _own(workload) // block_tokens
    hits = own if workload.beginnings is None else np.maximum(own, _of_others(workload, order, block_tokens) // block_tokens)
    distinct = int((tokens // block_tokens - hits).sum())
    return Sharing(block_tokens, distinct, int(hits.sum()), int(own.sum()), int(tokens.sum()))


def _of_hashes(blocks: Blocks, tokens: np.ndarray, session: np.ndarray, order: np.ndarray) -> tuple[int, int, int]:
    """(distinct, hits, own)."""
    tree = full_blocks(blocks, tokens, order)
    own = len(tree.node) - len(np.unique(session[order].astype(np.int64)[tree.owner] * (len(tree.beginner) + 1) + tree.node))
    return len(tree.beginner), len(tree.node) - len(tree.beginner), own


def _own(workload: Workload) -> np.ndarray:
    """int64 per turn: leading tokens that the prompts of its session before it held."""
    context = np.append(0, (workload.history_tokens + workload.prompt_tokens)[:-1])
    return np.where(workload.is_first, 0, np.minimum(workload.history_tokens, context))


def _of_others(workload: Workload, order: np.ndarray, block_tokens: int) -> np.ndarray:
    """int64 per turn: leading tokens of what sessions begin with that an earlier prompt of any session held."""
    found, seen = np.zeros(workload.turns, np.int64), dict[int, int]()
    paths, context = written(workload, block_tokens), (workload.history_tokens + workload.prompt_tokens).tolist()
    for turn in order.tolist():
        found[turn] = _seen(paths[turn], context[turn], seen)
    return found


def _seen(path: Written, context: int, seen: dict[int, int]) -> int:
    """Leading tokens that were seen under who wrote them; all of the context's are from now on."""
    start, found, whole = 0, 0, True
    for end, writer in takewhile(lambda part: part[1] < 0, zip(path.ends, path.writers, strict=True)):
        if start >= context:
            break
        stop = min(end, context)
        had = min(seen.get(writer, start), stop)
        found, whole = had if whole else found, whole and had == stop
        seen[writer] = max(seen.get(writer, 0), stop)
        start = end
    return found
