"""What turns ask of each resource against what it has, which gives out first, and what that costs."""

from dataclasses import replace

import numpy as np

from kvplan.sim.analytic.expected import Expected
from kvplan.sim.analytic.turns import Turns
from kvplan.sim.analytic.work import read_of
from kvplan.sim.config import Config
from kvplan.sim.deployment import Deployment
from kvplan.traces import Workload
from kvplan.traces.generate.steady import begun

_MIDDLE = (0.05, 0.95)
"""Turns within these quantiles of time tell the rate: a few late sessions do not stretch it."""
_HOLDS_UP = ("GPU", "host to GPU", "GPU to host")
"""Resources that turns wait for, beside reads over a tier's own links. A save that those cannot write in time is skipped instead."""


def served_of(deployment: Deployment, seen: Expected) -> dict:
    """Shares that an LRU store of these tiers serves from each, and loses: of the history tokens, or with blocks of all prompt tokens, as
    those of others serve new ones too."""
    served, turns = seen.work.served, seen.walked
    total = max(float((turns.history + turns.prompt if deployment.pooled else turns.history).sum()), 1.0)
    found = {name: float(tokens.sum()) / total for name, tokens in zip(deployment.sizes, served.tokens, strict=True)}
    found |= {"lost": 1.0 - float(served.cached.sum()) / total}
    return found if seen.most_share is None else found | {"at_most": seen.most_share}


def rate_of(config: Config, workload: Workload, turns: Turns) -> dict:
    """What arrives at one replica. Sessions may begin within minutes and go on for hours, so turns are counted over their own time;
    `steady` is what would come if sessions kept arriving."""
    replicas, sessions = config.deployment.replicas, begun(workload)
    span = float(np.ptp(workload.arrival_s[workload.first_turn[:-1]]))
    low, high = _MIDDLE
    middle = float(np.ptp(np.quantile(turns.time_s, _MIDDLE)))
    begin_per_s = (sessions - 1) / span / replicas if span else 0.0
    return {
        "sessions_per_s": begin_per_s,
        "turns_per_s": (high - low) * (workload.turns - 1) / middle / replicas if middle else 0.0,
        "steady_turns_per_s": begin_per_s * workload.turns / sessions,
        "span_s": span,
        "turns_span_s": float(np.ptp(turns.time_s)),
    }


def demand_of(deployment: Deployment, found: dict, seen: Expected) -> dict:
    """Seconds that the mean turn takes of each resource, in full batches, and the share of it that the given rate uses up; and the shares
    of the whole run in which it will be busy, in batches as they come."""
    full, rate = seen.server, found["rate"]["turns_per_s"]
    without = replace(full, alone_s=seen.recomputing_s)
    seconds = {"GPU, recomputing": 1 / without.most_per_s, "GPU": 1 / full.most_per_s, **seen.work.links_s}
    resources = {
        name: {"seconds_per_turn": used, "turns_per_s": 1 / used if used else None, "utilization": used * rate}
        for name, used in seconds.items()
    }
    real = (*_HOLDS_UP, *map(read_of, deployment.links)) if deployment.tiers else ("GPU, recomputing",)
    return {
        "resources": resources,
        "decode_s": full.steps * full.step_s(full.most) / full.most,
        "first": max(real, key=lambda name: resources[name]["utilization"]),
        "batch": full.most,
        "busy": seen.busy,
        "jobs": seen.jobs,
    }


def cost_of(config: Config, deployment: Deployment, found: dict) -> dict:
    """Dollars an hour of one replica by the clock, and the share of a turn's GPU time that the cache must save, and does."""
    rates = deployment.rates
    gpu = 3600 * rates.pop("gpu")
    storage = 3600 * (sum(rates.values()) + sum(deployment.rents.values()))
    resources = found["demand"]["resources"]
    return {
        "gpus": gpu,
        "storage": storage,
        "storage_share": storage / (gpu + storage) if gpu + storage else 0.0,
        "must_save_share": storage / gpu if gpu else 0.0,
        "seconds_saved_share": 1 - resources["GPU"]["seconds_per_turn"] / resources["GPU, recomputing"]["seconds_per_turn"],
    }
