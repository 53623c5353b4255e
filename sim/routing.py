"""Which replica each session goes to, for what needs to know it without a run: explain, the curve, the reference."""

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
