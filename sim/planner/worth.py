"""From which load and which reuse on a store pays, against a baseline: by the replicas that the search found."""

from typing import Any

from kvplan.sim.planner.money import paying_hits, paying_load
from kvplan.sim.planner.plan import Answer, Plan


def break_even(plan: Plan, answer: Answer, baseline: Answer) -> dict[str, Any] | None:
    """Sessions/s from which whole replicas with the store cost less, and the token hit rate from which they do at the load asked for,
    None for a store that costs nothing more. None when one of the two has no answer."""
    mine, theirs = answer.met, baseline.met
    if mine is None or theirs is None:
        return None
    with_store = plan.sessions_per_s / mine.replicas, sum(answer.usd_per_month.values())
    without = plan.sessions_per_s / theirs.replicas, sum(baseline.usd_per_month.values())
    hits = baseline.figure("hit_rate.tokens") or 0.0, answer.figure("hit_rate.tokens") or 0.0
    gpus = mine.replicas * answer.usd_per_month["gpu"]
    stores = mine.usd_per_month - gpus
    pays = paying_hits(hits, theirs.usd_per_month, gpus, stores) if stores else None
    return {"sessions_per_s": paying_load(with_store, without), "token_hit_rate": pays}
