"""What a replica's scheduler may ask of its jobs."""

from collections.abc import Callable
from typing import Protocol

from kvplan.sim.deployment import Deployment
from kvplan.sim.knowledge import Clock, ServerKnowledge
from kvplan.sim.policies.base import JobView
from kvplan.sim.store.protocol import Store


class Fitted(Protocol):
    """A turn after truncation to the window. Tokens."""

    @property
    def history(self) -> int:
        """That are kept."""

    @property
    def prompt(self) -> int:
        """Its own."""


class EngineJobs(JobView):
    """What one replica's scheduler may look at. `store` and `fitting` are set once there is a store, which looks at the queue itself."""

    store: Store
    fitting: Callable[[int], Fitted]

    def __init__(self, clock: Clock, deployment: Deployment, knowledge: ServerKnowledge, weights: dict[str, float]) -> None:
        self._clock = clock
        self._deployment = deployment
        self._session, self._tenant = knowledge.session_of, knowledge.tenant_of
        self._weight = [weights.get(name, 1.0) for name in knowledge.tenant_names] or [1.0]
        heaviest_first = sorted(set(self._weight), reverse=True)
        self._rank = [heaviest_first.index(weight) for weight in self._weight]

    def now_s(self) -> float:
        return self._clock.now

    def new_tokens(self, turn: int) -> int:
        return self.fitting(turn).prompt

    def history_tokens(self, turn: int) -> int:
        return self.fitting(turn).history

    def cached_tokens(self, turn: int) -> int:
        return min(self._deployment.tokens_in(self.store.lookup(self._session[turn])[1]), self.history_tokens(turn))

    def is_ready(self, turn: int) -> bool:
        target = self.store.fetch_target
        return target is None or self.store.lookup(self._session[turn])[0] <= target

    def prefill_s(self, turn: int) -> float:
        cached = self.cached_tokens(turn)
        return self._deployment.steps.prefill(self.history_tokens(turn) + self.new_tokens(turn) - cached, cached)

    def tenant(self, turn: int) -> int:
        return self._tenant[self._session[turn]]

    def weight(self, turn: int) -> float:
        return self._weight[self.tenant(turn)]

    def tenant_rank(self, turn: int) -> int:
        return self._rank[self.tenant(turn)]
