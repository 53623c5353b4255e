"""A pool whose named blocks are a tree, as SGLang's: nodes of blocks in a row. Those go whole that nobody uses, nor goes on from.

A job uses the first nodes of its context, and has blocks of its own for the rest. When its prefill has ended, when what it loads has come,
and when it ends or gives way, what is computed joins the tree: of blocks that are there by then the tree's are used, and its own are free
again; the others are nodes of as many blocks as one step computes at most. A node is cut where somebody uses some of it only.
"""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile

from kvplan.sim.config import Config
from kvplan.sim.deployment import Deployment
from kvplan.validate.checks.reference.blocks import BlockReplica, Pool
from kvplan.validate.checks.reference.histories import Token
from kvplan.validate.checks.reference.turns import Turn


@dataclass
class Held:
    """What one job has."""

    names: list[int]
    """Of the tree."""
    blocks: int
    """With its own."""


class Tree(Pool):
    """`together`: blocks of a node at most."""

    def __init__(self, blocks: int, tokens: int, kept: int, together: int, seen: Counter[str]) -> None:
        super().__init__(blocks, tokens, kept)
        self.all, self.together, self.seen = blocks, together, seen
        self.nodes: list[list[int]] = []
        self.before: dict[int, int | None] = {}  # of each name in the tree the one before it
        self.using: Counter[int] = Counter()  # jobs, by name
        self.last: dict[int, tuple[int, float]] = {}  # of each name the number of its last use that ended, and when that was
        self.uses = self.own = 0

    def there(self, names: Sequence[int]) -> list[int]:
        """The first of them that are in the tree."""
        return list(takewhile(self.before.__contains__, names))

    def hits(self, context: Sequence[Token]) -> list[int]:
        return self.there(self.path(context[:-1]))

    def shared(self, context: Sequence[Token]) -> int:
        return sum(self.using[name] > 0 for name in self.hits(context))

    def used(self) -> int:
        return self.own + sum(users > 0 for users in self.using.values())

    def filled(self) -> int:
        return self.own + len(self.before)

    def spare(self) -> int:
        return self.all - self.used()

    # --- a job's life -----------------------------------------------------------------------------------------------------------

    def begin(self, context: Sequence[Token], room: int) -> Held:
        held = Held([], 0)
        self.use(held, self.hits(context))
        self.grow(held, self.needed(room))
        return held

    def use(self, held: Held, names: list[int]) -> None:
        self.changes += 1
        held.names += names
        held.blocks = max(held.blocks, len(held.names))
        self.using.update(names)
        for node in [node for node in self.nodes if names and names[-1] in node[:-1]]:
            place = node.index(names[-1]) + 1
            self.nodes += [node[:place], node[place:]]
            self.nodes.remove(node)
            self.seen["nodes that are cut"] += 1

    def grow(self, held: Held, blocks: int) -> None:
        self.changes += 1
        more = max(0, blocks - held.blocks)
        while self.filled() + more > self.all:
            self.give_up()
        self.own, held.blocks = self.own + more, held.blocks + more

    def join(self, held: Held, context: Sequence[Token]) -> int:
        """What a job has computed joins the tree; returns the blocks that are new there."""
        own = self.path(context)[len(held.names) :]
        self.own -= len(own)
        self.use(held, known := self.there(own))
        self.seen["blocks that were there when they were computed"] += len(known)
        new = self.path(context)[len(held.names) :]
        self.before |= dict(zip(new, [held.names[-1] if held.names else None, *new], strict=False))
        self.nodes += [new[start : start + self.together] for start in range(0, len(new), self.together)]
        self.use(held, new)
        return len(new)

    def end(self, held: Held, now: float) -> None:
        self.changes += 1
        self.own -= held.blocks - len(held.names)
        self.using.subtract(held.names)
        self.uses += 1
        self.last |= {name: (self.uses, now) for name in held.names if not self.using[name]}
        while len(self.before) + self.own - self.used() > self.kept:
            self.give_up()

    # --- what leaves --------------------------------------------------------------------------------------------------------------

    def give_up(self) -> None:
        """The leaf goes that nobody uses, and was used least recently."""
        go_on = {self.before[node[0]] for node in self.nodes}
        leaves = [node for node in self.nodes if not self.using[node[0]] and node[-1] not in go_on]
        self.leave(min(leaves, key=lambda node: self.last[node[0]]))
        self.seen["nodes that go"] += 1

    def leave(self, node: list[int]) -> None:
        self.nodes.remove(node)
        for name in node:
            del self.before[name]

    def expire(self, ttl_s: float, now: float) -> int:
        over = [node for node in self.nodes if not self.using[node[0]] and self.last[node[0]][1] + ttl_s < now]
        for node in over:
            self.leave(node)
        self.changes += bool(over)
        return sum(map(len, over))


class TreeReplica(BlockReplica):
    """Whose HBM is that pool."""

    RESERVED = 0
    pool: Tree
    held: dict[Turn, Held]

    @classmethod
    def block_tokens(cls, config: Config, deployment: Deployment, hashed: int | None) -> int:
        return config.store.block_tokens or hashed or 64

    def make_pool(self, blocks: int, tokens: int, most_kept: int) -> Pool:
        self.held = {}
        budget = self.batching.budget
        return Tree(blocks, tokens, most_kept, blocks if budget == math.inf else max(1, int(budget) // tokens), self.seen)

    def use(self, turn: Turn) -> tuple[int, int, bool]:
        held = self.held[turn] = self.pool.begin(self.contexts[turn.session], self.jobs.tokens(turn))
        return len(held.names), len(held.names), any(self.pool.using[name] > 1 for name in held.names)

    def grow(self, now: float) -> None:
        for turn in self.decoding:
            self.pool.grow(self.held[turn], self.pool.needed(turn.context))

    def compute(self, turn: Turn, tokens: int) -> int:
        return self.pool.join(self.held[turn], self.contexts[turn.session][:tokens])

    def end_use(self, turn: Turn, now: float) -> None:
        self.pool.end(self.held.pop(turn), now)
