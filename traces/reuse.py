"""When and how far apart the turns of a session come: what a cache has to bridge, in seconds and in bytes, without simulating a server.

A turn looks for its session's KV when it starts and stores it when its answer is complete. In a closed loop the next turn follows after the
think time. Unless it is said how long answers take, they take no time here, which makes reuse distances shorter than a real server's.
"""

from array import array
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np

from kvplan.traces.context import contexts
from kvplan.traces.hashes import spread
from kvplan.traces.workload import Workload

_REPORT_EVERY = 5000
_ROWS = 1 << 16


@dataclass(frozen=True)
class Accesses:
    """All turns in order of their starts."""

    session: np.ndarray
    """int: whose turn."""
    time_s: np.ndarray
    """float64, ascending: when the turn starts."""
    gap_s: np.ndarray
    """float64: since the session's turn before; NaN for first turns."""
    history: np.ndarray
    """int64: units (tokens or bytes) that the turn could reuse; 0 for first turns."""
    size: np.ndarray
    """int64: units that the session holds after the turn."""
    end_s: np.ndarray | None = None
    """float64: when its answer is complete, before the session's next turn starts; None: at once, before any other turn."""

    def those(self, chosen: np.ndarray) -> "Accesses":
        """The accesses for which `chosen` (bool, one per access) is true."""
        columns = {column.name: getattr(self, column.name) for column in fields(self)}
        taken: dict[str, Any] = {name: None if values is None else values[chosen] for name, values in columns.items()}
        return Accesses(**taken)

    def sized(self, of: Callable[[np.ndarray], np.ndarray]) -> "Accesses":
        """The same in other units, `of` so many of these."""
        return replace(self, history=of(self.history), size=of(self.size))

    def events(self) -> np.ndarray:
        """int64, twice as long: the starts (place of the access) and the ends (~place) of all accesses in order of time.

        At one instant come first the ends of turns that took some time, by session; then starts, and the ends of turns that took none, by
        place. The simulator does the same.
        """
        places = np.arange(len(self.session))
        ends = self.time_s if self.end_s is None else self.end_s
        lasted = ends > self.time_s
        rank = np.append(places, np.where(lasted, self.session, places))
        order = np.lexsort((rank, np.append(~np.zeros_like(lasted), ~lasted), np.append(self.time_s, ends)))
        return np.append(places, ~places)[order]


def accesses(workload: Workload, unit: int, window: int, answer_s: np.ndarray | float = 0.0, ratio: float = 0.5) -> Accesses:
    """The turns of a workload with times. Sizes are contexts, truncated to `window` tokens, times `unit` (bytes per token).

    `answer_s`: seconds from a turn's start to the end of its answer, one for all or one per turn. In an open loop, an answer is complete at
    the latest when the session's next turn comes. `ratio`: the share of the history that truncation cuts off at a time.
    """
    history, prompt, output = contexts(workload, window, ratio)
    return accesses_of(workload, history * unit, (history + prompt + output) * unit, answer_s)


def accesses_of(workload: Workload, history: np.ndarray, size: np.ndarray, answer_s: np.ndarray | float) -> Accesses:
    """The same, with what each turn could reuse and what its session holds then, in the workload's order."""
    time = starts(workload, answer_s)
    gap = np.diff(time, prepend=np.nan)
    gap[workload.is_first] = np.nan
    following = np.append(np.where(workload.is_first, np.inf, time)[1:], np.inf)
    end = np.minimum(time + answer_s, following)
    order = np.argsort(time, kind="stable")
    return Accesses(workload.session[order], time[order], gap[order], history[order], size[order], end[order])


def starts(workload: Workload, answer_s: np.ndarray | float = 0.0) -> np.ndarray:
    """float64 per turn of a workload with times: when it starts; `answer_s` as in `accesses`."""
    if workload.open_loop:
        return workload.arrival_s
    answered = np.zeros(workload.turns)
    answered[1:] = np.broadcast_to(answer_s, workload.turns)[:-1]
    since = np.cumsum(np.where(workload.is_first, 0.0, workload.gap_s + answered))
    first = workload.first_turn[:-1][workload.session]
    return workload.arrival_s[first] + since - since[first]


def in_order(workload: Workload) -> np.ndarray:
    """int64: the turns of a workload with times in order of their starts; of those that start together, as they were read."""
    read = np.arange(workload.turns) if workload.record is None else workload.record
    return np.lexsort((read, starts(workload)))


def previous(session: np.ndarray) -> np.ndarray:
    """int64 per access: the place of the session's access before, −1 for first turns. `session`: whose turn, per access."""
    order = np.argsort(session, kind="stable")
    same = session[order][1:] == session[order][:-1]
    found = np.full(len(session), -1, np.int64)
    found[order[1:][same]] = order[:-1][same]
    return found


