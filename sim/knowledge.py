"""What a server knows and its policies may ask: the clock, the workload's future, what things would take over idle links."""

import math
from itertools import chain, repeat
from typing import Any, Protocol

import numpy as np

from kvplan.sim.deployment import Deployment
from kvplan.sim.store.view import Knowledge
from kvplan.traces import Workload


class Clock(Protocol):
    """The engine's, a replay's, or a real one."""

    @property
    def now(self) -> float:
        """Seconds."""


class ServerKnowledge(Knowledge):
    """Of all replicas' stores. Sessions are numbered as in the workload."""

    def __init__(self, clock: Clock, deployment: Deployment, workload: Workload) -> None:
        self._clock = clock
        self._deployment = deployment
        host = deployment.host.read_bytes_per_s
        self._read_bytes_per_s = {tier.name: tier.read_bytes_per_s(host) for tier in deployment.tiers}
        self._ahead_s = {tier.name: deployment.connection.ahead_s for tier in deployment.tiers if not tier.on_device}
        turns = np.diff(workload.first_turn).tolist()
        self.session_of: list[int] = list(chain.from_iterable(map(repeat, range(workload.sessions), turns)))
        """Of each turn; one number for all of a session, which are held once."""
        self.tenant_names: list[str] = [] if workload.tenant is None else np.unique(workload.tenant.astype(str)).tolist()
        self.tenant_of = tenants(workload)
        """Of each session."""
        arrival = np.full(workload.sessions, math.inf)
        arrival[workload.session[workload.first_turn[:-1]]] = workload.arrival_s[workload.first_turn[:-1]]
        self._next_use_s: Any = arrival.data

    def next_turn(self, session: int, at_s: float) -> None:
        """The session's turn ends now and its next one comes then."""
        self._next_use_s[session] = at_s

    def now_s(self) -> float:
        return self._clock.now

    def recompute_s(self, session: int, size: int) -> float:
        return self._deployment.steps.prefill(max(1, self._deployment.tokens_in(size)), 0)

    def load_s(self, tier: str, size: int) -> float:
        ahead_s = self._ahead_s.get(tier)
        return size / self._read_bytes_per_s[tier] + (0.0 if ahead_s is None else ahead_s(size))

    def next_use_s(self, session: int) -> float:
        return self._next_use_s[session]

    def tenant(self, session: int) -> int:
        return self.tenant_of[session]


def tenants(workload: Workload) -> list[int]:
    """Number of each session's tenant, in the order of their names; 0 for all when there are none."""
    if workload.tenant is None:
        return [0] * workload.sessions
    return np.unique(workload.tenant.astype(str), return_inverse=True)[1].tolist()
