"""Sessions out of block hashes: which request goes on from which.

A turn holds all that came before it in its session: all full blocks of the request before. So does everything else that begins alike:
another question about a document, another user of one system prompt. What tells them apart is

- where a request meets those before it: its longest prefix that anybody had must end where the request it goes on from ends;
- who else meets there: in a session one request follows another, each longer. Where several meet side by side, their common prefix is a
  shared prompt, unless each of them comes later than the first and has room for its answer: then they are forks of one history;
- the arrow of time: chance knows none. What is found is sought backwards too, from the last request to the first, and as many links as that
  gives are chance. A kind of link is believed when most of it is not.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count, pairwise

import numpy as np

from kvplan.traces.prefixes import Prefixes

_KINDS = _ANSWERED, _LONGER, _FORK = "answered", "longer", "fork"


@dataclass(frozen=True)
class Log:
    """What is known of the requests of a log, in order of time."""

    length: Sequence[int]
    """Tokens of the prompt, history included."""
    output: Sequence[int]
    """Tokens of the answer."""
    arrival_s: Sequence[float]
    """NaN where it is not known."""
    owner: Sequence[object]
    """Who asks, as far as it is known."""

    def longer(self, one: int, other: int) -> bool:
        """Whether `other` can hold all of `one` and something more, as far as time and owner say."""
        apart = self.arrival_s[one] != self.arrival_s[other] and self.owner[one] == self.owner[other]
        return apart and self.length[other] > self.length[one]

    def answered(self, one: int, other: int) -> bool:
        """Whether it can hold the answer too."""
        return self.longer(one, other) and self.length[other] >= self.length[one] + self.output[one]


def chains(tree: Prefixes, log: Log) -> tuple[np.ndarray, dict[str, int]]:
    """int64 per request: the one that it goes on from, −1 for none; and counts that say how sure that is.

    Linear in the requests, after the tree.
    """
    rows = list(_meetings(tree))
    found = [_follow(row, whole, log) for row, whole in rows]
    chance = _counted(_follow(row[::-1], whole[::-1], log) for row, whole in rows)
    counts = _counted(found)
    believed = {kind for kind in _KINDS if counts[kind] > 2 * chance[kind]}
    before = np.full(len(tree.matched), -1, np.int64)
    for kind, links in found:
        if kind in believed:
            one, other = zip(*links, strict=True)
            before[list(other)] = one
    return before, {
        "links": sum(counts[kind] for kind in believed),
        "without_room_for_the_answer": counts[_LONGER] if _LONGER in believed else 0,
        "on_one_block": int((_own_blocks(tree, before) == 1).sum()),
        "by_chance": sum(chance[kind] for kind in believed),
        "not_believed": sum(counts[kind] for kind in _KINDS if kind not in believed),
        "shorter_than_a_block": int((tree.counts == 0).sum()),
    }


def _meetings(tree: Prefixes) -> Iterator[tuple[list[int], list[bool]]]:
    """Where requests meet those before them: the first that has the prefix and those that share no more than it with any before them, in
    order; and of each whether the prefix is all of its full blocks."""
    met = tree.at(tree.matched)
    arrivals = np.flatnonzero(met >= 0)
    arrivals = arrivals[np.argsort(met[arrivals], kind="stable")]
    begin = np.flatnonzero(np.diff(met[arrivals], prepend=-1))
    firsts, whole = tree.beginner[met[arrivals[begin]]], tree.counts == tree.matched
    ends = (tree.counts[firsts] == tree.matched[arrivals[begin]]).tolist()
    rows, wholes, bounds = arrivals.tolist(), whole[arrivals].tolist(), [*begin.tolist(), len(arrivals)]
    for first, end, (start, stop) in zip(firsts.tolist(), ends, pairwise(bounds), strict=True):
        yield [first, *rows[start:stop]], [end, *wholes[start:stop]]


def _follow(row: list[int], whole: list[bool], log: Log) -> tuple[str | None, list[tuple[int, int]]]:
    """How requests that share a prefix follow one another, and which which; None when that is no session."""
    if all(whole[:-1]):
        for kind, follows in ((_ANSWERED, log.answered), (_LONGER, log.longer)):
            if all(follows(one, other) for one, other in pairwise(row)):
                return kind, list(pairwise(row))
    if whole[0] and all(log.answered(row[0], other) for other in row[1:]):
        return _FORK, _forks(row, whole, log)
    return None, []


def _forks(row: list[int], whole: list[bool], log: Log) -> list[tuple[int, int]]:
    """The first that can goes on from the latest that ends with the prefix; the others begin anew."""
    links = []
    tip: int | None = row[0]
    for request, ends in zip(row[1:], whole[1:], strict=True):
        if tip is not None and log.answered(tip, request):
            links.append((tip, request))
            tip = request if ends else None
    return links


def _counted(found: Iterable[tuple[str | None, list[tuple[int, int]]]]) -> Counter[str | None]:
    """Links by kind."""
    counts: Counter[str | None] = Counter()
    for kind, links in found:
        counts[kind] += len(links)
    return counts


def sessions(before: np.ndarray) -> np.ndarray:
    """int64 per request: its session, numbered by first appearance."""
    found: list[int] = []
    begun = count()
    for request in before.tolist():
        found.append(found[request] if request >= 0 else next(begun))
    return np.array(found, np.int64)


def _own_blocks(tree: Prefixes, before: np.ndarray) -> np.ndarray:
    """int64 per link: blocks that both its requests have, less those that another session has too."""
    session, new = sessions(before), before < 0
    met = tree.at(tree.matched)
    guests = np.flatnonzero(new & (met >= 0))
    hosts = session[tree.beginner[met[guests]]]
    span = int(tree.counts.max(initial=0)) + 2
    shared = np.sort(np.concatenate([session[new], hosts]) * span + np.concatenate([tree.matched[new], tree.matched[guests]]))
    linked = session[~new] * span + tree.matched[~new]
    return linked - shared[np.searchsorted(shared, linked) - 1]
