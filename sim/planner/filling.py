"""How long a stream of sessions takes to fill a store, in closed form.

Within a time T sessions leave λ · E[Σ b · min(T, t)] bytes: b after each of a session's turns, of which the next one comes t later and
finds the session there. Where that is the store's room, T is how long it keeps what nobody uses, if it gives up first what was used
longest ago (the characteristic time of Che, Tung and Wang, "Hierarchical Web Caching Systems", JSAC 2002): what came earlier is nowhere
any more. So sessions of that time are enough to fill it.

Left out: what answers take beside think times; policies that keep less than all that comes, and fill a store later.
"""

import numpy as np

from kvplan.sim.config import Config
from kvplan.sim.deployment import Deployment
from kvplan.traces import Workload
from kvplan.traces.context import contexts


class Filling:
    """Of one replica's tiers, by sessions of a kind: `population`, in a closed loop."""

    def __init__(self, config: Config, deployment: Deployment, population: Workload) -> None:
        last = population.first_turn[1:] - 1
        until_s = np.append(population.gap_s[1:], np.inf)
        until_s[last] = np.inf
        order = np.argsort(until_s)[: -len(last)]
        left = _left(config, deployment, population)
        self._until_s = np.append(0.0, until_s[order])
        """After the turns that are not a session's last, sorted."""
        going = left.sum() - np.append(0.0, np.cumsum(left[order]))
        self._bytes = np.append(0.0, np.cumsum(np.diff(self._until_s) * going[:-1])) / population.sessions
        """Left by then, of one session a second."""
        self._at_last = max(left[last].mean(), 1.0)
        self._room = max((tier.capacity for tier in deployment.tiers), default=0) if deployment.pooled else deployment.room
        self._ttl_s = np.inf if config.store.ttl_s is None else config.store.ttl_s

    def seconds(self, sessions_per_s: float) -> float:
        """Until the tiers are full; or until all that is in them has come within their TTL."""
        each = self._room / sessions_per_s
        beyond = max(0.0, each - self._bytes[-1])
        return float(min(np.interp(each, self._bytes, self._until_s) + beyond / self._at_last, self._ttl_s))


def _left(config: Config, deployment: Deployment, population: Workload) -> np.ndarray:
    """Bytes that a session has in the store after each turn; in blocks those that it has alone. A tier of blocks holds what those above it
    hold."""
    history, prompt, output = contexts(population, deployment.window, config.deployment.truncation_ratio)
    tokens = deployment.connection.saved(history + prompt + output, output)
    if deployment.pooled:
        tokens = np.maximum(tokens - population.common_tokens[population.session], 0)
    return deployment.stored(tokens).astype(float)
