"""What sessions begin with that others have as well, known by construction: system prompts, documents, histories that go on in more ways.

The start of a session's context is a row of parts, each with a key of all the text from the start to its end. A session that others go on
from has parts beyond its first prompt; those hold as long as it keeps its history. Lengths are tokens as the workload counts them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from kvplan.traces.hashes import spread


@dataclass(frozen=True)
class Beginnings:
    """Of all sessions."""

    first: np.ndarray
    """int64 per session and one more: where its parts begin."""
    key: np.ndarray
    """int64 per part: where two parts have one key, a place within both is the same text after the same text."""
    end: np.ndarray
    """int64 per part: tokens of the context up to its end; ascending within a session."""

    @classmethod
    def of(cls, parts: Sequence[Sequence[tuple[int, int]]]) -> "Beginnings":
        """Of (key, end) pairs per session."""
        flat = np.array([part for session in parts for part in session], np.int64).reshape(-1, 2)
        return cls(np.append(0, np.cumsum(list(map(len, parts)))).astype(np.int64), flat[:, 0], flat[:, 1])

    def __len__(self) -> int:
        return len(self.first) - 1

    @property
    def session(self) -> np.ndarray:
        """int64 per part: its session."""
        return np.repeat(np.arange(len(self)), np.diff(self.first))

    @property
    def some(self) -> np.ndarray:
        """bool per session: whether it has any part."""
        return np.diff(self.first) > 0

    @property
    def reach(self) -> np.ndarray:
        """int64 per session: tokens of its context up to the end of its last part."""
        return np.append(0, self.end)[np.where(self.some, self.first[1:], 0)]

    def sound(self) -> bool:
        """Whether parts end one after the other."""
        return bool(self.first[-1] == len(self.key) == len(self.end) and np.all(self._own > 0))

    def those(self, sessions: np.ndarray) -> "Beginnings":
        """Of the sessions of these numbers, in this order."""
        counts = np.diff(self.first)[sessions]
        first = np.append(0, np.cumsum(counts)).astype(np.int64)
        places = np.arange(first[-1]) + np.repeat(self.first[:-1][sessions] - first[:-1], counts)
        return Beginnings(first, self.key[places], self.end[places])

    def cut(self, tokens: np.ndarray) -> "Beginnings":
        """Only so many tokens of each session's."""
        return self._with(np.minimum(self.end, tokens[self.session]))

    def scaled(self, factor: float) -> "Beginnings":
        """With lengths times `factor`, rounded down."""
        return self._with((self.end * factor).astype(np.int64))

    def behind(self, key: np.ndarray, tokens: np.ndarray) -> "Beginnings":
        """Each session's behind another part of this key and so many tokens, which is before all of them; no part of 0 tokens."""
        before = np.array(key, np.int64)
        later = np.where(tokens[self.session] > 0, mixed(self.key, before[self.session]), self.key)
        owner = np.concatenate([np.flatnonzero(tokens > 0), self.session])
        order = np.argsort(owner, kind="stable")
        keys, ends = np.concatenate([before[tokens > 0], later]), np.concatenate([tokens[tokens > 0], self.end + tokens[self.session]])
        return Beginnings(np.append(0, np.cumsum(np.bincount(owner, minlength=len(self)))), keys[order], ends[order])

    def apart(self, names: np.ndarray) -> "Beginnings":
        """The same only between sessions of one name."""
        _, number = np.unique(names, return_inverse=True)
        return Beginnings(self.first, mixed(self.key, number[self.session]), self.end)

    def shared(self) -> "Beginnings":
        """Without what one session has alone."""
        _, number, counts = np.unique(self.key, return_inverse=True, return_counts=True)
        return self._those_parts(counts[number] > 1)

    def seen_before(self) -> "Beginnings":
        """Of each session what one before it has as well."""
        first = np.ones(len(self.key), bool)
        first[np.unique(self.key, return_index=True)[1]] = False
        return self._those_parts(first)

    def growing(self) -> "Beginnings":
        """Without parts of no tokens."""
        return self._with(self.end)

    def parts(self) -> list[list[tuple[int, int]]]:
        """Per session: (key, end) of each part."""
        bounds, parts = self.first.tolist(), list(zip(self.key.tolist(), self.end.tolist(), strict=True))
        return [parts[start:stop] for start, stop in pairwise(bounds)]

    def numbered(self) -> "Beginnings":
        """The same with keys from 0 on."""
        return Beginnings(self.first, np.unique(self.key, return_inverse=True)[1], self.end)

    def _with(self, end: np.ndarray) -> "Beginnings":
        """With other ends, without the parts of which nothing is left."""
        found = Beginnings(self.first, self.key, end)
        return found._those_parts(found._own > 0)

    @property
    def _own(self) -> np.ndarray:
        """int64 per part: its tokens, without those of the parts before it."""
        found, opens = np.diff(self.end, prepend=0), self.first[:-1][self.some]
        found[opens] = self.end[opens]
        return found

    def _those_parts(self, which: np.ndarray) -> "Beginnings":
        counts = np.bincount(self.session[which], minlength=len(self))
        return Beginnings(np.append(0, np.cumsum(counts)).astype(np.int64), self.key[which], self.end[which])


def none(sessions: int) -> Beginnings:
    """Of sessions that share nothing."""
    return Beginnings(np.zeros(sessions + 1, np.int64), np.empty(0, np.int64), np.empty(0, np.int64))


def mixed(key: np.ndarray, other: np.ndarray) -> np.ndarray:
    """int64: a key of both; another one when they change places."""
    return (spread(key, 0) ^ spread(np.atleast_1d(other), 1)).view(np.int64)
