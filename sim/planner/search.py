"""The fewest replicas that meet the objectives with one kind of store: bisection over whole numbers, each probe with paired seeds.

A search is a generator: it yields the probes that it wants to see, gets what they gave, and returns what it found. So many searches share
one pool of processes, and what each finds does not depend on the order in which results come.

Meeting an objective is monotone in the load only in expectation. So a probe is repeated with other seeds until its interval excludes the
target, or `most` replications are done; both sides of the answer, N and N - 1, are looked at at least twice; and a verdict that contradicts
another is reported as a doubt.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from kvplan.sim.planner.objective import Judgement, Objective, judge
from kvplan.sim.planner.probe import Probe, Seen

AT_LEAST = 2
"""Replications on both sides of the answer."""

Wanted = list[tuple[int, int]]
"""(replicas, replication) of the probes that a search wants to see next."""
Search = Generator[Wanted, list[Seen], "Fewest"]


class Fed(ABC):
    """Who has a search, and gives it what it wants to see until it has found something."""

    _search: Generator[list, list[Seen], Any]
    found: Any

    @abstractmethod
    def begin(self) -> Sequence[tuple[float, int]]:
        """The first probes that it wants: (replicas, replication) each."""

    @abstractmethod
    def fail(self, reason: str) -> None:
        """A run could not be done."""

    @abstractmethod
    def probe(self, replicas: float, replication: int) -> Probe:
        """Of one replica of so many."""

    def go_on(self, seen: Sequence[Seen]) -> list:
        """The next probes that it wants; none when it has found its answer."""
        try:
            return self._search.send(list(seen))
        except StopIteration as end:
            self.found = end.value
            return []


class Side(Protocol):
    """Who makes probes of an option."""

    def probe(self, replicas: float, replication: int) -> Probe:
        """Of one replica of so many."""


class Onward(Fed):
    """A search that goes on from what is known of a side, and leaves that as it is where it wants nothing, or where a run fails."""

    def __init__(self, side: Side, search: Generator[list, list[Seen], Any], known: Any) -> None:
        self._side, self._search, self.found = side, search, known

    def begin(self) -> Sequence[tuple[float, int]]:
        return next(self._search, [])

    def fail(self, reason: str) -> None:
        """What is known stays."""

    def probe(self, replicas: float, replication: int) -> Probe:
        return self._side.probe(replicas, replication)


@dataclass(frozen=True)
class Point:
    """What is known of one number of replicas."""

    replicas: int
    seen: tuple[Seen, ...]
    judgements: tuple[Judgement, ...]
    """Per objective; empty when every run was ended early."""

    @property
    def hopeless(self) -> bool:
        """Whether a run could not meet the objectives and was ended early."""
        return any(each.samples is None for each in self.seen)

    @property
    def rising(self) -> bool:
        """Whether ever more turns were in the server, in most of the runs."""
        return bool(2 * sum(each.rising for each in self.seen) > len(self.seen))

    @property
    def meets(self) -> bool | None:
        """Yes, no, or None: cannot be told from these runs."""
        if self.hopeless or self.rising:
            return False
        verdicts = [judgement.meets for judgement in self.judgements]
        return False if False in verdicts else None if None in verdicts else True

    @property
    def within(self) -> bool:
        """The better guess."""
        return not self.hopeless and not self.rising and all(judgement.within for judgement in self.judgements)


@dataclass(frozen=True)
class Fewest:
    """What a search found."""

    replicas: int | None
    """None: no number of replicas up to the most that were tried meets the objectives."""
    points: tuple[Point, ...]
    """All that was looked at, by number of replicas."""
    reason: str | None = None
    """Why there is none."""
    failed: bool = False
    """Whether a run could not be done: nothing is known of this kind of store."""

    def at(self, replicas: int) -> Point | None:
        """What is known of that number."""
        return next((point for point in self.points if point.replicas == replicas), None)

    @property
    def doubts(self) -> tuple[str, ...]:
        """What could not be told, or contradicts itself."""
        if self.replicas is None:
            return ()
        points = [point for replicas in (self.replicas - 1, self.replicas) if (point := self.at(replicas)) is not None]
        unclear = [str(point.replicas) for point in points if point.meets is None]
        found = [f"{' and '.join(unclear)} may meet it or not"] if unclear else []
        failing = [point.replicas for point in self.points if not point.within and point.replicas > self.replicas]
        if failing:
            found.append(f"{failing[0]} replicas failed, though {self.replicas} meet it: not monotone")
        return tuple(found)


def judged(objectives: Sequence[Objective], replicas: int, seen: Sequence[Seen]) -> Point:
    """What so many replicas' runs say of the objectives."""
    samples = [run.samples for run in seen if run.samples is not None]
    complete = samples and len(samples) == len(seen)
    judgements = (judge(each, [run[place] for run in samples]) for place, each in enumerate(objectives))
    return Point(replicas, tuple(seen), tuple(judgements) if complete else ())


def fewest(objectives: Sequence[Objective], start: int, least: int, limit: int, most: int) -> Search:
    """Bisects for the fewest replicas: at least `least`, which a bound gives, at most `limit`; begins at `start`; `most` replications a
    point."""
    known: dict[int, list[Seen]] = {}

    def point(replicas: int) -> Point:
        return judged(objectives, replicas, known.get(replicas, []))

    def asked(replicas: int, repeats: int) -> Generator[Wanted, list[Seen], bool]:
        while len(known.get(replicas, ())) < repeats or (point(replicas).meets is None and len(known[replicas]) < most):
            count = len(known.setdefault(replicas, []))
            if count and point(replicas).hopeless:
                break
            known[replicas] += yield [(replicas, each) for each in range(count, max(repeats, count + 1))]
        return point(replicas).within

    low, high = max(least - 1, 0), None
    """No fewer replicas than `low` + 1, no more than `high` are the answer."""
    place = min(max(start, least), limit)
    while high is None or high - low > 1:
        if (yield from asked(place, 1)):
            high = place
        else:
            low = place
        if high is None and low >= limit:
            points = tuple(point(replicas) for replicas in sorted(known))
            return Fewest(None, points, f"{limit} replicas do not meet it either")
        place = _next(low, high, limit)
    for replicas in (high, high - 1):
        if replicas >= max(least, 1):
            good = yield from asked(replicas, AT_LEAST)
            if replicas == high and not good:
                return (yield from _upwards(high, limit, asked, point, known))
    return Fewest(high, tuple(point(replicas) for replicas in sorted(known)))


def _next(low: int, high: int | None, limit: int) -> int:
    """Where to look: between the two in the middle of their logarithms, or further up by a third."""
    if high is None:
        return min(limit, max(low + 1, math.ceil(low * 4 / 3)))
    return min(high - 1, max(low + 1, round(math.sqrt(max(low, 1) * high)))) if high - low > 1 else low


def _upwards(high: int, limit: int, asked: Callable, point: Callable, known: dict) -> Search:
    """More seeds spoke against the answer: the next number that they speak for."""
    for replicas in range(high + 1, limit + 1):
        if (yield from asked(replicas, AT_LEAST)):
            return Fewest(replicas, tuple(point(each) for each in sorted(known)))
    return Fewest(None, tuple(point(each) for each in sorted(known)), f"{limit} replicas do not meet it either")
