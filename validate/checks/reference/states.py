"""A pool of blocks for a model with layers that keep a state: each block of theirs is that of the end of so many tokens.

As with windows of two tokens; but a job that decodes has one block of each group, and one that is prefilled two at most: where its last
step starts from, and where it writes. A step of its prefill ends at the last full block that leaves it a token: that state alone is kept.
"""

import math

from kvplan.sim.config import Config
from kvplan.sim.deployment import Deployment
from kvplan.validate.checks.reference.blocks import Pool
from kvplan.validate.checks.reference.windows import Held, WindowsPool, WindowsReplica

KERNEL = 16
"""Tokens; blocks are multiples, where a state makes them larger."""


class StatesPool(WindowsPool):
    """One group with full attention, and `states` others."""

    def __init__(self, blocks: int, tokens: int, kept: int, states: int) -> None:
        super().__init__(blocks, tokens, kept, states, 2, 0)
        self.has, self.in_step = 1, 2

    def replayed(self, known: int, prompt: int) -> int:
        last = max(end for end in range(0, known, self.tokens))  # a token is left to compute
        return last // self.tokens if last < prompt <= last + self.tokens else 0

    def in_turn(self, places: list[tuple[int, int]]) -> list[tuple[int, int]]:
        return sorted(places, key=lambda place: place[1])

    def end(self, held: Held, now: float) -> None:
        """Steps have left all states but the last by now."""
        last = max((at for _, at in held.named), default=0)
        self.leave(held, [place for place in held.named if place[1] < last], now)
        super().end(held, now)


class StatesReplica(WindowsReplica):
    """Whose jobs have those."""

    @classmethod
    def block_tokens(cls, config: Config, deployment: Deployment, hashed: int | None) -> int:
        """KV of a block takes as much in a layer, in all ranks together, as a state; blocks that are hashed are together in one."""
        asked, layers = super().block_tokens(config, deployment, hashed), deployment.model.layers
        full = sum(group.count for group in layers if group.kind.attends)
        state, each = full * max(group.kind.state_bytes for group in layers), deployment.hbm_kv.per_token
        least = next(size for size in (asked, *range(KERNEL, 10**6, KERNEL)) if size * each >= state)
        return asked if least == asked else -(-least // (hashed or 1)) * (hashed or 1)

    def make_pool(self, blocks: int, tokens: int, most_kept: int) -> Pool:
        self.held, layers = {}, self.deployment.model.layers
        full = sum(group.count for group in layers if group.kind.attends)
        states = sum(group.count for group in layers if group.kind.state_bytes)
        return StatesPool(blocks, tokens, most_kept, math.ceil(states / full))
