"""The AttentionStore over real memory and real files.

What to keep, move and drop is decided by `kvplan.sim.store.sessions.SessionStore`, the very store of the simulator, with the simulator's
policies. It hands out moves; here they are carried out on chunks in host memory and files on SSD, and reported back when they are
done. After each of its decisions the chunks follow: what it no longer holds is dropped, and where it holds less, the oldest tokens are.

All of it belongs to the thread of the server; only the drive has threads of its own.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

from kvplan.sim.deployment import Deployment
from kvplan.sim.store.nothing import Nothing
from kvplan.sim.store.protocol import Move, Useful
from kvplan.sim.store.sessions import SessionStore
from kvplan.validate.miniserver import chunk as kv
from kvplan.validate.miniserver.chunk import Chunk, ChunkFile
from kvplan.validate.miniserver.drive import Drive, Reading, Writing


class FallibleStore(SessionStore):
    """The simulator's store, of which a write can fail."""

    def undo_demotion(self, move: Move, now: float) -> None:
        """The bytes could not be written: the target gives them up, and the session leaves the source as if there were no room below.

        A copy that only the write policy wanted leaves the source as it is.
        """
        record = self._records[move.session]
        self._unpin(record)
        lost = min(move.size, record.held[move.target])
        if lost:
            self._cut(self.tiers[move.target], record, lost, now)
        if not move.stays and not record.pins and record.held[move.source]:
            self._leave(self.tiers[move.source], record, now)


class NoStore(Nothing):
    """One without tiers."""

    def undo_demotion(self, move: Move, now: float) -> None:
        """Nothing moves."""


@dataclass
class Faults:
    """What went wrong and was survived."""

    failed_writes: int = 0
    """Moves to SSD that failed (a full disk): the sessions were dropped from DRAM unwritten, or not copied."""
    damaged_sessions: int = 0
    """Sessions whose files were missing or corrupt: their KV was given up, and computed again if a job waited for it."""
    messages: list[str] = field(default_factory=list)
    """The first few, in words."""

    def note(self, error: BaseException) -> None:
        """Keeps a message."""
        if len(self.messages) < 10:
            self.messages.append(str(error))


@dataclass(frozen=True)
class Source:
    """Where a job's history comes from: its chunks, oldest first, and when each layer of them is in host memory (None: it is)."""

    chunks: list[Chunk]
    arrived: list[Future] | None = None

    @property
    def tokens(self) -> int:
        """Tokens."""
        return kv.count(self.chunks)


def never(tier: int, size: int) -> bool:
    """KV goes to the drive from host memory only."""
    return False


