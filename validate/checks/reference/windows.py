"""A pool of blocks for a model with windows: each block is one group's, of full attention (group 0) or of a window, block by block.

Of each window a job has as many blocks as it reaches and one more, and until its prefill has ended those that a step needs. Some have
names, the others lie in `rest`; for each that several jobs use all but one of them have another in `reserve`.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from kvplan.validate.checks.reference.blocks import BlockJobs, BlockReplica, Pool
from kvplan.validate.checks.reference.histories import Token
from kvplan.validate.checks.reference.offloading import Found, Offloading
from kvplan.validate.checks.reference.shelf import Names, Shelf
from kvplan.validate.checks.reference.store import Tier
from kvplan.validate.checks.reference.turns import Turn


@dataclass
class Held:
    """What one job has."""

    full: list[int]
    named: dict[tuple[int, int], int]  # of windows: by group and place
    room: int  # tokens
    ahead: int  # blocks of each window, until its prefill has ended
    ends: list[int]  # before which blocks of windows are named
    known: int  # blocks of its context that have names in full attention
    rest: list[int] = field(default_factory=list)
    hit: int = 0  # blocks that the pool had
    loaded: int = 0  # blocks up to which it has loaded its context
    last: int = 0  # blocks of all that it computes or finds, that a lookup could find


class WindowsPool(Pool):
    """One group with full attention, and `windowed` others. `step`: tokens that a step computes at most."""

    def __init__(self, blocks: int, tokens: int, kept: int, windowed: int, window: int, step: float) -> None:
        super().__init__(blocks, tokens, kept)
        self.windowed = range(1, windowed + 1)
        self.reach = super().needed(window - 1)
        self.has = self.reach + 1  # of each window, when a job decodes
        self.in_step = blocks if step > blocks * tokens else super().needed(window - 1 + int(step)) + 1
        self.reserve: list[int] = []
        self.owed = 0  # blocks with names that are not the pool's yet

    # --- how many -------------------------------------------------------------------------------------------------------------

    def of_window(self, tokens: int) -> int:
        return min(super().needed(tokens), self.has)

    def needed(self, tokens: int) -> int:
        return super().needed(tokens) + len(self.windowed) * self.of_window(tokens)

    def ahead(self, known: int, hit: int, there: int) -> int:
        return min(super().needed(known) - max(0, hit - self.reach), self.in_step) - self.of_window(known)

    def used(self) -> int:
        return sum(users > 0 for users in self.users)

    # --- what is there --------------------------------------------------------------------------------------------------------

    def found(self, path: Sequence[int], most: int) -> tuple[int, int, dict[object, int]]:
        """Blocks of the longest prefix that all groups can go on from, those that full attention has, and where each name is first."""
        first: dict[object, int] = {name: block for block, name in reversed(self.names.items())}
        there = next(at for at in range(most + 1) if at == most or (0, path[at]) not in first)
        hit = max(
            length
            for length in range(there + 1)
            if all((group, path[at]) in first for at in range(max(0, length - self.reach), length) for group in self.windowed)
        )
        return hit, there, first

    def takes(self, path: Sequence[int], known: int, room: int) -> int:
        """Free blocks that a job takes which begins."""
        hit, there, first = self.found(path, (known - 1) // self.tokens)
        shared = sum(self.users[first[0, path[at]]] > 0 for at in range(hit))
        return self.needed(room) + len(self.windowed) * self.ahead(known, hit, there) - shared

    # --- a job's life -----------------------------------------------------------------------------------------------------------

    def begin(self, path: Sequence[int], known: int, prompt: int, room: int) -> Held:
        hit, there, first = self.found(path, (known - 1) // self.tokens)
        full = [first[0, path[at]] for at in range(hit)]
        reached = range(max(0, hit - self.reach), hit)
        named = {(group, at): first[group, path[at]] for at in reached for group in self.windowed}
        ends = [self.replayed(known, prompt), *([there] if there > hit else [])]
        held = Held(full, named, room, self.ahead(known, hit, there), ends, hit, hit=hit)
        again = sum(self.users[block] > 0 for block in named.values())
        new = Pool.needed(self, room) - hit
        rest = len(self.windowed) * (self.of_window(room) + held.ahead) - len(named)
        hits = [*full, *named.values()]
        mine = self.take(hits, len(hits) + again + new + rest)[len(hits) :]
        self.reserve += mine[:again]
        held.full = full + mine[again : again + new]
        held.rest = mine[again + new :]
        return held

    def replayed(self, known: int, prompt: int) -> int:
        """Before which block windows are named for who asks for the same prompt."""
        return (prompt - 1) // self.tokens

    def compute(self, held: Held, path: Sequence[int], tokens: int) -> int:
        """The first tokens of a job's context are there; returns the blocks that have names since."""
        self.changes += 1
        before, stop = len(self.names), tokens // self.tokens
        for at in range(held.known, stop):
            self.names[held.full[at]] = 0, path[at]
            if at >= self.since(held) and any(end - self.reach <= at < end for end in held.ends):
                for group in self.windowed:
                    held.named[group, at] = block = held.rest.pop() if held.rest else self.borrow()
                    self.names[block] = group, path[at]
        held.known = max(held.known, stop)
        return len(self.names) - before

    def since(self, held: Held) -> int:
        """From which block on a job has had windows."""
        return max(held.hit, held.loaded) - self.reach

    def borrow(self) -> int:
        """A block that the pool has not got: others leave windows at once, and one of the pool's goes for it."""
        self.owed += 1
        self.users.append(1)
        self.left_s.append(0.0)
        return len(self.users) - 1

    def move_on(self, held: Held, tokens: int, now: float) -> None:
        """A job that decodes has so many tokens: its windows have left what is before the last blocks of them."""
        first = Pool.needed(self, tokens) - self.has
        self.leave(held, [place for place in held.named if place[1] < first], now)
        held.ahead = 0
        more = len(held.rest) + len(held.named) - len(self.windowed) * self.of_window(held.room)
        for _ in range(more):
            self.give_back([held.rest.pop()], now)
        self.pay()
        held.rest += self.take([], max(0, -more))

    def pay(self) -> None:
        """For blocks that were borrowed as many go for good."""
        for block in self.take([], self.owed):
            self.users[block] = 0
        self.owed = 0

    def leave(self, held: Held, places: list[tuple[int, int]], now: float) -> None:
        """One group's after the other's, the last first."""
        for place in sorted(places, key=lambda place: (place[0], -place[1])):
            block = held.named.pop(place)
            self.give_back([block], now)
            if self.users[block]:
                self.give_back([self.reserve.pop()], now)

    def grow(self, held: Held, room: int) -> None:
        held.full += self.take([], max(0, Pool.needed(self, room) - len(held.full)))
        held.rest += self.take([], len(self.windowed) * max(0, self.of_window(room) - self.of_window(held.room)))
        held.room = max(room, held.room)

    def end(self, held: Held, now: float) -> None:
        self.give_back(held.full, now)
        self.leave(held, [*held.named], now)
        self.give_back(held.rest, now)
        self.pay()


