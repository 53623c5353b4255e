"""Without a plan: which option came nearest to the objectives, and what it lacks."""

import math
from dataclasses import dataclass

from kvplan.hwmodels.units import format_seconds
from kvplan.sim.counted import counted
from kvplan.sim.planner.objective import Objective
from kvplan.sim.planner.plan import Answer, Plan
from kvplan.sim.planner.search import Point


@dataclass(frozen=True)
class Miss:
    """An option that does not meet an objective."""

    option: str
    objective: str
    replicas: int | None
    """What was tried at most; None where no number of replicas helps."""
    value: float | None
    """Of the objective's figure, in its unit; None where the runs were ended early."""
    limit: float
    off: float
    """How many times the limit it is; infinite where it was not measured."""
    lacks: str
    """In words."""


def nearest(plan: Plan) -> Miss | None:
    """The least miss of all options; None when there is a plan."""
    if plan.cheapest is not None:
        return None
    return min((_miss(plan, answer) for answer in plan.answers), key=lambda miss: miss.off)


def _miss(plan: Plan, answer: Answer) -> Miss:
    """The objective that an option is furthest from."""
    objectives = plan.question.objectives
    tried = max(answer.found.points, key=lambda point: point.replicas, default=None)
    values = [_value(place, tried, answer) for place in range(len(objectives))]
    offs = [_off(each, value) for each, value in zip(objectives, values, strict=True)]
    worst = max(range(len(objectives)), key=lambda place: offs[place])
    objective, value = objectives[worst], values[worst]
    if offs[worst] <= 1:
        return Miss(answer.option.label, str(objective), None, value, objective.limit, offs[worst], answer.found.reason or "")
    count = None if tried is None else tried.replicas
    return Miss(answer.option.label, str(objective), count, value, objective.limit, offs[worst], _lacks(objective, value, count))


def _value(place: int, tried: Point | None, answer: Answer) -> float | None:
    if tried is None:
        return answer.unloaded[place]
    return tried.judgements[place].value if tried.judgements else None


def _off(objective: Objective, value: float | None) -> float:
    if value is None or math.isnan(value):
        return math.inf
    if objective.at_least:
        return objective.limit / value if value else math.inf
    return value / objective.limit


def _lacks(objective: Objective, value: float | None, replicas: int | None) -> str:
    where = "with any number of replicas" if replicas is None else f"with {counted(replicas, 'replica')}"
    if value is None:
        return f"{where} more turns are over the limit than may be: its runs were ended early"
    if objective.at_least:
        return f"{where} it gives {value:.1%} and lacks {objective.limit - value:.1%}"
    return f"{where} it takes {format_seconds(value)}, {format_seconds(value - objective.limit)} too long"
