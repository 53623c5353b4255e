"""The most that any policy can serve of a memory of so many blocks, over requests that come one at a time and are all known: Belady's MIN,
which need not store what comes, on runs of blocks.

A block is hit if it has been held since the request before that used it: a *stretch*. All blocks are of one size, so of stretches any may
be kept that never are more at once than the memory has room for, and most are kept by giving up the one that ends last whenever there are
too many. Blocks that two requests, and none in between, have in common are stretches alike, found as one run.

What the bound knows is the whole order. What it assumes of a policy is nothing: chunks without those before them would do, and what a
request itself needs takes no room. Below a pool only what the pool has not is worth anything, and each use there is a chance to store.

Sources: Belady, IBM Systems Journal 5(2), 1966; Carlisle and Lloyd, On the k-coloring of intervals, Discrete Applied Mathematics 59, 1995.
"""

from collections.abc import Sequence
from heapq import heappop, heappush
from typing import NamedTuple

from kvplan.sim.store.blocks.base import Context
from kvplan.sim.store.blocks.runs import Runs


class Asked(NamedTuple):
    """One request. Blocks."""

    path: Context
    full: int
    """That are full, and can be stored."""
    first: int
    """From which on hits are of use, ..."""
    most: int
    """... and up to which."""


Stretches = Sequence[Sequence[tuple[int, int]]]
"""Per request, (the next request that would hit what it has used, how many blocks) of all that begin with it."""


def stretches(requests: Sequence[Asked]) -> Stretches:
    """Costs by the run."""
    runs, found = Runs(), []
    for number in range(len(requests) - 1, -1, -1):
        path, full, _, _ = requests[number]
        pieces, begun, start = runs.take(path, full), [], 0
        for piece in pieces:
            later = int(piece.run.since)
            blocks = min(piece.stop, requests[later].most) - max(start, requests[later].first)
            if blocks > 0:
                begun.append((later, blocks))
            start = piece.stop
        runs.give_back(pieces + runs.name(path, pieces, full), float(number))
        found.append(begun)
    return found[::-1]


def most_hit(known: Stretches, usable: int) -> int:
    """Blocks that are hit at most, with room for so many. O(n log n)."""
    kept = [0] * len(known)
    ends: list[int] = []
    held = hits = 0
    for request, begun in enumerate(known):
        hits += kept[request]
        held -= kept[request]
        kept[request] = 0
        for later, blocks in begun:
            if not kept[later]:
                heappush(ends, -later)
            kept[later] += blocks
            held += blocks
        while held > usable:
            last = -ends[0]
            gone = min(held - usable, kept[last])
            kept[last] -= gone
            held -= gone
            if not kept[last]:
                heappop(ends)
    return hits
