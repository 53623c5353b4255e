"""A replica whose HBM is one pool of blocks, block by block: a queue of free ones, who uses each, and which tokens each stands for.

A block's tokens, and all before them, are its name; a token is who wrote it and where. It is found by its name from when it was computed
until it is taken for something else; of several with one name the first is found.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, takewhile
from typing import TYPE_CHECKING

from kvplan.sim.config import Config
from kvplan.sim.deployment import Deployment
from kvplan.sim.metrics.output import Books
from kvplan.validate.checks.reference.jobs import Jobs
from kvplan.validate.checks.reference.replica import Moment, Replica
from kvplan.validate.checks.reference.turns import Turn

if TYPE_CHECKING:
    from kvplan.validate.checks.reference.service import Service

Token = tuple[int, int]
"""The turn that wrote it, and its place in what that turn wrote."""


class Pool:
    """Blocks by number. `kept` of those that nobody uses may have names."""

    def __init__(self, blocks: int, tokens: int, kept: int) -> None:
        self.tokens, self.kept = tokens, kept
        self.free = list(range(blocks))  # the first is taken next
        self.users = [0] * blocks
        self.names: dict[int, int] = {}  # of blocks, in the order in which they were named
        self.changes = 0
        self.numbers: dict[tuple[int, tuple[Token, ...]], int] = {}  # names as numbers: of what comes before, and the block's own tokens

    def needed(self, tokens: int) -> int:
        return -(-tokens // self.tokens)

    def path(self, context: Sequence[Token]) -> list[int]:
        """Names of its full blocks."""
        found, before = [], -1
        for start in range(0, len(context) - self.tokens + 1, self.tokens):
            own = before, tuple(context[start : start + self.tokens])
            before = self.numbers.setdefault(own, len(self.numbers))
            found.append(before)
        return found

    def hits(self, context: Sequence[Token]) -> list[int]:
        """Blocks that hold a prompt's first tokens; the last token is always computed."""
        first = {name: block for block, name in reversed(self.names.items())}
        return [first[name] for name in takewhile(first.__contains__, self.path(context[:-1]))]

    def take(self, hits: list[int], blocks: int) -> list[int]:
        """A job uses these, and others up to so many."""
        self.changes += 1
        self.free = [block for block in self.free if block not in hits]
        mine = hits + self.free[: blocks - len(hits)]
        self.free = self.free[blocks - len(hits) :]
        for block in mine:
            self.users[block] += 1
        for block in mine[len(hits) :]:
            self.names.pop(block, None)
        return mine

    def name(self, blocks: list[int], context: Sequence[Token]) -> int:
        """What a job has computed is found from now on; returns the blocks that are new."""
        self.changes += 1
        new = [(block, name) for block, name in zip(blocks, self.path(context), strict=False) if block not in self.names]
        self.names |= dict(new)
        return len(new)

    def give_back(self, blocks: list[int]) -> None:
        """The last comes first into the queue; what has no name is taken first."""
        self.changes += 1
        for block in reversed(blocks):
            self.users[block] -= 1
            if not self.users[block]:
                self.free.insert(len(self.free) if block in self.names else 0, block)
        named = [block for block in self.free if block in self.names]
        for block in named[: max(0, len(named) - self.kept)]:
            del self.names[block]
        self.free.sort(key=lambda block: block in self.names)

    def used(self) -> int:
        return len(self.users) - len(self.free)

    def filled(self) -> int:
        return sum(users > 0 or block in self.names for block, users in enumerate(self.users))


class BlockJobs(Jobs):
    """Whose HBM is the pool's."""

    def __init__(self, config: Config, deployment: Deployment, sizes, pool: Pool, contexts: dict[int, list[Token]], begun) -> None:
        super().__init__(config, deployment, sizes)
        self.pool, self.contexts, self.each = pool, contexts, pool.tokens * deployment.in_hbm(1)
        self.begun = begun  # per session, what it begins with: keys of text up to so many tokens
        self.known: tuple[Turn | None, int, int] = (None, 0, 0)  # whose answer was asked for last, after so many changes

    def hbm_used(self) -> int:
        return self.pool.used() * self.each

    def left(self, turn: Turn) -> int:
        if self.known[:2] != (turn, self.pool.changes):
            self.known = turn, self.pool.changes, self.left_now(turn)
        return self.known[2]

    def left_now(self, turn: Turn) -> int:
        history, prompt, output = self.trimmed(turn)
        hits = self.pool.hits(self.prompt(turn, history, prompt))
        taken = self.pool.needed(history + prompt + output) - sum(self.pool.users[block] > 0 for block in hits)
        return (len(self.pool.free) - taken) * self.each

    def prompt(self, turn: Turn, history: int, prompt: int) -> list[Token]:
        """All that it has before its answer."""
        before = self.contexts.get(turn.session, [])
        return before[len(before) - history :] + [self.token(turn, place) for place in range(prompt)]

    def token(self, turn: Turn, place: int) -> Token:
        """That a turn writes there; what sessions begin with in common is written by nobody."""
        parts = self.begun[turn.session] if self.begun and not turn.place else []
        return next(((-1 - key, place) for key, end in parts if place < end), (id(turn), place))