def stack_distances(seen: Accesses, report: Callable[[int, int], None] = lambda done, total: None) -> np.ndarray:
    """int64 per access: what the distinct sessions hold that had a turn end since the session's last, itself included; −1 for first turns.

    An LRU store of whole sessions hits exactly when its capacity is at least this, as long as every turn ends at once, no session shrinks
    and all fit. Where truncation makes one shrink, the store may have given a session up while more was held; where turns overlap, it may
    have kept those that run at the cost of others: then this counts hits that the store does not have. One pass, O(log n) each.
    Source: Mattson et al. 1970, with the tree of Bennett and Kruskal 1975.
    """
    total = len(seen.session)
    held = Sums(total)
    last, weight = (array("q", [-1]) * (int(seen.session.max(initial=-1)) + 1) for _ in range(2))
    found = array("q", [-1]) * total
    ended = 0
    for place, session, size in _rows(*_in_order(seen)):
        if place >= 0:
            if last[session] >= 0:
                found[place] = held.total - held.before(last[session])
            continue
        if last[session] >= 0:
            held.add(last[session], -weight[session])
        held.add(ended, size)
        last[session], weight[session] = ended, size
        ended += 1
        if ended % _REPORT_EVERY == 0:
            report(ended, total)
    return np.array(found)


def _in_order(seen: Accesses) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Per event: itself, whose it is, and what the session holds after the access."""
    events = seen.events()
    places = np.where(events >= 0, events, ~events)
    return events, seen.session[places], seen.size[places]


def _rows(*columns: np.ndarray) -> Iterator[tuple[int, ...]]:
    """The rows of columns; as objects a part of them at a time, for they take six times as much memory."""
    for start in range(0, len(columns[0]), _ROWS):
        yield from zip(*(column[start : start + _ROWS].tolist() for column in columns), strict=True)


class Sums:
    """Whole numbers in a row of places whose sums of leading ones are known in O(log n). Source: Fenwick, 1994."""

    def __init__(self, places: int) -> None:
        self.total = 0
        self._tree = array("q", [0]) * (places + 1)

    def add(self, place: int, amount: int) -> None:
        """Adds to a place, numbered from 0."""
        tree, node, end = self._tree, place + 1, len(self._tree)
        while node < end:
            tree[node] += amount
            node += node & -node
        self.total += amount

    def before(self, place: int) -> int:
        """The sum of the places before this one."""
        tree, node, found = self._tree, place, 0
        while node:
            found += tree[node]
            node &= node - 1
        return found


def active(seen: Accesses, span_s: float) -> tuple[int, int]:
    """(most distinct sessions, most units held by them) that had a turn within any `span_s` seconds: DSpUT, and what keeps them all.

    Source: CachedAttention section 3.3 (DSpUT: distinct sessions per unit time).
    """
    places = np.arange(len(seen.session))
    before = previous(seen.session)
    gone = np.searchsorted(seen.time_s, seen.time_s + span_s, side="right")
    gone[before[before >= 0]] = np.minimum(gone[before[before >= 0]], places[before >= 0])
    return _most(np.ones_like(places), gone), _most(seen.size, gone)


def _most(amounts: np.ndarray, gone: np.ndarray) -> int:
    """The most that is there at once of amounts that each come at their own place and go at the place `gone`."""
    change = np.append(amounts, 0)
    np.subtract.at(change, gone, amounts)
    return int(np.cumsum(change).max())


def sampled(seen: Accesses, rate: float, seed: int = 0) -> Accesses:
    """The accesses of about the share `rate` of the sessions, chosen by a hash of their numbers: all accesses of a session, or none.

    Source: Waldspurger et al., Efficient MRC Construction with SHARDS, FAST 2015, section 3.1 (spatially hashed sampling, fixed rate).
    Raises ValueError when the rate is not above 0 and at most 1.
    """
    if not 0 < rate <= 1:
        raise ValueError(f"a sampling rate is above 0 and at most 1, not {rate}")
    return seen.those(spread(seen.session, seed) <= np.uint64(min(int(rate * 2**64), 2**64 - 1)))


def sampled_stack_distances(sample: Accesses, rate: float) -> np.ndarray:
    """int64 per access of a sample: estimates of its `stack_distances` in the whole; −1 for first turns.

    What other sessions hold counts 1/rate times, for those left out; the session itself counts once, which keeps the estimate unbiased
    where sessions are large. A curve from them is off by 1 to 2 points of hit rate when some 100 sampled sessions fit into the capacity,
    and by more when fewer do: on a service with few sessions at a time, sample little or not at all.

    Left out: SHARDS-adj, which puts the accesses that a sample lacks to the shortest distances. It mends samples that miss a few blocks
    used very often; sessions have a few turns each, and there it doubled the error.
    """
    found = stack_distances(sample)
    own = sample.size[previous(sample.session)]
    return np.where(found >= 0, own + np.rint((found - own) / rate).astype(np.int64), -1)


def hit_curve(distances: np.ndarray, worth: np.ndarray, capacity: np.ndarray) -> np.ndarray:
    """float64 per capacity: what an LRU store of it hits, as a share of all worth.

    `distances` are those of `stack_distances` or `sampled_stack_distances`; `worth`, per access, is `history` for a curve of tokens or
    bytes, and `history > 0` for one of turns.
    """
    again = distances >= 0
    order = np.argsort(distances[again], kind="stable")
    gained = np.append(0.0, np.cumsum(worth[again][order]))
    return gained[np.searchsorted(distances[again][order], capacity, side="right")] / (float(worth.sum()) or 1.0)
