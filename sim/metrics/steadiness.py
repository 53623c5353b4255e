"""Whether a run is steady enough to be judged: a server that keeps up, a load that does not still rise, tiers that are full.

The load is looked at from the end of the warm-up to the last arrival (closed loop: of a session), in ten parts. It rises when Kendall's
rank correlation with time is as high as that of independent levels is once in 200 times; a warning also asks for a rise that matters,
because the levels of a stable queue are not independent. Left out: loads that swing with the time of day.

Source: Kendall, "A new measure of rank correlation", Biometrika 30, 1938 (S >= 29 of 10 ranks: p = 0.0046, one-sided).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations, pairwise

import numpy as np

from kvplan.hwmodels.units import format_bytes, format_seconds
from kvplan.traces import Workload

_PARTS = 10
_RISE = 29
_FEWEST_TURNS = 100
_GROWTH = 2.0
"""Second half over first half of the turns in the server, from which on latency depends on the length of the run."""
_FALL = 0.8
"""The same over that of the turns that come, from which down a run is still that of a server which starts with nothing stored."""
_RAMP = 1.5
"""The same of the sessions that are open, from which on the load is not yet that of a service which goes on."""
_DRAIN = 1 / 3
"""Share of the turns that come after the last arrival of a session, from which on the same is said."""
_FULL = 0.9
"""Share of what a tier may hold that counts as full."""
_LATE = 0.5
"""Share of the run, below which being full counts as late."""


@dataclass(frozen=True)
class Span:
    """What a run did between the end of its warm-up and the last arrival."""

    start_s: float
    last_s: float
    arrival_s: np.ndarray
    """Per turn; so are the next two."""
    admitted_s: np.ndarray
    done_s: np.ndarray
    opened_s: np.ndarray
    """Per session: when its first turn came; and when its last one was done."""
    closed_s: np.ndarray
    slots: int
    """Jobs that can run at once, on all replicas."""

    @classmethod
    def of(cls, columns: Mapping[str, np.ndarray], workload: Workload, start_s: float, slots: int) -> "Span":
        """Of the recorder's columns."""
        arrival, done = columns["arrival_s"], columns["done_s"]
        firsts, lasts = workload.first_turn[:-1], workload.first_turn[1:] - 1
        last_s = float((arrival if workload.open_loop else arrival[firsts]).max())
        return cls(start_s, last_s, arrival, columns["admitted_s"], done, arrival[firsts], done[lasts], slots)

    def levels(self, begin_s: np.ndarray, end_s: np.ndarray) -> np.ndarray:
        """How many of these lasted on average, in each part of the span."""
        edges = np.linspace(self.start_s, self.last_s, _PARTS + 1)
        return np.array([_overlap_s(begin_s, end_s, *part).sum() / (part[1] - part[0]) for part in pairwise(edges)])

    def arrivals(self) -> np.ndarray:
        """How many turns came in each part of the span."""
        return np.histogram(self.arrival_s, np.linspace(self.start_s, self.last_s, _PARTS + 1))[0]


def _overlap_s(begin_s: np.ndarray, end_s: np.ndarray, begin: float, end: float) -> np.ndarray:
    lasted = np.minimum(end_s, end)
    lasted -= np.maximum(begin_s, begin)
    return np.clip(lasted, 0, None, out=lasted)


