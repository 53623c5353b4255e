"""All that a plan says, as plain data with stable keys: what the table, the report and scripts read. docs/plans.md lists the keys."""

import math
from dataclasses import asdict
from typing import Any

from kvplan.sim import enginesets
from kvplan.sim.planner import doubt
from kvplan.sim.planner.binding import binding, shares
from kvplan.sim.planner.miss import nearest
from kvplan.sim.planner.money import PUBLIC_CACHE_PRICES, Wear, keeping, unit_costs
from kvplan.sim.planner.plan import Answer, Plan, row
from kvplan.sim.planner.probe import ttft_p95_s
from kvplan.sim.planner.regret import Offer, pareto, regrets, ties
from kvplan.sim.planner.search import Point
from kvplan.sim.planner.sensitivity import Robust, swing
from kvplan.sim.planner.worth import break_even
from kvplan.sim.report.alike import once
from kvplan.sim.report.plan_words import said

_FIGURES: tuple[str, ...] = (
    "ttft_s.mean",
    "ttft_s.p50",
    "ttft_s.p95",
    "ttft_s.p99",
    "tpot_s.mean",
    "tpot_s.p95",
    "e2e_s.mean",
    "e2e_s.p95",
    "queue_s.mean",
)
_FIGURES += ("hit_rate.tokens", "hit_rate.turns", "hit_rate.hbm", "hit_rate.dram", "hit_rate.ssd", "gpu.utilization", "output_tokens_per_s")


def account(plan: Plan) -> dict[str, Any]:
    """Of the whole plan. Numbers that are not known are None."""
    horizon = plan.config.cost.horizon_years
    miss = nearest(plan)
    return _finite(
        {
            "model": plan.config.model,
            "hardware": plan.config.hardware,
            "engine": enginesets.described(plan.question.config().resolved(), "block" if plan.of_blocks else "session"),
            "prices": plan.config.prices,
            "sessions_per_s": plan.sessions_per_s,
            "objectives": [str(each) for each in plan.question.objectives],
            "horizon_years": horizon,
            "demand": asdict(plan.demand),
            "simulations": plan.simulations,
            "cheapest": None if plan.cheapest is None else plan.cheapest.option.label,
            "nearest_miss": None if miss is None else asdict(miss),
            "pareto": [_offer(each) for each in pareto(plan)],
            "ties": [each.option.label for each in ties(plan)],
            "regrets": regrets(plan),
            "keeping": {**keeping(plan.answers[0].deployment, plan.demand), "public": PUBLIC_CACHE_PRICES},
            "words": said(plan),
            "robust": None if plan.robust is None else robust(plan.robust),
            "options": [_option(plan, answer, horizon) for answer in plan.answers],
        }
    )


def _offer(found: Offer) -> dict[str, Any]:
    return {
        "option": found.answer.option.label,
        "replicas": found.replicas,
        "usd_per_month": found.usd_per_month,
        "ttft_p95_s": found.ttft_p95_s,
    }


def robust(found: Robust) -> dict[str, Any]:
    """The tornado, those inputs first that move the cost most, and the what-ifs."""
    return {
        "unchanged": found.unchanged.data,
        "sensitivity": [
            {
                "input": next(each for each in pair if each is not None).scenario.name,
                "low": None if pair[0] is None else pair[0].data,
                "high": None if pair[1] is None else pair[1].data,
                "swing_usd_per_month": swing(found.unchanged, pair),
            }
            for pair in found.inputs
        ],
        "what_if": [each.data for each in found.what_ifs],
        "simulations": found.simulations,
    }


def _option(plan: Plan, answer: Answer, horizon: float) -> dict[str, Any]:
    """One option: `row` and all that follows from it."""
    cost, count = answer.cost_usd_per_month, doubt.replicas(answer)
    baselines = [each for each in plan.answers if each.option.baseline and each is not answer]
    labels = [each.option.label for each in baselines]
    headroom = answer.headroom
    return {
        **row(answer),
        "settings": dict(answer.option.settings),
        "replicas_interval": None if count is None else count.data,
        "gpus_of_a_replica": answer.gpus,
        "usd_per_month_of_a_replica": answer.usd_per_month,
        "usd": None if cost is None else {"per_month": cost, **unit_costs(cost, plan.demand, horizon)},
        "gpus_saved": dict(zip(labels, (doubt.saved(answer, each) for each in baselines), strict=True)),
        "usd_saved_per_month": {each.option.label: _saved_usd(answer, each) for each in baselines},
        "break_even": dict(zip(labels, (break_even(plan, answer, each) for each in baselines), strict=True)),
        "headroom": None if headroom is None else {"bears": headroom[0], "no_longer": headroom[1], "refined": answer.borne is not None},
        "binding": binding(answer),
        "resources": shares(answer),
        "wear": None if answer.wear is None else _wear(answer.wear),
        "probability": doubt.probability(answer.point),
        "judgements": _judgements(plan, answer.point),
        "figures": {key: answer.figure(key) for key in _FIGURES},
        "unloaded": list(answer.unloaded),
        "fills": answer.fills,
        "doubts": list(answer.found.doubts),
        "warnings": warnings(answer),
        "points": [_point(plan, point) for point in answer.found.points],
    }


def warnings(answer: Answer) -> list[str]:
    """What the runs at the answer warn of, once each: of those that differ in figures alone the first."""
    return once(text for each in answer.seen for text in each.warnings)


def _saved_usd(answer: Answer, baseline: Answer) -> float | None:
    mine, theirs = answer.cost_usd_per_month, baseline.cost_usd_per_month
    return None if mine is None or theirs is None else theirs - mine


def _wear(worn: Wear) -> dict[str, Any]:
    return {**asdict(worn), "too_short": worn.too_short, "replacements": worn.replacements}


def _judgements(plan: Plan, point: Point | None) -> list[dict[str, Any]]:
    """Per objective, what the runs at a point say."""
    if point is None:
        return []
    return [
        {"objective": str(objective), **asdict(found), "meets": found.meets}
        for objective, found in zip(plan.question.objectives, point.judgements, strict=False)
    ]


def _point(plan: Plan, point: Point) -> dict[str, Any]:
    """One number of replicas that was looked at: for TTFT against load."""
    ttft = [seen.figures["ttft_s.p95"] for seen in point.seen if seen.figures.get("ttft_s.p95") is not None]
    hits = [seen.figures["hit_rate.tokens"] for seen in point.seen if "hit_rate.tokens" in seen.figures]
    return {
        "replicas": point.replicas,
        "sessions_per_s_of_a_replica": plan.sessions_per_s / point.replicas,
        "runs": len(point.seen),
        "within": point.within,
        "meets": point.meets,
        "ended_early": point.hopeless,
        "rising": point.rising,
        "ttft_p95_s": ttft_p95_s(point.seen),
        "ttft_p95_range_s": [min(ttft), max(ttft)] if ttft else None,
        "token_hit_rate": sum(hits) / len(hits) if hits else None,
        "values": [each.value for each in point.judgements],
    }


def _finite(value: Any) -> Any:
    """The same, with None for what is infinite or no number."""
    if isinstance(value, dict):
        return {key: _finite(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
