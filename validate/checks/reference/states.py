"""A pool of blocks for a model with layers that keep a state: each block of theirs is that of the end of so many tokens.

As with windows of two tokens; but a job that decodes has one block of each group. A step of its prefill writes the state at its end, and
the last also that of the last full block that leaves it a token: that one is kept, and that of a junction, where a step ends. What a step
goes on from is left by the next. An answer that begins a block of tokens has two states for a step.
"""

import math
from collections.abc import Sequence
from typing import Any

from kvplan.sim.config import Config
from kvplan.sim.deployment import Deployment
from kvplan.validate.checks.reference.blocks import Pool
from kvplan.validate.checks.reference.shelf import Names
from kvplan.validate.checks.reference.turns import Turn
from kvplan.validate.checks.reference.windows import Held, WindowsOffloading, WindowsPool, WindowsReplica, WindowsShelf

KERNEL = 16
"""Tokens; blocks are multiples, where a state makes them larger."""


class StatesPool(WindowsPool):
    """One group with full attention, and `states` others."""

    def __init__(self, blocks: int, tokens: int, kept: int, states: int) -> None:
        super().__init__(blocks, tokens, kept, states, 2, 0)
        self.has, self.in_step = 1, 3

    def ahead(self, known: int, hit: int, there: int) -> int:
        last = (known - 1) // self.tokens
        steps = 1 if hit == last else 2  # states that a job writes in one step
        return steps - 1 + (hit > 0 or 0 < there < last)

    def begin(self, path: Sequence[int], known: int, prompt: int, room: int) -> Held:
        held = super().begin(path, known, prompt, room)
        held.last = (known - 1) // self.tokens
        return held

    def replayed(self, known: int, prompt: int) -> int:
        last = max(end for end in range(0, known, self.tokens))  # a token is left to compute
        return last // self.tokens if last < prompt <= last + self.tokens else 0

    def compute(self, held: Held, path: Sequence[int], tokens: int) -> int:
        new = 0
        for junction in held.ends[1:]:
            if held.known < junction <= tokens // self.tokens:
                new = super().compute(held, path, junction * self.tokens)
                self.next_step(held, junction)
        return new + super().compute(held, path, tokens)

    def next_step(self, held: Held, junction: int) -> None:
        """After the one that ended there."""
        self.leave(held, [place for place in held.named if place[1] < junction - 1], 0.0)
        held.ahead = 2 if junction < held.last else 1  # states that it writes, beside the one that it goes on from
        more = len(held.rest) + len(held.named) - len(self.windowed) * (1 + held.ahead)
        for _ in range(more):
            self.give_back([held.rest.pop()], 0.0)
        held.rest += self.take([], max(0, -more))

    def make_room(self) -> None:
        """Answers have begun blocks: a job has had another of each group for a step."""
        again = self.take([], min(len(self.windowed), self.spare()))
        self.give_back(again, 0.0)


class StatesShelf(WindowsShelf):
    """Where chunks of all groups go by their place in the context; of one place a state goes before full attention."""

    places: dict[int, int]  # of chunks, by their names

    def let_go(self, names: Names, session: int, now: float) -> None:
        super().let_go(sorted(names, key=lambda name: self.places[name[1] if isinstance(name, tuple) else name]), session, now)


class StatesOffloading(WindowsOffloading):
    """Of a chunk of a state HBM has a block."""

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self.places: dict[int, int] = {}
        for shelf in self.shelves:
            assert isinstance(shelf, StatesShelf)
            shelf.places = self.places

    def names(self, blocks: Names) -> Names:
        names = super().names(blocks)
        self.places.update(zip(names, range(len(names)), strict=True))
        return names

    def size(self, missing: Names, place: int) -> int:
        each, states = self.shelves[place].each, sum(isinstance(name, tuple) for name in missing)
        return each * (len(missing) - states) + (each if place else each // self.blocks) * states


class StatesReplica(WindowsReplica):
    """Whose jobs have those."""

    OFFLOADING = StatesOffloading
    SHELF = StatesShelf
    pool: StatesPool
    begun = False  # whether an answer has with its first token that has a step of its own

    @classmethod
    def block_tokens(cls, config: Config, deployment: Deployment, hashed: int | None) -> int:
        """KV of a block takes as much in a layer, in all ranks together, as a state; blocks that are hashed are together in one."""
        asked, layers = super().block_tokens(config, deployment, hashed), deployment.model.layers
        full = sum(group.count for group in layers if group.kind.attends)
        state, each = full * max(group.kind.state_bytes for group in layers), deployment.hbm_kv.per_token
        least = next(size for size in (asked, *range(KERNEL, 10**6, KERNEL)) if size * each >= state)
        return asked if least == asked else -(-least // (hashed or 1)) * (hashed or 1)

    def windows(self, turn: Turn) -> Names:
        """States that its chunks end with."""
        held, size, names = self.held[turn], self.below.blocks, self.names(turn)
        new = [end for end in held.ends if end > held.hit and end > held.loaded]
        places = {end // size - 1 for end in (held.loaded, *new) if end > 0 and end % size == 0}
        return [(group, names[chunk]) for group in self.pool.windowed for chunk in sorted(places)]

    def make_pool(self, blocks: int, tokens: int, most_kept: int) -> Pool:
        self.held, layers = {}, self.deployment.model.layers
        full = sum(group.count for group in layers if group.kind.attends)
        states = sum(group.count for group in layers if group.kind.state_bytes)
        return StatesPool(blocks, tokens, most_kept, math.ceil(states / full))

    def begins(self, tokens: int) -> bool:
        """Whether the last of them begins a block."""
        return tokens % self.pool.tokens == 1

    def grow(self, now: float) -> None:
        super().grow(now)
        if self.begun or any(self.begins(turn.context) for turn in self.decoding):
            self.pool.make_room()
        self.begun = False

    def decodes(self, turn: Turn, now: float) -> None:
        super().decodes(turn, now)
        if self.begins(turn.context + 1):
            self.begun = True
            self.pool.make_room()
