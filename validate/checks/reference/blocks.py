"""A replica whose HBM is one pool of blocks, block by block: a queue of free ones, who uses each, and which tokens each stands for.

A block's tokens, and all before them, are its name; a token is who wrote it and where. It is found by its name from when it was computed
until it is taken for something else; of several with one name the first is found.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from itertools import takewhile
from typing import TYPE_CHECKING

from kvplan.sim.config import Config
from kvplan.sim.deployment import Deployment
from kvplan.sim.metrics.output import Books
from kvplan.validate.checks.reference.histories import Histories, Token
from kvplan.validate.checks.reference.jobs import Jobs
from kvplan.validate.checks.reference.offloading import Found, Names, Offloading
from kvplan.validate.checks.reference.replica import Moment, Replica
from kvplan.validate.checks.reference.store import tiers_of
from kvplan.validate.checks.reference.turns import Turn

if TYPE_CHECKING:
    from kvplan.validate.checks.reference.service import Service


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

    def __init__(self, config: Config, deployment: Deployment, sizes, pool: Pool, histories: Histories, begun) -> None:
        super().__init__(config, deployment, sizes, histories)
        self.pool, self.contexts, self.each = pool, histories.written, pool.tokens * deployment.in_hbm(1)
        self.begun = begun or defaultdict(list)  # per session, what it begins with: keys of text up to so many tokens
        self.common = histories.common
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
        """All that it has before its answer. What its oldest tokens were cut off is no longer what it was."""
        before = self.contexts.get(turn.session, [])
        if len(before) > history:
            return [(id(turn), place) for place in range(history + prompt)]
        return before + [self.token(turn, history + place) for place in range(prompt)]

    def token(self, turn: Turn, place: int) -> Token:
        """That a turn writes at a place of its context; what sessions have in common is written by nobody."""
        parts = self.begun[turn.session] if place < self.common[turn.session] else []
        return next(((-1 - key, place) for key, end in parts if place < end), (id(turn), place))

    def parts_from(self, session: int, place: int) -> None:
        """What comes there is the session's own from now on."""
        self.common[session] = min(self.common[session], place)


