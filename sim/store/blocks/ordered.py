"""A tier of chunks that leave in the order of an eviction policy, which knows sessions: a chunk is of that session whose turn used it last,
of several at once the one that ended last. What the last turn of its session has not used goes before all others: the context was cut, or
edited. Then those of the session go that is to leave, tail before head, as many as needed.

No chunk goes while one behind it is there: what others go on from stays, of nobody, until the last of them has gone, and goes next.

A session joins the order when the turn ends for which its first chunks came, and each later turn that ends is a use, as in stores of whole
sessions. Who runs is set aside when it should leave; its chunks go when nobody else has any. A policy that names nobody keeps all that is
there, and what is offered is not stored. With a TTL what nobody has used for longer goes, whoever's it is, and a session is forgotten with
the last of its chunks.

`store.eviction: lru` is not this but `kvplan.sim.store.blocks.chunks`: the order of the engines, in which each chunk is as old as its last
use, and those of who runs are the youngest.
"""

from collections.abc import Callable, Hashable
from heapq import heappop, heappush

from kvplan.sim.policies.base import Eviction, View
from kvplan.sim.store.blocks.base import Context, Path
from kvplan.sim.store.blocks.chunks import Chunks, Coming
from kvplan.sim.store.blocks.level import Level
from kvplan.sim.store.blocks.runs import Pieces, Run, Runs, empty_order
from kvplan.sim.store.tier import ASIDE, NEW
from kvplan.sim.store.view import KnowingView, Knowledge

Positions = dict[int, float]
"""Of sessions whose jobs wait, in the queue."""


class ChunkView(KnowingView):
    """One tier of chunks, as its eviction policy sees it. Bytes are of KV, stored once."""

    size_of: Callable[[int], int]
    """Chunks of a session."""
    told_s: float
    """When that was which the policy hears of: what has come is told with the next event."""

    def __init__(self, name: str, capacity: int, is_last: bool, chunk_bytes: int, knowledge: Knowledge, positions: Positions) -> None:
        super().__init__(name, capacity, is_last, knowledge)
        self._each, self._positions, self.told_s = chunk_bytes, positions, 0.0

    def now_s(self) -> float:
        return self.told_s

    def size(self, session: int) -> int:
        return self.size_of(session) * self._each

    def position(self, session: int) -> float | None:
        return self._positions.get(session)


