"""A replica whose HBM is one pool of blocks, block by block: a queue of free ones, who uses each, and which tokens each stands for.

A block's tokens, and all before them, are its name; a token is who wrote it and where. It is found by its name from when it was computed
until it is taken for something else; of several with one name the first is found.
"""

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from itertools import takewhile
from typing import TYPE_CHECKING

from kvplan.sim.config import Config
from kvplan.sim.deployment import Deployment
from kvplan.sim.metrics.output import Books
from kvplan.validate.checks.reference.fetching import Fetching
from kvplan.validate.checks.reference.hashes import Hashes
from kvplan.validate.checks.reference.histories import Histories, Token
from kvplan.validate.checks.reference.jobs import Jobs
from kvplan.validate.checks.reference.offloading import Found, Offloading
from kvplan.validate.checks.reference.orders import OrderedShelf
from kvplan.validate.checks.reference.replica import Moment, Replica
from kvplan.validate.checks.reference.shelf import Names, Shelf
from kvplan.validate.checks.reference.store import Tier, tiers_of
from kvplan.validate.checks.reference.turns import Turn

if TYPE_CHECKING:
    from kvplan.validate.checks.reference.service import Service


class Pool:
    """Blocks by number. `kept` of those that nobody uses may have names."""

    def __init__(self, blocks: int, tokens: int, kept: int) -> None:
        self.tokens, self.kept = tokens, kept
        self.free = list(range(blocks))  # the first is taken next
        self.users = [0] * blocks
        self.names: dict[int, object] = {}  # of blocks, in the order in which they were named
        self.left_s = [0.0] * blocks  # when each was used last
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

    def shared(self, context: Sequence[Token]) -> int:
        """How many of these others use."""
        return sum(self.users[block] > 0 for block in self.hits(context))

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

    def expire(self, ttl_s: float, now: float) -> int:
        """What nobody has used for longer is not found any more; returns how many."""
        over = [block for block in self.free if block in self.names and self.left_s[block] + ttl_s < now]
        for block in over:
            del self.names[block]
        self.changes += bool(over)
        self.free.sort(key=lambda block: block in self.names)
        return len(over)

    def give_back(self, blocks: list[int], now: float) -> None:
        """The last comes first into the queue; what has no name is taken first."""
        self.changes += 1
        for block in reversed(blocks):
            self.users[block] -= 1
            self.left_s[block] = now
            if not self.users[block]:
                self.free.insert(len(self.free) if block in self.names else 0, block)
        named = [block for block in self.free if block in self.names]
        for block in named[: max(0, len(named) - self.kept)]:
            del self.names[block]
        self.free.sort(key=lambda block: block in self.names)

    def several(self, blocks: list[int]) -> bool:
        """Whether several use any of these."""
        return any(self.users[block] > 1 for block in blocks)

    def spare(self) -> int:
        """Blocks that nobody uses."""
        return len(self.free)

    def used(self) -> int:
        return len(self.users) - len(self.free)

    def filled(self) -> int:
        return sum(users > 0 or block in self.names for block, users in enumerate(self.users))


class BlockJobs(Jobs):
    """Whose HBM is the pool's."""

    def __init__(
        self, config: Config, deployment: Deployment, sizes, pool: Pool, histories: Histories, reserves: str, begun, hashes: Hashes
    ) -> None:
        super().__init__(config, deployment, sizes, histories, reserves)
        self.hashes = hashes
        self.pool, self.contexts, self.each = pool, histories.written, pool.tokens * deployment.hbm_kv.per_token
        self.begun = begun or defaultdict(list)  # per session, what it begins with: keys of text up to so many tokens
        self.common = histories.common
        self.known: tuple[Turn | None, int, int] = (None, 0, 0)  # whose blocks in use were counted last, after so many changes

    def size(self, tokens: int) -> int:
        return self.pool.needed(tokens) * self.each

    def hbm_used(self) -> int:
        return self.pool.used() * self.each

    def free(self) -> int:
        return self.pool.spare() * self.each

    def takes(self, turn: Turn, tokens: int) -> int:
        if self.known[:2] != (turn, self.pool.changes):
            self.known = turn, self.pool.changes, self.pool.shared(self.has(turn))
        return self.size(tokens) - self.known[2] * self.each

    def has(self, turn: Turn) -> list[Token]:
        """All that a job has before its next token."""
        history, prompt, _ = self.trimmed(turn)
        return self.contexts[turn.session] if turn in self.preempted else self.prompt(turn, history, prompt)

    def prompt(self, turn: Turn, history: int, prompt: int) -> list[Token]:
        """All that it has before its answer. What its oldest tokens were cut off is no longer what it was."""
        before = self.contexts.get(turn.session, [])
        if len(before) > history:
            return [(id(turn), place) for place in range(history + prompt)]
        context = before + [self.token(turn, history + place) for place in range(prompt)]
        said = self.hashes.said(turn, history, prompt)[: len(context)]
        return said + context[len(said) :]

    def answer(self, turn: Turn, places: range) -> list[Token]:
        """What it writes there, behind its prompt."""
        said = self.hashes.said(turn, turn.history_tokens, turn.prompt_tokens)
        return [said[place] if place < len(said) else self.token(turn, place) for place in places]

    def token(self, turn: Turn, place: int) -> Token:
        """That a turn writes at a place of its context; what sessions have in common is written by nobody."""
        parts = self.begun[turn.session] if place < self.common[turn.session] else []
        return next(((-1 - key, place) for key, end in parts if place < end), (id(turn), place))

    def parts_from(self, session: int, place: int) -> None:
        """What comes there is the session's own from now on."""
        self.common[session] = min(self.common[session], place)


