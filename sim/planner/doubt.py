"""How sure an answer is: the replicas that the intervals allow, GPUs saved with that interval, and what cannot be told apart."""

from dataclasses import dataclass

from kvplan.sim.planner.plan import Answer
from kvplan.sim.planner.search import Point

_Z = 1.959964
"""Half widths are of 95 % intervals: so many standard errors."""


@dataclass(frozen=True)
class Bracket:
    """A whole number, the least that it may be, and the most; None where nothing that was looked at bounds it."""

    value: int
    low: int
    high: int | None

    def overlaps(self, other: "Bracket") -> bool:
        """Whether the two may be the same number."""
        return (other.high is None or self.low <= other.high) and (self.high is None or other.low <= self.high)

    def times(self, factor: int) -> "Bracket":
        """So many of each."""
        return Bracket(self.value * factor, self.low * factor, None if self.high is None else self.high * factor)

    @property
    def data(self) -> dict[str, int | None]:
        """Plain."""
        return {"value": self.value, "low": self.low, "high": self.high}


def replicas(answer: Answer) -> Bracket | None:
    """From one more than the most that surely fail to the fewest that surely meet the objectives; None without an answer."""
    count = answer.replicas
    if count is None:
        return None
    below = [point for point in answer.found.points if point.replicas < count]
    fails = [point.replicas for point in below if point.meets is False]
    doubtful = [point.replicas for point in below if point.meets is not False]
    meets = [point.replicas for point in answer.found.points if point.replicas >= count and point.meets]
    return Bracket(count, max(fails) + 1 if fails else min(doubtful, default=count), min(meets, default=None))


def saved(answer: Answer, baseline: Answer) -> dict[str, int | None] | None:
    """GPUs that an option saves, at least and at most; None when one of the two has no answer."""
    mine, theirs = replicas(answer), replicas(baseline)
    if mine is None or theirs is None:
        return None
    mine, theirs = mine.times(answer.gpus), theirs.times(baseline.gpus)
    return {
        "value": theirs.value - mine.value,
        "low": None if mine.high is None else theirs.low - mine.high,
        "high": None if theirs.high is None else theirs.high - mine.low,
    }


def probability(point: Point | None) -> float | None:
    """That the objectives hold at a point, as far as its runs tell: the least over the objectives, each by its standard error (normal;
    confidence, as for a normal prior that says nothing). None where nothing was measured."""
    from scipy.special import ndtr

    if point is None:
        return None
    if point.hopeless or point.rising:
        return 0.0
    errors = [(each.lead, each.half_width / _Z) for each in point.judgements]
    return min((float(ndtr(lead / error)) if error else float(lead >= 0) for lead, error in errors), default=None)


def apart(one: Answer, other: Answer) -> bool:
    """Whether the costs of two options can be told apart, by the replicas that their intervals allow."""
    mine, theirs = cost(one), cost(other)
    return mine is None or theirs is None or _below(mine, theirs) or _below(theirs, mine)


def cost(answer: Answer) -> tuple[float, float | None] | None:
    """Dollars a month, at least and at most; None without an answer."""
    count, each = replicas(answer), sum(answer.usd_per_month.values())
    if count is None:
        return None
    return count.low * each, None if count.high is None else count.high * each


def _below(one: tuple[float, float | None], other: tuple[float, float | None]) -> bool:
    """Surely, by more than a cent."""
    return one[1] is not None and one[1] + 0.01 < other[0]
