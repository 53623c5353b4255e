"""Which replica each session goes to, for what needs to know it without a run: explain, the curve, the reference; and which policies need
sessions that stay."""

from typing import Any

import numpy as np

from kvplan.sim.config import Config, ConfigError
from kvplan.sim.policies.base import RouterView
from kvplan.sim.policies.registry import find
from kvplan.sim.policies.supervise import PolicyError


def _unknown(*_: Any, **__: Any) -> Any:
    raise PolicyError("a router that sets FIXED may ask for the number of replicas, and for nothing that only a run knows")


class FixedView(RouterView):
    """What a router with FIXED may look at: in a run as well, so that what it says without one holds."""

    now_s = waiting = running = hbm_bytes = cached_tokens = history_tokens = new_tokens = _unknown

    def __init__(self, replicas: int) -> None:
        self.replicas = replicas


def replica_of(config: Config, sessions: int, why: str) -> np.ndarray:
    """int64 per session. Raises ConfigError for a router that goes by what happens in a run; `why` says what needs to know."""
    if config.deployment.replicas == 1:
        return np.zeros(sessions, np.int64)
    router = find("routing", config.router)
    if not router.FIXED:
        raise ConfigError(f"{why}, and router={config.router} decides that turn by turn, in a run: set router=session")
    route = router(FixedView(config.deployment.replicas)).route
    return np.array([route(session, -1) for session in range(sessions)], np.int64)


def check_router(config: Config) -> None:
    """Raises ConfigError when something of the configuration needs sessions that stay, and they do not."""
    if find("routing", config.router).STICKY:
        return
    if "future" in find("eviction", config.store.eviction).NEEDS:
        _refuse(config, "eviction", "goes by when the next turn of a session comes to its replica")
    if find("prefetch", config.store.prefetch).LEAD_S > 0:
        _refuse(config, "prefetch", "fetches to the replica of the turn before, ahead of the next one")


def _refuse(config: Config, kind: str, why: str) -> None:
    name = getattr(config.store, kind)
    raise ConfigError(
        f"store.{kind}={name} {why}, and router={config.router} may send it to another: set router=session, or another store.{kind}"
    )