class WindowsJobs(BlockJobs):
    """Whose HBM is that pool's."""

    pool: WindowsPool

    def takes(self, turn: Turn, tokens: int) -> int:
        context = self.has(turn)
        return self.pool.takes(self.pool.path(context), len(context), tokens) * self.each


class WindowsShelf(Shelf):
    """Where the chunks of windows are there whatever is before them; their names have their group."""

    def there(self, names: Names) -> Names:
        of_windows = [name for name in names if isinstance(name, tuple)]
        return [*super().there(names[: len(names) - len(of_windows)]), *(name for name in of_windows if name in self.stamps)]

    def wanted(self, names: Names, known: int) -> Names:
        of_windows = [name for name in names if isinstance(name, tuple)]
        if self.threshold > 1:
            self.offers.update(name for name in of_windows if name not in self.stamps)
        enough = [name for name in of_windows if name in self.stamps or self.threshold == 1 or self.offers[name] >= self.threshold]
        return [*super().wanted(names[: len(names) - len(of_windows)], known), *enough]


class WindowsOffloading(Offloading):
    """Of which a lookup takes `reach` chunks of each window."""

    windowed: range
    reach: int

    def find(self, names: Names, tokens: int, hit: int, coming: bool = False) -> Found:
        shelves = [*self.shelves]
        while shelves:
            found = self.search(shelves, names[: (tokens - 1) // self.tokens], hit // self.tokens, coming)
            there = [name for name in found.all if name in shelves[0].stamps]
            if len(found.all) - len(there) <= shelves[0].most(there):
                found.tokens = len(found.names) * self.tokens - hit
                return found if found.tokens >= self.tokens else Found()
            self.seen["windows that have no room to come up"] += 1
            shelves.pop()
        return Found()

    def search(self, shelves: Sequence[Shelf], names: Names, start: int, coming: bool) -> Found:
        """The longest prefix that goes on from the first chunks, with what it takes of windows; the first shelf's chunks that are on their
        way hold back what is behind them, or count as there."""
        first, lower = shelves[0], shelves[1:]

        def is_there(name: object) -> bool:
            if name in first.stamps:
                return coming or first.is_ready(name)
            return any(shelf.is_ready(name) for shelf in lower)

        on_first = len(first.there(names) if coming else first.come(names))
        most = on_first
        if len(first.there(names)) == on_first:
            most = max([on_first, *(len(shelf.come(names)) for shelf in lower)])
        for stop in range(most, start, -1):
            beside = [(group, name) for group in self.windowed for name in names[max(start, stop - self.reach) : stop]]
            if all(map(is_there, beside)):
                self.seen["windows cut a hit"] += stop < most
                return Found(names[:stop], min(on_first, stop), beside=beside)
        return Found()


class WindowsReplica(BlockReplica):
    """Whose tiers below have chunks of each group."""

    JOBS = WindowsJobs
    OFFLOADING: type[WindowsOffloading] = WindowsOffloading
    SHELF: type[WindowsShelf] = WindowsShelf
    pool: WindowsPool
    held: dict[Turn, Held]

    def make_pool(self, blocks: int, tokens: int, most_kept: int) -> Pool:
        self.held = {}
        layers = [(group.kind.window, group.count) for group in self.deployment.model.layers]
        ((window, _),) = self.deployment.hbm_kv.windows
        full, windowed = (sum(count for of, count in layers if (of == window) == apart) for apart in (False, True))
        return WindowsPool(blocks, tokens, most_kept, math.ceil(windowed / full), window, self.batching.budget)

    def make_below(self, tiers: Sequence[Tier], blocks: int) -> Offloading:
        each = blocks * self.pool.tokens * self.deployment.kv.per_token
        shelves = [self.SHELF(tier, each, self.threshold) for tier in tiers]
        below = self.OFFLOADING(shelves, blocks, blocks * self.pool.tokens, self.links, self.seen)
        below.windowed, below.reach = self.pool.windowed, math.ceil(self.pool.reach / blocks)
        return below

    def hit(self, context: Sequence[Token]) -> int:
        return self.pool.found(self.pool.path(context), (len(context) - 1) // self.pool.tokens)[0]

    def loads(self, tokens: int) -> int:
        of_windows = len(self.pool.windowed) * min(tokens, self.pool.reach * self.pool.tokens)
        return (tokens + of_windows) * self.deployment.kv.per_token

    def load(self, turn: Turn, found: Found, since: float, now: float) -> None:
        super().load(turn, found, since, now)
        self.held[turn].loaded = turn.loaded // self.pool.tokens

    def windows(self, turn: Turn) -> Names:
        held, size, names = self.held[turn], self.below.blocks, self.names(turn)
        since, reach = max(0, self.pool.since(held)), self.pool.reach
        places = {at // size for at in range(since, held.loaded)}
        for end in held.ends:
            end -= end % size
            for chunk in {at // size for at in range(max(0, end - reach), end)}:
                needed = [at for at in range(chunk * size, chunk * size + size) if max(0, end - reach) <= at]
                places |= {chunk} if needed[0] >= since else set()
        return [(group, names[chunk]) for group in self.pool.windowed for chunk in sorted(places)]

    def path(self, turn: Turn) -> list[int]:
        return self.pool.path(self.contexts[turn.session])

    def use(self, turn: Turn) -> tuple[int, int, bool]:
        known, prompt = len(self.contexts[turn.session]), turn.history_tokens + turn.prompt_tokens
        held = self.held[turn] = self.pool.begin(self.path(turn), known, prompt, self.jobs.tokens(turn))
        hits = [*held.full[: held.known], *held.named.values()]
        return held.known, len(hits), self.pool.several(hits)

    def grow(self, now: float) -> None:
        for turn in self.decoding:
            self.pool.move_on(self.held[turn], turn.context, now)
        for turn in self.decoding:
            self.pool.grow(self.held[turn], self.jobs.tokens(turn))

    def compute(self, turn: Turn, tokens: int) -> int:
        return self.pool.compute(self.held[turn], self.path(turn), tokens)

    def decodes(self, turn: Turn, now: float) -> None:
        self.pool.move_on(self.held[turn], turn.context + 1, now)

    def end_use(self, turn: Turn, now: float) -> None:
        self.pool.end(self.held.pop(turn), now)
