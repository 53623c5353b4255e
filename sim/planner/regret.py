"""What the sizes next to the cheapest would have cost, which options nobody should take, and which are all the same."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from kvplan.hwmodels.units import parse_bytes
from kvplan.sim.planner.doubt import apart
from kvplan.sim.planner.plan import Answer, Plan
from kvplan.sim.planner.probe import ttft_p95_s
from kvplan.sim.planner.search import Point


@dataclass(frozen=True)
class Offer:
    """An option with a number of replicas that meets the objectives: its fewest, or more that were looked at."""

    answer: Answer
    replicas: int
    ttft_p95_s: float

    @property
    def usd_per_month(self) -> float:
        """Of all replicas."""
        return self.replicas * sum(self.answer.usd_per_month.values())


def pareto(plan: Plan) -> list[Offer]:
    """Those that no other beats in both cost and TTFT p95, cheapest first: more replicas of a cheap store may beat a dearer one."""
    front: list[Offer] = []
    for offer in sorted(_offers(plan), key=lambda each: (round(each.usd_per_month, 2), each.ttft_p95_s)):
        if not front or offer.ttft_p95_s < front[-1].ttft_p95_s:
            front.append(offer)
    return front


def _offers(plan: Plan) -> Iterator[Offer]:
    for answer in plan.answers:
        for point in _enough(answer):
            ttft = ttft_p95_s(point.seen)
            if ttft is not None:
                yield Offer(answer, point.replicas, ttft)


def _enough(answer: Answer) -> list[Point]:
    """What was seen at the answer, and at more replicas that meet the objectives."""
    least = answer.replicas
    if least is None:
        return []
    return [each for each in answer.found.points if each.replicas == least or (each.replicas > least and each.within)]


def regrets(plan: Plan) -> list[dict[str, Any]]:
    """For each size of the cheapest the next smaller and the next larger one that were tried, with all else as it is."""
    best = plan.cheapest
    if best is None:
        return []
    return [_regret(best, path, step, other) for path, step, other in _neighbours(best, plan.answers)]


def ties(plan: Plan) -> list[Answer]:
    """Options whose cost cannot be told from the cheapest's."""
    best = plan.cheapest
    return [] if best is None else [each for each in plan.answers if each is not best and not apart(best, each)]


def faster(one: Answer, other: Answer) -> bool:
    """Whether its TTFT p95 is lower, in all runs together and in each that both have: replications are paired."""
    seen = [(one.seen, other.seen), *(((mine,), (theirs,)) for mine, theirs in zip(one.seen, other.seen, strict=False))]
    both = [(ttft_p95_s(mine), ttft_p95_s(theirs)) for mine, theirs in seen]
    return all(mine is not None and theirs is not None and mine < theirs for mine, theirs in both)


def _neighbours(best: Answer, answers: tuple[Answer, ...]) -> Iterator[tuple[str, str, Answer]]:
    for path, text in best.option.settings:
        size = _number(text)
        if size is None:
            continue
        others = [(_number(dict(each.option.settings)[path]), each) for each in answers if _differs_in(each, best, path)]
        along = [(found, each) for found, each in others if found is not None]
        smaller = [each for each in along if each[0] < size]
        larger = [each for each in along if each[0] > size]
        if smaller:
            yield path, "smaller", max(smaller, key=lambda each: each[0])[1]
        if larger:
            yield path, "larger", min(larger, key=lambda each: each[0])[1]


def _differs_in(other: Answer, best: Answer, path: str) -> bool:
    mine, theirs = dict(best.option.settings), dict(other.option.settings)
    return mine.keys() == theirs.keys() and {name for name in mine if mine[name] != theirs[name]} == {path} and not other.option.baseline


def _number(text: str) -> float | None:
    """A size or a number that options can be ordered by."""
    for read in (parse_bytes, float):
        try:
            return read(text)
        except ValueError:
            continue
    return None


def _regret(best: Answer, path: str, step: str, other: Answer) -> dict[str, Any]:
    return {
        "path": path,
        "step": step,
        "option": other.option.label,
        "feasible": other.replicas is not None,
        "told_apart": apart(best, other),
        "gpus_more": more(best.all_gpus, other.all_gpus),
        "usd_per_month_more": more(best.cost_usd_per_month, other.cost_usd_per_month),
    }


def more(best: float | None, other: float | None) -> float | None:
    """By how much the other is more; None when one of the two is not known."""
    return None if best is None or other is None else other - best