class BlockReplica(Replica):
    """With tiers of chunks below, or none."""

    def __init__(self, config: Config, deployment: Deployment, service: "Service") -> None:
        super().__init__(config, replace(deployment, tiers=(), write_buffer=0), service)
        tokens = config.store.block_tokens or 16
        each, kept = tokens * deployment.in_hbm(1), config.store.size_of(config.store.listed[0])
        blocks = deployment.hbm_budget // each - 1
        self.pool = Pool(blocks, tokens, min(blocks, kept // each) if kept else blocks)
        self.contexts = service.histories.written
        begun = service.given.workload.beginnings
        parts = None if begun is None else begun.parts()
        self.jobs = self.block_jobs = BlockJobs(config, self.deployment, self.sizes, self.pool, service.histories, parts)
        self.store.jobs = self.jobs
        self.block_bytes = tokens * deployment.stored(1)
        self.hbm, *below = self.tiers = tiers_of(deployment)
        self.written, self.read = [0], [0]  # bytes of HBM's cache, so far
        together = 256 if config.store.mode == "lmcache" else deployment.connection.block
        chunk = max(config.store.chunk_blocks, -(-together // tokens))
        self.below = Offloading(deployment, below, chunk, chunk * tokens, self.links, self.seen)
        self.blocks: dict[Turn, list[int]] = {}
        self.found: dict[Turn, Found] = {}

    def arrive(self, turn: Turn, now: float) -> None:
        if turn.dropped:
            before = self.contexts.get(turn.session, [])
            self.contexts[turn.session] = before = before[: max(0, len(before) - turn.dropped)]
            self.block_jobs.parts_from(turn.session, len(before))
        super().arrive(turn, now)

    # --- a job starts ---------------------------------------------------------------------------------------------------------

    def enter(self, now: float) -> float:
        """The head of the queue starts; returns when it can be prefilled."""
        turn, since = self.jobs.start(now)
        history, prompt, output = self.jobs.trimmed(turn)
        context = self.block_jobs.prompt(turn, history, prompt)
        hits = self.pool.hits(context)
        turn.overflow = self.jobs.context[turn.session] > history
        self.contexts[turn.session] = context
        if turn.overflow or prompt < turn.prompt_tokens:
            self.block_jobs.parts_from(turn.session, 0 if turn.overflow else history + prompt)
        self.blocks[turn] = self.pool.take(hits, self.pool.needed(history + prompt + output))
        self.read.append(self.read[-1] + len(hits) * self.block_bytes)
        self.hold(now)
        turn.admitted_s = turn.since_s = now
        turn.hbm_tokens = len(hits) * self.pool.tokens
        turn.prompt_tokens, turn.output_tokens, turn.history_tokens = prompt, output, history
        turn.context, turn.left = history + prompt, output
        self.seen["turns that hit blocks"] += bool(hits)
        self.seen["blocks in use by several"] += any(self.pool.users[block] > 1 for block in hits)
        self.seen["first turns that hit blocks"] += bool(hits) and not turn.place
        self.load(turn, since, now)
        return turn.since_s

    def load(self, turn: Turn, since: float, now: float) -> None:
        """What tiers below have beyond the blocks that HBM has."""
        self.below.settle(now)
        found = self.found[turn] = self.below.find(self.names(turn), turn.context, turn.hbm_tokens)
        turn.cached_tokens = turn.hbm_tokens + found.tokens
        turn.dram_tokens, turn.ssd_tokens = found.shares.get("dram", 0), found.shares.get("ssd", 0)
        turn.tier = max((place for place, tier in enumerate(self.tiers) if getattr(turn, f"{tier.name}_tokens")), default=-1)
        if not found.tokens:
            return
        self.seen["turns that load chunks"] += 1
        compute = self.deployment.steps.prefill(turn.context - turn.cached_tokens, turn.cached_tokens)
        first, size = self.tiers[1], self.sizes.stored[found.tokens]
        pace = self.loading.pace(first, size, self.below.bring_up(found, now), since, now)
        sent = self.loading.book(pace, first.sent(size), now)
        first.went.append((sent, size))
        if self.deployment.connection.asynchronous:
            turn.since_s = sent.end_s
        else:
            turn.stall_s = self.loading.seconds(pace, compute) - compute

    # --- a prefill ends, and an answer ----------------------------------------------------------------------------------------

    def end_step(self, now: float) -> None:
        if self.doing == "prefill":
            turn = self.jobs.batch[-1]
            self.name(turn)
            self.below.settle(now)
            self.below.let_go(self.found.pop(turn))
            self.below.store(0, self.names(turn), now)
        super().end_step(now)

    def complete(self, turn: Turn, now: float) -> None:
        context = self.contexts[turn.session]
        saved = self.names(turn)
        context += [self.block_jobs.token(turn, len(context) + place) for place in range(turn.output_tokens)]
        self.name(turn)
        self.below.settle(now)
        if self.deployment.connection.saves_answers and len(self.names(turn)) > len(saved):
            saved = self.names(turn)
            self.below.store(0, saved, now)
        self.below.renew(saved)
        self.pool.give_back(self.blocks.pop(turn))
        self.hold(now)
        super().complete(turn, now)

    def names(self, turn: Turn) -> Names:
        """Of the whole chunks of its context."""
        return self.below.names(self.pool.path(self.contexts[turn.session]))

    def name(self, turn: Turn) -> None:
        named = self.pool.name(self.blocks[turn], self.contexts[turn.session])
        self.written.append(self.written[-1] + named * self.block_bytes)

    def hold(self, now: float) -> None:
        self.hbm.put(0, self.pool.filled() * self.block_bytes - self.hbm.held[0], now)

    # --- what is told of it ---------------------------------------------------------------------------------------------------

    def moment(self, now: float) -> Moment:
        self.below.settle(now)
        return Moment(now, self.below.dropped, (*(len(tier.changes) for tier in self.tiers), len(self.written), len(self.read)))

    def sample(self, now: float) -> dict[str, float]:
        return super().sample(now) | {f"{tier.name}_bytes": tier.sent(sum(tier.held.values())) for tier in self.tiers}

    def books(self, at: Moment, since: Moment | None) -> Books:
        *_, written, read = at.changes
        sums = dict(super().books(at, None).sums)
        for tier in self.tiers:
            sums |= tier.sums(at.now)
        sums |= {f"{self.hbm.name}.written": self.written[written - 1], f"{self.hbm.name}.read": self.read[read - 1]}
        first = [0] * len(self.tiers) if since is None else since.changes
        return Books(sums, {tier.name: tier.peak(start) for tier, start in zip(self.tiers, first, strict=False)})