class Tree(Runs):
    """Runs that know whether others go on from them."""

    def __init__(self, ages: bool = False) -> None:
        super().__init__()
        self.of_nobody = empty_order()
        """Chunks whose session has left, and that others go on from …"""
        self.next_to_go = empty_order()
        """… and those that none does any more, before those that their session has left behind."""
        self._going_on: dict[Hashable, int] = {}
        """By a chunk's key, how many runs begin behind it."""
        self._ends: dict[Hashable, Run] = {}
        """Of nobody, by the keys of their last chunks."""
        self._ages = ages
        self._oldest: list[tuple[float, int, Run]] = []
        """Where runs go by age, a heap of (since when nobody used it, number, run); some have been used since, joined, or have gone."""
        self._aged = 0

    def take(self, path: Path, most: int, start: int = 0) -> Pieces:
        pieces = super().take(path, most, start)
        if self._ends:
            for piece in pieces:
                self._ends.pop(piece.run.path[piece.stop - 1], None)
        return pieces

    def give_back(self, pieces: Pieces, now: float = 0.0, order: Run | None = None) -> list[Run]:
        free = super().give_back(pieces, now, order)
        if self._ages:
            for run in reversed(free):
                self._grows_old(run)
        return free

    def _grows_old(self, run: Run) -> None:
        self._aged += 1
        heappush(self._oldest, (run.since, self._aged, run))

    def over(self, ttl_s: float, now: float) -> Run | None:
        """A run that nobody has used for longer; of several the oldest."""
        oldest = self._oldest
        while oldest and oldest[0][0] + ttl_s < now:
            since, _, run = heappop(oldest)
            if not run.users and run.since == since and run in self._heads.get(run.head, ()):
                return run
        return None

    def drop(self, run: Run) -> None:
        """A run that nobody uses goes."""
        self._ends.pop(run.path[run.stop - 1], None)
        self.blocks -= run.blocks
        self._forget(run)

    def evict_from(self, order: Run, most: int) -> int:
        """Of the first run of an order so many chunks go, or as many as nobody goes on from; what others go on from is of nobody then.
        Returns how many."""
        run = order.behind
        gone, path, stop, going_on = 0, run.path, run.stop, self._going_on
        while gone < most and stop - gone > run.start and path[stop - gone - 1] not in going_on:
            gone += 1
        self.evict(gone, order)
        if gone < most and order.behind is run:
            run.leave()
            run.follow(self.of_nobody.ahead)
            self._ends[path[run.stop - 1]] = run
        return gone

    def _list(self, path: Path, start: int, stop: int, copied: bool, head: Hashable, window: int = 0) -> Run:
        run = super()._list(path, start, stop, copied, head, window)
        self._begins(run)
        return run

    def _cut(self, run: Run, place: int) -> Run:
        rest = super()._cut(run, place)
        self._begins(rest)
        last = rest.path[rest.stop - 1]
        if self._ends.get(last) is run:
            self._ends[last] = rest
        if self._ages and not rest.users:
            self._grows_old(rest)
        return rest

    def _begins(self, run: Run) -> None:
        if run.start:
            key = run.path[run.start - 1]
            self._going_on[key] = self._going_on.get(key, 0) + 1

    def _unlist(self, run: Run) -> None:
        super()._unlist(run)
        if not run.start:
            return
        key = run.path[run.start - 1]
        count = self._going_on[key] - 1
        if count:
            self._going_on[key] = count
            return
        del self._going_on[key]
        last = self._ends.pop(key, None)
        if last is not None:
            last.leave()
            last.follow(self.next_to_go)


