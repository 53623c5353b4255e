"""A plan held against everything else that may be true: a tornado of inputs and a table of what-ifs, by planning again."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from kvplan.hwmodels import CatalogueError
from kvplan.sim.config import ConfigError
from kvplan.sim.planner import load
from kvplan.sim.planner.plan import Answer, Plan, Side, drive, rank
from kvplan.sim.planner.question import Option, Question, options
from kvplan.sim.planner.scenario import UNCHANGED, Scenario, inputs, what_ifs
from kvplan.sim.sweep.pool import Pool
from kvplan.traces import TraceError


@dataclass(frozen=True)
class Outcome:
    """What is cheapest in a scenario, and what the best baseline costs then."""

    scenario: Scenario
    best: Answer | None
    baseline: Answer | None
    reason: str | None = None
    """Why nothing came of it."""

    @property
    def data(self) -> dict[str, Any]:
        """Plain."""
        mine, theirs = (None if each is None else each.cost_usd_per_month for each in (self.best, self.baseline))
        return {
            "input": self.scenario.name,
            "change": self.scenario.change,
            "cheapest": None if self.best is None else self.best.option.label,
            "gpus": None if self.best is None else self.best.all_gpus,
            "usd_per_month": mine,
            "baseline": None if self.baseline is None else self.baseline.option.label,
            "baseline_gpus": None if self.baseline is None else self.baseline.all_gpus,
            "baseline_usd_per_month": theirs,
            "saved_share": None if not mine or not theirs else 1 - mine / theirs,
            "reason": self.reason,
        }


@dataclass(frozen=True)
class Robust:
    """What a plan becomes."""

    unchanged: Outcome
    """The plan, searched for as the scenarios are."""
    inputs: tuple[tuple[Outcome | None, Outcome | None], ...]
    """(low, high), those first that move the cost most."""
    what_ifs: tuple[Outcome, ...]
    simulations: int


def robustness(plan: Plan, pool: Pool | None = None, progress: Callable[[int, int], None] = lambda done, total: None) -> Robust:
    """Of a plan that has a cheapest. `progress` as for `plan`. Raises PolicyError."""
    pairs, more = inputs(plan.config), what_ifs(plan.config)
    scenarios = [UNCHANGED, *(each for pair in pairs for each in pair if each is not None), *more]
    asked = _asked(plan)
    searched = {each: _searches(plan, asked, each) for each in scenarios if not each.prices}
    sides = [side for found in searched.values() if not isinstance(found, str) for side in found]
    simulations = drive(sides, pool or Pool(), progress)
    outcomes = {each: _recosted(plan, each) if each.prices else _outcome(each, searched[each]) for each in scenarios}

    def end(scenario: Scenario | None) -> Outcome | None:
        return None if scenario is None else outcomes[scenario]

    tornado = [(end(low), end(high)) for low, high in pairs]
    unchanged = outcomes[UNCHANGED]
    tornado.sort(key=lambda pair: -swing(unchanged, pair))
    return Robust(unchanged, tuple(tornado), tuple(outcomes[each] for each in more), simulations)


def swing(unchanged: Outcome, pair: Sequence[Outcome | None]) -> float:
    """Dollars a month between the ends of an input, an end that is not there being `unchanged`; infinite where an end has no plan."""
    costs = [_cost(one or unchanged) for one in pair]
    return max(costs) - min(costs) if min(costs) < float("inf") else float("inf")


def _cost(outcome: Outcome) -> float:
    """Dollars a month; infinite without a plan."""
    usd = None if outcome.best is None else outcome.best.cost_usd_per_month
    return float("inf") if usd is None else usd


def best_baseline(plan: Plan) -> Answer | None:
    """The cheapest without DRAM and SSD."""
    return min((each for each in plan.answers if each.option.baseline and each.replicas is not None), key=rank, default=None)


def _asked(plan: Plan) -> list[tuple[Option, int]]:
    """The cheapest option and the best baseline, and how many replicas each takes."""
    best = plan.cheapest
    both = (best,) if best is None or best.option.baseline else (best, best_baseline(plan))
    return [(each.option, each.replicas) for each in both if each is not None and each.replicas is not None]


def _searches(plan: Plan, asked: Sequence[tuple[Option, int]], scenario: Scenario) -> "list[Side] | str":
    """Of these options, near so many replicas of each; or why there are none."""
    question = replace(plan.question, overrides=(*plan.question.overrides, *scenario.overrides))
    try:
        population = load.population(question.config(asked[0][0]))
        rate = plan.sessions_per_s * scenario.load
        return [Side(question, _option(question, option), population, rate, round(scenario.start * count)) for option, count in asked]
    except (ConfigError, CatalogueError, TraceError) as error:
        return str(error)


def _option(question: Question, option: Option) -> Option:
    """The same option; a baseline's size follows the node."""
    return next((each for each in options(question) if each.label == option.label), option) if option.baseline else option


def _outcome(scenario: Scenario, found: "list[Side] | str") -> Outcome:
    if isinstance(found, str):
        return Outcome(scenario, None, None, found)
    return _of(scenario, [side.answer() for side in found])


def _of(scenario: Scenario, answers: list[Answer]) -> Outcome:
    feasible = [each for each in answers if each.replicas is not None]
    baseline = min((each for each in feasible if each.option.baseline), key=rank, default=None)
    reason = None if feasible else "; ".join(f"{each.option.label}: {each.found.reason}" for each in answers)
    return Outcome(scenario, min(feasible, key=rank, default=None), baseline, reason)


def _recosted(plan: Plan, scenario: Scenario) -> Outcome:
    factors = dict(scenario.prices)
    answers = [
        replace(each, usd_per_month={name: usd * factors.get(name, 1.0) for name, usd in each.usd_per_month.items()})
        for each in plan.answers
    ]
    return _of(scenario, answers)
