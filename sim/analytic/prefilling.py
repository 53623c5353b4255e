"""Seconds of a prompt that is prefilled alone: in one step, or in as many as its batching policy cuts it into."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from kvplan.sim.config import Config
from kvplan.sim.deployment import Deployment, batching_limits
from kvplan.sim.policies.base import Batching
from kvplan.sim.policies.registry import find, is_users_own

_WHOLE = 1 << 40
"""Tokens, more than any prompt has."""
Alone = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""(new tokens, tokens before them in HBM) -> seconds, per turn."""


class _Prompt(NamedTuple):
    turn: int
    left: int


class _Batch(NamedTuple):
    prefilling: list[_Prompt]
    decoding: int = 0
    context: int = 0


def step_tokens(config: Config, deployment: Deployment) -> int:
    """The most of a prompt alone that one step holds. A user's own policy is not asked."""
    if is_users_own(config.batching):
        return _WHOLE
    policy: Batching = find("batching", config.batching)(batching_limits(config, deployment))
    chunks, _ = policy.step(_Batch([_Prompt(0, _WHOLE)]))
    return chunks[0][1]


def each_s(seconds: Callable[[int, int], float], new: np.ndarray, history: np.ndarray) -> np.ndarray:
    """Per turn, what so many new tokens take after so many. Step times, which are compiled, are asked one by one, once for those alike."""
    _, one, alike = np.unique(new << 32 | history, return_index=True, return_inverse=True)
    return np.fromiter(map(seconds, new[one].tolist(), history[one].tolist()), np.float64, len(one))[alike]


def prefill_alone(config: Config, deployment: Deployment) -> Alone:
    """What a prompt takes."""
    steps, most = deployment.steps, step_tokens(config, deployment)

    def seconds(new: np.ndarray, history: np.ndarray) -> np.ndarray:
        found = each_s(steps.prefill, np.minimum(new, most), history)
        for start in range(most, int(new.max(initial=0)), most):
            here = np.flatnonzero(new > start)
            found[here] += each_s(steps.prefill, np.minimum(new[here] - start, most), history[here] + start)
        return found

    return seconds