@dataclass
class Told:
    """What the books say: when, and how many bytes."""

    held: list[tuple[float, int]]
    written: list[int]
    read: list[int]

    def lengths(self) -> tuple[int, int, int]:
        return len(self.held), len(self.written), len(self.read)


class BlockReplica(Replica):
    """Without tiers below."""

    def __init__(self, config: Config, deployment: Deployment, service: "Service") -> None:
        super().__init__(config, replace(deployment, tiers=(), write_buffer=0), service)
        tokens = config.store.block_tokens or 16
        each, kept = tokens * deployment.in_hbm(1), config.store.size_of(config.store.listed[0])
        blocks = deployment.hbm_budget // each - 1
        self.pool = Pool(blocks, tokens, min(blocks, kept // each) if kept else blocks)
        self.contexts: dict[int, list[Token]] = {}  # per session: the tokens that its next turn can go on from
        begun = service.given.workload.beginnings
        parts = None if begun is None else begun.parts()
        self.jobs = self.block_jobs = BlockJobs(config, self.deployment, self.sizes, self.pool, self.contexts, parts)
        self.store.jobs = self.jobs
        self.block_bytes, self.tier = tokens * deployment.stored(1), deployment.tiers[0]
        self.told = Told([], [], [])
        self.blocks: dict[Turn, list[int]] = {}

    def arrive(self, turn: Turn, now: float) -> None:
        if turn.dropped:
            before = self.contexts.get(turn.session, [])
            self.contexts[turn.session] = before[: max(0, len(before) - turn.dropped)]
        super().arrive(turn, now)

    def admit(self, now: float) -> float:
        turn, _ = self.jobs.start(now)
        history, prompt, output = self.jobs.trimmed(turn)
        context = self.block_jobs.prompt(turn, history, prompt)
        hits = self.pool.hits(context)
        cached = len(hits) * self.pool.tokens
        turn.overflow = self.jobs.context[turn.session] > history
        self.contexts[turn.session] = context
        self.blocks[turn] = self.pool.take(hits, self.pool.needed(history + prompt + output))
        self.told.read.append(len(hits) * self.block_bytes)
        self.hold(now)
        seconds = self.deployment.steps.prefill(prompt + history - cached, cached)
        turn.admitted_s, turn.tier, turn.hbm_tokens = now, 0 if cached else -1, cached
        turn.prompt_tokens, turn.output_tokens, turn.history_tokens, turn.cached_tokens = prompt, output, history, cached
        turn.context, turn.left = history + prompt, output
        self.count(now, now + seconds, prefill_s=seconds, prefilled_tokens=prompt + history - cached)
        self.seen["turns that hit blocks"] += bool(hits)
        self.seen["blocks in use by several"] += any(self.pool.users[block] > 1 for block in hits)
        self.seen["first turns that hit blocks"] += bool(hits) and not turn.place
        return seconds

    def end_step(self, now: float) -> None:
        if self.doing == "prefill":
            self.name(self.jobs.batch[-1])
        super().end_step(now)

    def complete(self, turn: Turn, now: float) -> None:
        context = self.contexts[turn.session]
        context += [(id(turn), turn.prompt_tokens + place) for place in range(turn.output_tokens)]
        self.name(turn)
        self.pool.give_back(self.blocks.pop(turn))
        self.hold(now)
        super().complete(turn, now)

    def name(self, turn: Turn) -> None:
        self.told.written.append(self.pool.name(self.blocks[turn], self.contexts[turn.session]) * self.block_bytes)

    def hold(self, now: float) -> None:
        self.told.held.append((now, self.pool.filled() * self.block_bytes))

    def moment(self, now: float) -> Moment:
        return Moment(now, 0, self.told.lengths())

    def sample(self, now: float) -> dict[str, float]:
        return super().sample(now) | {f"{self.tier.name}_bytes": self.tier.taken(self.pool.filled() * self.block_bytes)}

    def books(self, at: Moment, since: Moment | None) -> Books:
        found, (held, written, read), name = super().books(replace(at, changes=()), None), at.changes, self.tier.name
        steps = [0, *(size for _, size in self.told.held)]
        changes = [(when, size - before) for before, (when, size) in zip(steps, self.told.held[:held], strict=False)]
        own = {
            f"{name}.byte_seconds": sum(size * (at.now - when) for when, size in changes),
            f"{name}.written": sum(self.told.written[:written]),
            f"{name}.read": sum(self.told.read[:read]),
        }
        levels = list(accumulate((size for _, size in changes), initial=0))
        return Books({**found.sums, **own}, {name: max(levels[0 if since is None else since.changes[0] :])})
