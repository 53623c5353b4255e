"""When and how far apart the turns of a session come: what a cache has to bridge, in seconds and in bytes, without simulating a server.

In a closed loop a turn follows the one before after its answer and the think time. Unless it is said how long answers take, they take no time
here, which makes reuse distances shorter than a real server's.
"""

import heapq
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from traces.context import contexts
from traces.workload import Workload

_REPORT_EVERY = 5000


@dataclass(frozen=True)
class Accesses:
    """All turns in order of time."""

    session: np.ndarray
    """int: whose turn."""
    time_s: np.ndarray
    """float64, ascending."""
    gap_s: np.ndarray
    """float64: since the session's turn before; NaN for first turns."""
    history: np.ndarray
    """int64: units (tokens or bytes) that the turn could reuse; 0 for first turns."""
    size: np.ndarray
    """int64: units that the session holds after the turn."""


def accesses(workload: Workload, unit: int, window: int, answer_s: np.ndarray | float = 0.0) -> Accesses:
    """The turns of a workload with times. Sizes are contexts, truncated to `window` tokens, times `unit` (bytes per token).
    `answer_s`: seconds from a turn's arrival to the end of its answer (closed loop only)."""
    history, prompt, output = contexts(workload, window)
    size = history + prompt + output
    first = workload.first_turn
    if workload.open_loop:
        time = workload.arrival_s
    else:
        answered = np.zeros(workload.turns)
        answered[1:] = np.broadcast_to(answer_s, workload.turns)[:-1]
        since = np.cumsum(np.where(workload.is_first, 0.0, workload.gap_s + answered))
        starts = first[:-1][workload.session]
        time = workload.arrival_s[starts] + since - since[starts]
    gap = np.diff(time, prepend=np.nan)
    gap[workload.is_first] = np.nan
    order = np.argsort(time, kind="stable")
    return Accesses(workload.session[order], time[order], gap[order], (history * unit)[order], (size * unit)[order])


def stack_distances(seen: Accesses, report: Callable[[int, int], None] = lambda done, total: None) -> np.ndarray:
    """int64 per access: what the distinct sessions used since the session's last turn hold, itself included; −1 for first turns.

    An LRU store of whole sessions hits exactly when its capacity is at least this (sizes as they are at each session's last turn). One pass,
    O(log n) each. Source: Mattson et al. 1970, with the tree of Bennett and Kruskal 1975.
    """
    total = len(seen.session)
    tree = [0] * (total + 1)
    last: dict[int, tuple[int, int]] = {}
    found = np.full(total, -1, np.int64)
    held = 0
    for place, (session, size) in enumerate(zip(seen.session.tolist(), seen.size.tolist(), strict=True), 1):
        if place % _REPORT_EVERY == 0:
            report(place, total)
        before = last.get(session)
        if before is not None:
            where, weight = before
            older, node = 0, where - 1
            while node:
                older += tree[node]
                node &= node - 1
            found[place - 1] = held - older
            node = where
            while node <= total:
                tree[node] -= weight
                node += node & -node
            held -= weight
        node = place
        while node <= total:
            tree[node] += size
            node += node & -node
        held += size
        last[session] = place, size
    return found


def active(seen: Accesses, span_s: float) -> tuple[int, int]:
    """(most distinct sessions, most units held by them) that had a turn within any `span_s` seconds: DSpUT, and what keeps them all.

    Source: CachedAttention section 3.3 (DSpUT: distinct sessions per unit time).
    """
    holding: dict[int, tuple[float, int]] = {}
    ends: list[tuple[float, int]] = []
    held = most = largest = 0
    for session, time, size in zip(seen.session.tolist(), seen.time_s.tolist(), seen.size.tolist(), strict=True):
        while ends and ends[0][0] < time:
            end, gone = heapq.heappop(ends)
            if holding.get(gone, (None,))[0] == end:
                held -= holding.pop(gone)[1]
        if session in holding:
            held -= holding[session][1]
        end = time + span_s
        holding[session] = end, size
        held += size
        heapq.heappush(ends, (end, session))
        most, largest = max(most, len(holding)), max(largest, held)
    return most, largest