class OrderedChunks(Chunks):
    """See the module."""

    def __init__(self, usable: int, threshold: int, eviction: Callable[[View], Eviction], view: ChunkView, ages: bool = False) -> None:
        super().__init__(usable, threshold)
        self._runs = self._tree = Tree(ages)
        view.size_of = self.size_of
        self._view = view
        self._eviction = eviction(view)
        self._needs_queue = "queue" in self._eviction.NEEDS
        self._orders: dict[int, Run] = {}
        """Of each session, its chunks that nobody uses just now; of who has none, until it is named to leave."""
        self._running: dict[int, int] = {}
        """Sessions whose turn runs, and the chunks that they had when it began."""
        self._out: dict[int, int] = {}
        """Of these, sessions that are not in the policy's order, and why."""
        self._late: set[int] = set()
        """Sessions whose turn has ended while all their chunks were in use or on their way."""
        self._whose: dict[Run, int] = {}
        """Of the ends of `_orders`, the session."""

    def size_of(self, session: int) -> int:
        """Chunks of a session; of one that runs, those that it had before."""
        before = self._running.get(session)
        if before is not None:
            return before
        end = self._orders.get(session)
        if end is None:
            return 0
        chunks, run = 0, end.behind
        while run is not end:
            chunks += run.blocks
            run = run.behind
        return chunks

    # --- the life of a turn ---------------------------------------------------------------------------------------------------

    def claim(self, session: int) -> None:
        self._running[session] = self.size_of(session)

    def expect(self, session: int) -> None:
        if self._needs_queue and session in self._orders and session not in self._out:
            self._eviction.expect(session)

    def store(self, path: Context, full: int, now: float = 0.0, start: int = 0) -> Coming | None:
        self._view.told_s = now
        return super().store(path, full, now, start)

    def let_go(self, path: Context, pieces: Pieces, now: float = 0.0) -> None:
        session, self._view.told_s = path.session, now
        order = self._orders.get(session)
        end = empty_order() if order is None else order
        self._runs.give_back(pieces, now, end)
        if end.behind is end:
            return
        if order is None:
            self._orders[session], self._whose[end] = end, session
            if session in self._running:
                self._out[session] = NEW
            else:
                self._eviction.insert(session)
        elif session in self._late and session not in self._running:
            self._used(session)

    def release(self, session: int, now: float) -> None:
        self._view.told_s = now
        del self._running[session]
        end = self._orders.get(session)
        if end is None:
            return
        while (run := end.behind) is not end and run.since < now:
            run.leave()
            run.follow(self._tree.next_to_go.ahead)
        if end.behind is end:
            self._late.add(session)
        else:
            self._used(session)

    def _used(self, session: int) -> None:
        """A turn of a session that has chunks here has ended."""
        self._late.discard(session)
        out, eviction = self._out.pop(session, None), self._eviction
        if out == NEW:
            eviction.insert(session)
            return
        if out == ASIDE:
            eviction.restore(session)
        eviction.use(session)
        if self._needs_queue and self._view.position(session) is not None:
            eviction.expect(session)  # its next job waits already: its chunks have come late

    # --- room -----------------------------------------------------------------------------------------------------------------

    def _make_room(self, chunks: int) -> bool:
        if self._usable - self._runs.used < chunks:
            return False
        tree, missing = self._tree, self.held + chunks - self._usable
        while missing > 0:
            if tree.next_to_go.behind is not tree.next_to_go:
                missing -= tree.evict_from(tree.next_to_go, missing)
                continue
            session = self._to_leave()
            if session is None:
                return False
            end = self._orders[session]
            if end.behind is not end:
                missing -= tree.evict_from(end, missing)
            if end.behind is end:
                self._forget(session)
        return True

    def _to_leave(self) -> int | None:
        """The session whose chunks go next; None: nobody's."""
        while (session := self._eviction.victim()) in self._running:
            assert session is not None
            self._eviction.set_aside(session)
            self._out[session] = ASIDE
        if session is None and len(self._out) == len(self._orders):
            return next(iter(self._out), None)
        return session

    def _forget(self, session: int) -> None:
        """It has no chunks any more."""
        out = self._out.pop(session, None)
        if out == ASIDE:
            self._eviction.restore(session)
        if out != NEW:
            self._eviction.remove(session)
        self._late.discard(session)
        del self._whose[self._orders.pop(session)]

    def expire(self, ttl_s: float, now: float) -> list[Run]:
        tree, gone = self._tree, []
        while (run := tree.over(ttl_s, now)) is not None:
            session = self._whose.get(run.ahead) if run.ahead is run.behind else None
            tree.drop(run)
            gone.append(run)
            if session is not None and session not in self._running:
                self._forget(session)
        return gone


class Orders:
    """Makes one replica's tiers, and knows which of its sessions wait."""

    def __init__(self, eviction: type[Eviction], knowledge: Knowledge, ages: bool = False) -> None:
        self._eviction, self._knowledge, self._ages = eviction, knowledge, ages
        self._positions: Positions = {}
        self.foresee = "future" in eviction.NEEDS
        """Whether it is to be known when sessions come back."""

    def chunks(self, level: Level, is_last: bool, threshold: int, chunk_bytes: int) -> OrderedChunks:
        """A tier of them."""
        view = ChunkView(level.name, level.capacity, is_last, chunk_bytes, self._knowledge, self._positions)
        return OrderedChunks(level.capacity // chunk_bytes, threshold, self._eviction, view, self._ages)

    def waits(self, session: int, position: float) -> None:
        """A job of a session has this place in the queue."""
        self._positions[session] = position

    def starts(self, session: int) -> None:
        """It waits no more."""
        self._positions.pop(session, None)