def load_warnings(span: Span) -> list[str]:
    """What the course of the load makes of the latencies, in at most two sentences."""
    waiting = int(((span.arrival_s <= span.last_s) & (span.admitted_s > span.last_s)).sum())
    within = (span.arrival_s >= span.start_s) & (span.arrival_s <= span.last_s)
    if span.last_s <= span.start_s or within.sum() < _FEWEST_TURNS:
        return [_overloaded(f"{waiting:,} turns waited")] if waiting > 10 * span.slots else []
    turns, sessions = span.levels(span.arrival_s, span.done_s), span.levels(span.opened_s, span.closed_s)
    thinking = _growth(np.maximum(sessions - turns, 0))
    late = within & (span.arrival_s > (span.start_s + span.last_s) / 2)
    waits = (span.admitted_s - span.arrival_s)[late].mean() > (span.done_s - span.admitted_s)[late].mean()
    found = []
    if _rises(turns) and waits:
        found.append(_overloaded(f"the queue grew all the time, to {waiting:,} turns"))
    elif _rises(turns) and _growth(turns) >= _GROWTH * max(1.0, thinking / _RAMP):
        first, second = np.mean(turns[: _PARTS // 2]), np.mean(turns[_PARTS // 2 :])
        found.append(
            f"not steady: the turns in the server grew all the time, from {first:.3g} in the first half to {second:.3g} in the second, so"
            " latency depends on how long the run is"
        )
    elif _rises(-turns) and _growth(turns) <= _FALL * _growth(span.arrivals()):
        first, second = np.mean(turns[: _PARTS // 2]), np.mean(turns[_PARTS // 2 :])
        found.append(
            f"not steady: the turns in the server fell all the time, from {first:.3g} in the first half to {second:.3g} in the second, and"
            " the load did not fall so: latency is that of a start with empty stores; more sessions and a longer warmup_turns leave it out"
        )
    drained = float((span.arrival_s > span.last_s).mean())
    if not found and (drained > _DRAIN or (_rises(sessions) and thinking >= _RAMP)):
        found.append(
            f"too short to be steady: sessions arrive for {format_seconds(span.last_s - span.start_s)} and last for"
            f" {format_seconds(float(span.done_s.max()) - span.last_s)} more ({drained:.0%} of the turns come then), so the load is less"
            " than that of a service which goes on; simulate more sessions"
        )
    return found


def rising(span: Span, growth: float) -> bool:
    """Whether the turns in the server grow all the time, by more than that from the first half to the second."""
    turns = span.levels(span.arrival_s, span.done_s)
    return span.last_s > span.start_s and _rises(turns) and _growth(turns) >= growth


def _overloaded(how: str) -> str:
    return (
        f"overloaded: {how} when the last session arrived, so queueing and TTFT depend on how long the run is; compare prefill, throughput"
        " and cost"
    )


def _rises(levels: np.ndarray) -> bool:
    return sum(np.sign(after - before) for before, after in combinations(levels, 2)) >= _RISE


def _growth(levels: np.ndarray) -> float:
    """Second half over first half; 1 for levels that are nought."""
    first, second = levels[: _PARTS // 2].sum(), levels[_PARTS // 2 :].sum()
    return float(second / first) if first else 1.0


def outstanding(sent_s: np.ndarray, done_s: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(times, how many turns are sent and not answered from then on); at one instant answers come before turns that are sent."""
    times = np.append(done_s, sent_s)
    change = np.append(np.full(len(done_s), -1), np.ones(len(sent_s), int))
    order = np.lexsort((change, times))
    return times[order], np.cumsum(change[order])


def drain_warnings(most: int, sent_s: np.ndarray, done_s: np.ndarray, start_s: float) -> list[str]:
    """Of a closed population: that sessions ran out long before the end, so that fewer than `most` turns were outstanding."""
    times, level = outstanding(sent_s, done_s)
    full = np.flatnonzero(level >= most)
    if not full.size:
        return []  # pauses, or the pace, keep it below
    drained = float((times[-1] - max(times[full[-1] + 1], start_s)) / (times[-1] - start_s))
    return [
        f"in the last {drained:.0%} of the run fewer than {most:,} turns were outstanding, because sessions had run out: the load is less"
        " than that of a test which goes on; simulate more sessions"
    ] * (drained > _DRAIN)


def tier_warnings(name: str, size: int, room: int, start_s: float, time_s: np.ndarray, held: np.ndarray) -> list[str]:
    """What a tier's bytes over time say of its size: `held`, of `size` of which it may fill `room`, at the times `time_s` to the run's
    end; all of it over all replicas."""
    measured = time_s >= start_s
    time_s, held = time_s[measured], held[measured]
    if len(held) < 2 or not room:
        return []
    full = np.flatnonzero(held >= _FULL * room)
    if full.size:
        since = float((time_s[-1] - time_s[full[0]]) / (time_s[-1] - start_s))
        late = f"{name} filled up late: it was full in the last {since:.0%} of the run only, so hits are those of a larger one"
        return [late] if since < _LATE else []
    if held[-1] <= 1.1 * np.interp((start_s + time_s[-1]) / 2, time_s, held):
        return []
    return [f"{name} never filled ({format_bytes(int(held.max()))} of {format_bytes(size)}, and rising): this run cannot judge its size"]


def held(series: Mapping[str, np.ndarray], tier: str, replicas: int) -> tuple[np.ndarray, np.ndarray]:
    """(times, bytes in a tier of all replicas together) from a run's samples, which are of one replica each."""
    last, total, totals = [0] * replicas, 0, []
    for replica, size in zip(series["replica"].tolist(), series[f"{tier}_bytes"].tolist(), strict=True):
        total += size - last[replica]
        last[replica] = size
        totals.append(total)
    return series["time_s"], np.array(totals)
