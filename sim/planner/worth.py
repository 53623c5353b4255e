"""From which load and which reuse on a store pays, against a baseline: by the replicas that the search found."""

from typing import Any

from kvplan.sim.planner.money import paying_hits, paying_load
from kvplan.sim.planner.plan import Answer, Plan


def break_even(plan: Plan, answer: Answer, baseline: Answer) -> dict[str, Any] | None:
    """Sessions/s from which whole replicas with the store cost less, and the token hit rate from which they do at the load asked for,
    None for a store that costs nothing more. None when one of the two has no answer."""
    if answer.replicas is None or baseline.replicas is None:
        return None
    each = [(plan.sessions_per_s / one.replicas, sum(one.usd_per_month.values())) for one in (answer, baseline)]
    hits = tuple(one.figure("hit_rate.tokens") or 0.0 for one in (baseline, answer))
    gpus = answer.replicas * answer.usd_per_month["gpu"]
    stores = answer.cost_usd_per_month - gpus
    pays = paying_hits(hits, baseline.cost_usd_per_month, gpus, stores) if stores else None
    return {"sessions_per_s": paying_load(*each), "token_hit_rate": pays}
