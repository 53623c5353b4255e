"""The router of a run: what it may look at, and what cannot be had beside one whose sessions do not stay."""

from collections.abc import Sequence

from kvplan.sim.config import Config
from kvplan.sim.engine.replica import Replica
from kvplan.sim.engine.run import Run
from kvplan.sim.policies.base import Router, RouterView
from kvplan.sim.policies.registry import find
from kvplan.sim.routing import FixedView


class EngineRouting(RouterView):
    """The replicas as they are now."""

    def __init__(self, run: Run, replicas: Sequence[Replica]) -> None:
        self.replicas = len(replicas)
        self._run = run
        self._all = replicas
        self._tokens_in = run.given.deployment.tokens_in

    def now_s(self) -> float:
        return self._run.clock.now

    def waiting(self, replica: int) -> int:
        return self._all[replica].queued

    def running(self, replica: int) -> int:
        batch = self._all[replica].batch
        return batch.running + len(batch.apart)

    def hbm_bytes(self, replica: int) -> int:
        return self._all[replica].batch.hbm_used

    def cached_tokens(self, replica: int, session: int) -> int:
        return self._tokens_in(self._all[replica].kv.store.lookup(session)[1])

    def history_tokens(self, session: int) -> int:
        return self._run.context[session]

    def new_tokens(self, turn: int) -> int:
        return self._run.recorder.prompt_tokens[turn]


def router(config: Config, view: EngineRouting) -> Router:
    """The configured one."""
    policy = find("routing", config.router)
    return policy(FixedView(view.replicas) if policy.FIXED else view)
