"""Contexts in blocks as a tree of prefixes: how many of its leading blocks a request shares, and with whom.

A prefix is a row of hashes from the start of a context. So it does not matter whether a hash stands for its block alone or, as in most
logs, for all before it too.
"""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Prefixes:
    """The prefixes of requests, in the order in which they came."""

    first: np.ndarray
    """int64 per request and one more: where its prefixes begin in `node`."""
    node: np.ndarray
    """int64 per block: number of the prefix that ends with it."""
    beginner: np.ndarray
    """int64 per number: the first request that has the prefix."""
    matched: np.ndarray
    """int64 per request: leading blocks that an earlier request has too."""

    @property
    def counts(self) -> np.ndarray:
        """int64 per request: its blocks."""
        return np.diff(self.first)

    @property
    def owner(self) -> np.ndarray:
        """int64 per block: its request."""
        return np.repeat(np.arange(len(self.matched)), self.counts)

    def at(self, depth: np.ndarray) -> np.ndarray:
        """int64 per request: number of its prefix of `depth` blocks, −1 for a depth of 0."""
        place = self.first[:-1] + depth - 1
        return np.where(depth > 0, self.node[np.where(depth > 0, place, 0)], -1) if len(self.node) else np.full(len(depth), -1)


def prefixes(ids: np.ndarray, starts: np.ndarray, counts: np.ndarray) -> Prefixes:
    """The prefixes of requests: request i has the hashes `ids[starts[i] : starts[i] + counts[i]]`.

    Goes down one block at a time with those requests that share what came before; what one request alone has needs no look. O(n log n).
    """
    first = np.append(0, np.cumsum(counts)).astype(np.int64)
    node = np.full(first[-1], -1, np.int64)
    matched, parent = np.zeros(len(counts), np.int64), np.zeros(len(counts), np.int64)
    beginners: list[np.ndarray] = []
    known = depth = 0
    rows = np.flatnonzero(counts > 0)
    while len(rows):
        number, begun, users = _numbered(parent[rows], ids[starts[rows] + depth])
        node[first[rows] + depth] = parent[rows] = known + number
        matched[rows] += rows[begun][number] < rows
        beginners.append(rows[begun])
        known += len(begun)
        depth += 1
        rows = rows[(users[number] > 1) & (counts[rows] > depth)]
    alone = node < 0
    node[alone] = known + np.arange(alone.sum())
    owners = np.repeat(np.arange(len(counts)), counts)
    return Prefixes(first, node, np.concatenate([*beginners, owners[alone]]).astype(np.int64), matched)


def _numbered(parent: np.ndarray, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Numbers of pairs, from 0: per pair its number; per number the place of its first pair, and how many pairs have it."""
    (_, parents), (kinds, codes) = (np.unique(values, return_inverse=True) for values in (parent, ids))
    _, begun, number, users = np.unique(parents * len(kinds) + codes, return_index=True, return_inverse=True, return_counts=True)
    return number, begun, users