class BlockReplica(Replica):
    """With tiers of chunks below, or none."""

    JOBS = BlockJobs
    RESERVED = 1  # blocks that the engine keeps for itself

    def __init__(self, config: Config, deployment: Deployment, service: "Service") -> None:
        super().__init__(config, replace(deployment, tiers=(), write_buffer=0), service)
        workload = service.given.workload
        tokens = self.block_tokens(config, deployment, None if workload.blocks is None else workload.blocks.block_tokens)
        each, kept = tokens * deployment.hbm_kv.per_token, config.store.size_of(config.store.listed[0])
        blocks = deployment.hbm_budget // each - self.RESERVED
        self.pool = self.make_pool(blocks, tokens, min(blocks, kept // each) if kept else blocks)
        self.contexts = service.histories.written
        parts = None if workload.beginnings is None else workload.beginnings.parts()
        known = service.histories, self.reserves, parts, service.hashes
        self.jobs = self.block_jobs = self.JOBS(config, self.deployment, self.sizes, self.pool, *known)
        self.store.jobs = self.jobs
        self.block_bytes = tokens * deployment.kv.per_token
        self.hbm, *below = self.tiers = tiers_of(deployment)
        self.written, self.read = [0], [0]  # bytes of HBM's cache, so far
        together = 256 if config.store.mode == "lmcache" else deployment.connection.block
        chunk = max(config.store.chunk_blocks, -(-together // tokens))
        self.eviction, self.threshold, self.defers = config.store.eviction, config.store.threshold, config.store.defers
        self.below = self.make_below(below, chunk)
        self.ttl_s = math.inf if config.store.ttl_s is None else config.store.ttl_s
        self.blocks: dict[Turn, list[int]] = {}
        self.found: dict[Turn, Found] = {}
        self.asked_of: dict[Turn, Found] = {}  # what a turn asked for first that was on SSD
        self.fetching = Fetching(config.store.prefetch, self.below, self.jobs)

    def arrive(self, turn: Turn, now: float) -> None:
        self.fetching.end(now)
        if turn.dropped:
            before = self.contexts.get(turn.session, [])
            self.contexts[turn.session] = before = before[: max(0, len(before) - turn.dropped)]
            self.block_jobs.parts_from(turn.session, len(before))
        self.expire(now)
        self.below.expect(turn.session)
        super().arrive(turn, now)
        if not self.in_step:
            self.fetching.hold_back(now)
            self.fetching.begin(now)

    # --- what comes ahead of jobs -----------------------------------------------------------------------------------------------

    def come(self, turn: Turn, now: float) -> None:
        super().come(turn, now)
        if self.below.ahead:
            context = self.block_jobs.has(turn)
            known, names, local = len(context), self.below.names(self.pool.path(context)), self.hit(context) * self.pool.tokens
            if (found := self.fetching.comes(turn, names, known, local)) is not None:
                self.asked_of[turn] = found

    def fill(self, now: float) -> bool:
        waits = super().fill(now)
        self.fetching.hold_back(now)
        return waits

    def steps_aside(self, turn: Turn, left: int, now: float) -> bool:
        return self.fetching.holds(turn, now) or super().steps_aside(turn, left, now)

    def due_s(self) -> float:
        return min(super().due_s(), self.fetching.ends_s if self.jobs.aside else math.inf)

    def load_ends(self, now: float) -> None:
        self.fetching.end(now)
        super().load_ends(now)

    def decide(self, now: float) -> None:
        super().decide(now)
        if self.doing == "nothing" and (waiting := len(self.jobs.aside)):
            self.fetching.begin(now)
            if len(self.jobs.aside) < waiting:
                self.decide(now)

    def end_step(self, now: float) -> None:
        self.fetching.end(now)
        super().end_step(now)
        self.fetching.begin(now)

    # --- what expires ---------------------------------------------------------------------------------------------------------

    def expire(self, now: float) -> None:
        """What nobody has used for the TTL goes, when a turn comes or starts."""
        self.seen["blocks that expire"] += self.pool.expire(self.ttl_s, now)
        self.below.settle(now)
        self.below.expire(self.ttl_s, now)
        self.hold(now)

    # --- a job starts ---------------------------------------------------------------------------------------------------------

    def comes_s(self, turn: Turn, now: float) -> float:
        if not self.defers:
            return now
        self.expire(now)
        context = self.block_jobs.has(turn)
        local = self.hit(context) * self.pool.tokens
        found = self.below.find(self.below.names(self.pool.path(context)), len(context), local, coming=True)
        if not found.tokens:
            return now
        self.below.bring_up(found, turn.session, now)
        until_s = self.below.comes_s(found, local, now)
        if until_s > now and len(found.names) > found.on_first:
            self.asked_of.setdefault(turn, found)
        self.seen["jobs that others pass"] += until_s > now
        self.seen["jobs that gave way and others pass"] += until_s > now and turn in self.jobs.preempted
        return until_s

    def loaded(self, turn: Turn, now: float) -> None:
        self.name(turn, turn.loaded)
        self.hold(now)

    def claim(self, turn: Turn, cut: int, clipped: bool, now: float) -> None:
        history, prompt = turn.history_tokens, turn.prompt_tokens
        self.contexts[turn.session] = self.block_jobs.prompt(turn, history, prompt)
        if cut or clipped:
            self.block_jobs.parts_from(turn.session, 0 if cut else history + prompt)

    def take(self, turn: Turn, since: float, now: float) -> int:
        """Uses what the pool has of a job's context, and loads what tiers below have beyond that; returns the lowest of these tiers."""
        self.fetching.starts(turn)
        self.expire(now)
        self.below.claim(turn.session)
        hit, found_here, shared = self.use(turn)
        self.read.append(self.read[-1] + found_here * self.block_bytes)
        self.hold(now)
        self.seen["turns that hit blocks"] += bool(hit)
        self.seen["blocks in use by several"] += shared
        self.seen["first turns that hit blocks"] += bool(hit) and not turn.place
        local = hit * self.pool.tokens
        self.below.settle(now)
        found = self.found[turn] = self.below.find(self.names(turn), turn.context, local)
        turn.loaded = local + found.tokens
        if found.tokens:
            self.load(turn, found, since, now)
        asked = self.asked_of.pop(turn, None)
        shares = [local, *self.below.shares(found, local, found.on_first if asked is None else asked.on_first)]
        if not turn.preemptions:
            turn.hbm_tokens, turn.dram_tokens, turn.ssd_tokens = shares
        return max((place for place, tier in enumerate(self.tiers) if getattr(turn, f"{tier.name}_tokens")), default=-1)

    # --- what it has of the pool ------------------------------------------------------------------------------------------------

    @classmethod
    def block_tokens(cls, config: Config, deployment: Deployment, hashed: int | None) -> int:
        """`hashed`: those of a block that the trace has hashes of."""
        return config.store.block_tokens or hashed or 16

    def make_pool(self, blocks: int, tokens: int, most_kept: int) -> Pool:
        return Pool(blocks, tokens, most_kept)

    def make_below(self, tiers: Sequence[Tier], blocks: int) -> Offloading:
        tokens = blocks * self.pool.tokens
        known = self.deployment.stored(tokens), self.threshold
        ordered = self.eviction != "lru"
        shelves = [OrderedShelf(tier, *known, self.eviction, self.seen) if ordered else Shelf(tier, *known) for tier in tiers]
        return Offloading(shelves, blocks, tokens, self.links, self.seen)

    def hit(self, context: Sequence[Token]) -> int:
        """Blocks of it that a job would find."""
        return len(self.pool.hits(context))

    def loads(self, tokens: int) -> int:
        """Bytes of so many tokens that are loaded."""
        return self.sizes.stored[tokens]

    def windows(self, turn: Turn) -> Names:
        """Chunks of windows that are offered with those of its prompt."""
        return []

    def use(self, turn: Turn) -> tuple[int, int, bool]:
        """A job takes the blocks that it starts with; returns how many of its context it finds, how many with those of windows, and whether
        others use any."""
        hits = self.pool.hits(self.contexts[turn.session])
        self.blocks[turn] = self.pool.take(hits, self.pool.needed(self.jobs.tokens(turn)))
        return len(hits), len(hits), self.pool.several(hits)

    def grow(self, now: float) -> None:
        """Those that decode have room for a token more."""
        for turn in self.decoding:
            blocks = self.blocks[turn]
            blocks += self.pool.take([], max(0, self.pool.needed(turn.context) - len(blocks)))

    def compute(self, turn: Turn, tokens: int) -> int:
        """The first tokens of its context are there; returns the blocks that have names since."""
        return self.pool.name(self.blocks[turn], self.contexts[turn.session][:tokens])

    def decodes(self, turn: Turn, now: float) -> None:
        """Its prefill has ended, and its answer has not."""

    def end_use(self, turn: Turn, now: float) -> None:
        self.pool.give_back(self.blocks.pop(turn), now)

    def load(self, turn: Turn, found: Found, since: float, now: float) -> None:
        self.seen["turns that load chunks"] += 1
        compute = self.deployment.steps.prefill(turn.context - turn.loaded, turn.loaded)
        first, size = self.tiers[1], self.loads(found.tokens)
        ready_s = self.below.bring_up(found, turn.session, now)
        self.below.hold(found)
        pace = self.loading.pace(first, size, ready_s, since, now)
        sent = self.loading.book(pace, first.sent(size), now)
        first.went.append((sent, size))
        if self.deployment.connection.asynchronous:
            turn.since_s = sent.end_s
            if self.pool.kept:  # else nobody finds in HBM what it has loaded
                self.below.loads.append((sent.end_s, found.all[(turn.loaded - found.tokens) // self.below.tokens :]))
        else:
            turn.waits_s = self.loading.seconds(pace, compute) - compute

    # --- a step ends, a prefill, and an answer ----------------------------------------------------------------------------------

    def grew(self, now: float) -> None:
        for turn in self.decoding:
            self.write(turn)
        self.grow(now)
        self.hold(now)

    def prefilled(self, turn: Turn, now: float) -> None:
        self.name(turn, turn.context)
        if turn.left > 1:
            self.decodes(turn, now)
            self.hold(now)
        self.below.settle(now)
        self.below.let_go(self.found.pop(turn), turn.session, now)
        if math.isnan(turn.first_token_s):
            self.below.store(0, [*self.names(turn), *self.windows(turn)], turn.session, now)
        super().prefilled(turn, now)

    def complete(self, turn: Turn, now: float) -> None:
        prompt = turn.history_tokens + turn.prompt_tokens
        self.write(turn)
        self.name(turn, turn.context)
        self.below.settle(now)
        saved = self.names(turn)
        offered = prompt // self.below.tokens
        if not self.deployment.connection.saves_answers:
            saved = saved[:offered]
        elif len(saved) > offered:
            self.below.store(0, saved, turn.session, now, offered)
        self.below.renew([*saved, *self.windows(turn)], turn.session, now)
        self.end_use(turn, now)
        self.hold(now)
        super().complete(turn, now)

    def give_back(self, turn: Turn, now: float) -> None:
        """What it has computed stays like that of one that has ended."""
        self.write(turn)
        self.name(turn, turn.context if turn.decodes else turn.computed)
        self.below.settle(now)
        self.below.let_go(self.found.pop(turn, Found()), turn.session, now)
        self.end_use(turn, now)
        self.hold(now)

    def write(self, turn: Turn) -> None:
        """What is out of its answer is a part of its context."""
        context = self.contexts[turn.session]
        context += self.block_jobs.answer(turn, range(len(context), turn.context))

    def names(self, turn: Turn) -> Names:
        """Of the whole chunks of its context."""
        return self.below.names(self.pool.path(self.contexts[turn.session]))

    def name(self, turn: Turn, tokens: int) -> None:
        """The first tokens of its context are in HBM."""
        self.written.append(self.written[-1] + self.compute(turn, tokens) * self.block_bytes)

    def hold(self, now: float) -> None:
        self.hbm.put(0, self.pool.filled() * self.block_bytes - self.hbm.held[0], now)

    # --- what is told of it ---------------------------------------------------------------------------------------------------

    def moment(self, now: float) -> Moment:
        self.fetching.end(now)
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