class Storage:
    """`store` with one tier, DRAM, or two, DRAM and SSD, or none. Times are the server's."""

    def __init__(self, store: FallibleStore | NoStore, drive: Drive, deployment: Deployment) -> None:
        self.store, self.drive = store, drive
        self.faults = Faults()
        self._stored, self._tokens_in = deployment.stored, deployment.tokens_in
        self._dram: dict[int, list[Chunk]] = {}
        self._ssd: dict[int, list[ChunkFile]] = {}
        self._reading: dict[int, Reading] = {}
        """What is on its way up and still wanted, by session."""
        self._under_way = 0
        """Readings that have not been posted yet, wanted or not."""
        self._fetching: tuple[Move, Reading] | None = None
        self._demoting: Move | None = None
        self.moved: Callable[[int], None] = lambda session: None
        """Called with a session whose job waits when its KV has another home, or none."""

    @property
    def is_moving(self) -> bool:
        """Whether anything is under way that will be posted."""
        return self._under_way > 0 or self._demoting is not None

    def come(self, session: int, now: float) -> None:
        """A turn of the session has come."""
        self.store.come(session, now)
        self.follow()

    def claim(self, session: int, cut_tokens: int, embedded: bool, now: float) -> tuple[int, int]:
        """A job starts, and its history loses its oldest `cut_tokens`; returns (tier, tokens) of what the store has of the rest.

        (−1, 0) when it has nothing. With `embedded` positions a cut makes all of it void.
        """
        self.store.claim(session, now)
        if cut_tokens and embedded:
            self._abandon(session, now)
        elif cut_tokens:
            self.store.keep_only(session, now, Useful(start=self._stored(cut_tokens)))
        self.follow()
        tier, size = self.store.lookup(session)
        return tier, self._tokens_in(size)

    def source(self, session: int, tier: int, tokens: int, now: float) -> Source:
        """Sends for what `claim` has found, if it is not in host memory yet."""
        self.store.load(session, self._stored(tokens), now)
        if tier == 0:
            return Source(self._dram[session])
        reading = self._reading.get(session) or self._send_for(session)
        self.follow()
        return Source(kv.newest(reading.chunks, tokens - 1), reading.arrived)

    def give_up(self, session: int, now: float) -> None:
        """What a job waited for is damaged: nothing of the session is kept."""
        self._abandon(session, now)
        self.follow()

    def save(self, session: int, chunks: Sequence[Chunk], tokens: int, now: float) -> int:
        """A turn has ended with a context of `tokens`, whose KV `chunks` hold; returns how many bytes of it were new to DRAM."""
        _, missing = self.store.save(session, self._stored(tokens), now, never)
        if missing:
            self._dram[session] = [chunk.compact() for chunk in chunks]
        self.store.release(session, now)
        self.follow()
        return missing

    def start_moves(self, now: float) -> None:
        """Starts the fetch and the demotion that are due, one at a time of each."""
        store = self.store
        if store.fetch_target is None:
            return
        if self._fetching is None:
            move = store.next_fetch(now)
            if move is not None:
                self._fetching = move, self._send_for(move.session)
        if self._demoting is None:
            self._demoting = move = store.next_demotion(0, now)
            self.follow()
            if move is not None:
                chunks = self._dram[move.session]
                unwritten = kv.count(chunks) - kv.count(self._ssd.get(move.session, []))
                self.drive.write(move.session, kv.newest(chunks, unwritten))

    def take(self, done: Reading | Writing, now: float) -> None:
        """The drive has posted something."""
        if isinstance(done, Writing):
            self._end_writing(done, now)
        else:
            self._end_reading(done, now)
        self.follow()

    def _end_writing(self, writing: Writing, now: float) -> None:
        move, self._demoting = self._demoting, None
        assert move is not None, "a write has ended that no demotion began"
        if writing.error is not None:
            self.faults.failed_writes += 1
            self.faults.note(writing.error)
            self.store.undo_demotion(move, now)
            return
        self._ssd.setdefault(writing.session, []).extend(writing.files)
        self.store.end_move(move, now)

    def _send_for(self, session: int) -> Reading:
        self._under_way += 1
        self._reading[session] = reading = self.drive.read(session, self._ssd[session])
        return reading

    def _end_reading(self, reading: Reading, now: float) -> None:
        session = reading.session
        self._under_way -= 1
        if reading.error is not None:
            self.faults.damaged_sessions += 1
            self.faults.note(reading.error)
        if not reading.abandoned and reading.error is not None:
            self._abandon(session, now)
        elif not reading.abandoned:
            del self._reading[session]
            if self.store.tiers[0].held(session):
                self._dram[session] = reading.chunks
        if self._fetching is not None and self._fetching[1] is reading:
            move, self._fetching = self._fetching[0], None
            if not reading.abandoned:
                self.store.end_move(move, now)

    def _abandon(self, session: int, now: float) -> None:
        """All that is kept of a session, and all that comes of it, is of no use any more."""
        self.store.keep_only(session, now, Useful(stop=0))
        reading = self._reading.pop(session, None)
        if reading is not None:
            reading.abandoned = True

    def follow(self) -> None:
        """Chunks and files follow what the store holds, and who waits hears of it."""
        moved, self.store.moved[:] = self.store.moved[:], []
        for session in moved:
            self.moved(session)
        for tier, held in zip(self.store.tiers, self._holdings, strict=False):
            for session in [session for session, chunks in held.items() if kv.count(chunks) > self._tokens(tier.held(session))]:
                kept = kv.newest(held[session], max(0, self._tokens(tier.held(session))))
                if held is self._ssd:
                    self._delete(held[session], kept)
                held[session] = [chunk.compact() for chunk in kept] if held is self._dram else kept
            for session in [session for session in held if not tier.held(session)]:
                del held[session]

    @property
    def _holdings(self) -> tuple[dict[int, list[Any]], ...]:
        """By session, what is in each tier: chunks in DRAM, files of them on SSD."""
        return self._dram, self._ssd

    def _tokens(self, size: int) -> int:
        """Tokens in chunks of a session of which the store holds `size` bytes: all but the last."""
        return self._tokens_in(size) - 1

    def _delete(self, files: list[ChunkFile], kept: list[ChunkFile]) -> None:
        paths = {file.path for file in kept}
        self.drive.delete([file for file in files if file.path not in paths])

    def check(self) -> None:
        """Raises AssertionError when chunks and files are not what the store says, or are more than a tier can hold."""
        moving = {*self._reading, *([self._demoting.session] if self._demoting is not None else [])}
        for tier, held in zip(self.store.tiers, self._holdings, strict=False):
            found = self._stored(sum(kv.count(chunks) for chunks in held.values()))
            assert found <= tier.capacity, f"{tier.name} has room for {tier.capacity} bytes and holds {found}"
            for session, size in tier.sessions().items():
                if size and session not in moving:
                    known, tokens = self._tokens(size), kv.count(held.get(session, []))
                    assert known == tokens, f"{tier.name} holds {tokens} tokens of session {session}, the store says {known}"
