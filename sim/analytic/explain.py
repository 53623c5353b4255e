"""What a configuration means before it runs: sizes, times at sample points, windows, and which resource gives out first.

Everything in this room is arithmetic, without a clock: what turns ask of each resource against what the resource has. The
simulator says what really happens; `kvplan validate explain` lays the two side by side. Shares of the history that each tier serves come
from the LRU distances of the workload, replica by replica; how busy GPUs are, from turns that come at random. `limits` says in words what
a configuration has that this leaves out.

Sources: CachedAttention (USENIX ATC 2024) section 3 for S_buf and L_pw; the pipeline is `kvplan.hwmodels.steptime.pipeline_s`.
"""

from collections.abc import Callable
from typing import Any

from kvplan.sim import enginesets
from kvplan.sim.analytic.demand import cost_of, demand_of, rate_of, served_of
from kvplan.sim.analytic.expected import expected
from kvplan.sim.analytic.inblocks import blocks_of
from kvplan.sim.analytic.limits import limits
from kvplan.sim.analytic.points import points_of
from kvplan.sim.analytic.sizes import hbm_of, mean_turn, model_of, tiers_of, windows_of
from kvplan.sim.analytic.turns import turns_of
from kvplan.sim.analytic.warned import warnings_of
from kvplan.sim.config import Config, without_clients
from kvplan.sim.deployment import Deployment
from kvplan.sim.keptunit import unit_of
from kvplan.sim.moving import moving
from kvplan.traces import Workload


def explain(
    config: Config, deployment: Deployment, workload: Workload, report: Callable[[int, int], None] = lambda done, total: None
) -> dict:
    """All of it as plain data: bytes, seconds, tokens, dollars an hour. `report(done, total)` is called while distances are worked out.
    Raises ConfigError for clients, whose load follows from the answers."""
    without_clients(config, "explain works out what is asked for from when turns come")
    turns = turns_of(config, deployment, workload)
    turn = mean_turn(deployment, workload, turns.history, turns.prompt, turns.output)
    blocks = blocks_of(config, deployment, workload, turn) if deployment.pooled else {}
    hbm = hbm_of(config, deployment, turn, blocks.get("block_tokens", 1))
    most = max(round(hbm["jobs"]), 1)
    seen = expected(config, deployment, workload, turns, most, report)
    found: dict[str, Any] = {
        "engine": enginesets.described(config.resolved(), unit_of(config)),
        "model": model_of(config, deployment),
        "hbm": hbm,
        "turn": turn,
        "tiers": tiers_of(deployment, turn),
        "points": points_of(config, deployment, turn),
        "moving": moving(deployment),
        "windows": {} if deployment.pooled else windows_of(deployment, turn),
        "blocks": blocks,
        "served": served_of(deployment, seen),
        "rate": rate_of(config, workload, seen.turns),
    }
    found["demand"] = demand_of(deployment, found, seen)
    found["cost_usd_per_h"] = cost_of(config, deployment, found)
    found["limits"] = [limit._asdict() for limit in limits(config, deployment, seen)]
    found["warnings"] = list(warnings_of(config, deployment, workload, found))
    found["origin"] = dict(workload.origin)
    return found
