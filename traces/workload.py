"""The one table that every reader and generator makes and that the simulator replays.

One row per turn, sorted by session and then by turn. Two ways to say when a turn arrives:

- *closed loop*: a session's first turn arrives at `arrival_s`; each later turn arrives `gap_s` (the think time) after the answer
  to the one before, whenever the simulated server gives it. `arrival_s` of later turns is NaN.
- *open loop*: every turn has its recorded `arrival_s`, and `gap_s` is NaN. A turn whose predecessor is still running waits for it.

What a source does not know is NaN: `with_arrivals` and `filled` supply it. A source that knows both, arrivals of all turns and
think times, can be replayed either way.

A turn's context is the history of its session, then its prompt. Where a log shows that a turn went on from less than the whole history
(an edited message, a compacted context), `dropped_tokens` says how much of the history's end it left.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from kvplan.traces.beginnings import Beginnings, mixed
from kvplan.traces.hashes import spread

MAX_TOKENS = 10**8
"""More tokens than this in one message are taken for a broken record."""


class TraceError(ValueError):
    """A trace is unusable; the message says which file and record, why, and what to do."""


@dataclass(frozen=True)
class Blocks:
    """Hashes of each turn's context (history and prompt, not its answer) in blocks, for stores that work on blocks."""

    block_tokens: int
    """Tokens of a block."""
    first: np.ndarray
    """int64 per turn and one more: where its hashes begin in `ids`."""
    ids: np.ndarray
    """int64: the hashes of all turns."""

    def apart(self, names: np.ndarray) -> "Blocks":
        """The same only between turns of one name."""
        _, number = np.unique(names, return_inverse=True)
        return Blocks(self.block_tokens, self.first, mixed(self.ids, np.repeat(number, np.diff(self.first))))


@dataclass(frozen=True)
class Families:
    """Sessions that others start, such as subagents."""

    root: np.ndarray
    """int32 per session: the one that it comes with, itself where it comes by itself."""
    after_s: np.ndarray
    """float64 per session: seconds from the root's first arrival to its own."""


@dataclass(frozen=True)
class Workload:
    """Turns of all sessions, in columns of equal length."""

    session: np.ndarray
    """int32: index of the session, 0, 1, 2, …, ascending."""
    prompt_tokens: np.ndarray
    """int32: new tokens of the user in this turn, history not included; at least 1."""
    output_tokens: np.ndarray
    """int32: tokens of the answer; 0 where nothing was generated: the prompt is prefilled, and that is all."""
    arrival_s: np.ndarray
    """float64: seconds from the start of the trace, or NaN (see above)."""
    gap_s: np.ndarray
    """float64: seconds from the end of the previous answer, 0 for first turns, or NaN (see above)."""
    open_loop: bool = False
    """Whether turns arrive at their `arrival_s`, or a think time after the answer before."""
    dropped_tokens: np.ndarray | None = None
    """int64, optional: tokens at the end of the history that a turn does not go on from; None: every turn keeps all of it."""
    tenant: np.ndarray | None = None
    """Optional: one label per session; objects, for most labels are the same ones."""
    blocks: Blocks | None = None
    """Optional: block hashes, where the source has them."""
    families: Families | None = None
    """Optional: which sessions come with which; None: all come by themselves."""
    beginnings: Beginnings | None = None
    """Optional: what sessions begin with that others have as well, where that is known without hashes."""
    record: np.ndarray | None = None
    """int32, optional: number of the record that a turn was read from, over all files, for messages."""
    files: Sequence[tuple[str, int]] = ()
    """Of the files that `record` counts over: name, and how many records come before it."""
    origin: Mapping[str, Any] = field(default_factory=dict)
    """Where the turns come from: source, how tokens were counted, what was left out. Goes into every result's provenance."""

    def __post_init__(self) -> None:
        turns = len(self.session)
        if turns == 0:
            raise TraceError("the workload has no turns: no session holds a prompt with an answer")
        for name in ("prompt_tokens", "output_tokens", "arrival_s", "gap_s"):
            if len(getattr(self, name)) != turns:
                raise TraceError(f"column {name} has {len(getattr(self, name))} rows, session has {turns}")
        steps = np.diff(self.session)
        if self.session[0] != 0 or np.any((steps != 0) & (steps != 1)):
            raise TraceError("sessions are not numbered 0, 1, 2, … in ascending order")
        for name, least in (("prompt_tokens", 1), ("output_tokens", 0)):
            column = getattr(self, name)
            bad = np.flatnonzero((column < least) | (column > MAX_TOKENS))
            if bad.size:
                raise TraceError(f"turn {bad[0]}: {name} is {column[bad[0]]}, which is not within {least} and {MAX_TOKENS}")
        if self.tenant is not None and len(self.tenant) != self.sessions:
            raise TraceError(f"{len(self.tenant)} tenants are given for {self.sessions} sessions")
        if self.dropped_tokens is not None and (
            len(self.dropped_tokens) != turns or np.any(self.dropped_tokens < 0) or np.any(self.history_tokens < 0)
        ):
            raise TraceError("dropped_tokens is negative, more than the history, or not one per turn")
        if self.blocks is not None and (len(self.blocks.first) != turns + 1 or self.blocks.first[-1] != len(self.blocks.ids)):
            raise TraceError("block hashes do not match the turns")
        if self.families is not None and not _sound(self.families, self.sessions):
            raise TraceError("families: the root of a session is none, or is not one before it, or starts after it")
        if self.beginnings is not None and (len(self.beginnings) != self.sessions or not self.beginnings.sound()):
            raise TraceError("beginnings do not match the sessions, or their parts do not end one after the other")
        self._check_times()

    def _check_times(self) -> None:
        first = self.is_first
        bad = (
            np.flatnonzero((first | self.open_loop) & ~(np.isfinite(self.arrival_s) & (self.arrival_s >= 0)))
            if self.arrivals_known
            else np.empty(0, int)
        )
        if len(bad):
            raise TraceError(f"{self.place(bad[0])}: its arrival time is missing, negative or not finite, while others have one")
        bad = np.flatnonzero(~first & ~np.isnan(self.gap_s) & ~(np.isfinite(self.gap_s) & (self.gap_s >= 0)))
        if len(bad):
            raise TraceError(f"{self.place(bad[0])}: its think time is negative or not finite")
        if self.open_loop:
            late = np.flatnonzero((np.diff(self.arrival_s) < 0) & ~self.is_first[1:])
            if late.size:
                raise TraceError(f"{self.place(late[0] + 1)}: arrives before the turn that it follows: turns are out of order")

    def place(self, turn: int) -> str:
        """Where a turn comes from, for messages: its record if that is known."""
        where = f"turn {int(self.turn[turn]) + 1} of session {int(self.session[turn])}"
        return where if self.record is None else f"{record_place(int(self.record[turn]), self.files)} ({where})"

    @property
    def turns(self) -> int:
        """Number of turns."""
        return len(self.session)

    @property
    def sessions(self) -> int:
        """Number of sessions."""
        return int(self.session[-1]) + 1

    @property
    def roots(self) -> np.ndarray:
        """int64: sessions that come by themselves."""
        return np.arange(self.sessions) if self.families is None else np.flatnonzero(self.families.root == np.arange(self.sessions))

    @property
    def is_first(self) -> np.ndarray:
        """bool per turn: it opens its session."""
        first = np.ones(self.turns, bool)
        first[1:] = self.session[1:] != self.session[:-1]
        return first

    @property
    def first_turn(self) -> np.ndarray:
        """int64 per session and one more: row of its first turn; the last entry is the number of turns."""
        return np.append(np.flatnonzero(self.is_first), self.turns)

    @property
    def turn(self) -> np.ndarray:
        """int64 per turn: its index within its session, from 0."""
        return np.arange(self.turns) - self.first_turn[self.session]

    @property
    def history_tokens(self) -> np.ndarray:
        """int64 per turn: tokens of the session before this turn that it goes on from, untruncated."""
        total = self.prompt_tokens.astype(np.int64) + self.output_tokens
        if self.dropped_tokens is not None:
            total -= self.dropped_tokens
        before = np.cumsum(total) - total
        if self.dropped_tokens is not None:
            before -= self.dropped_tokens
        return before - before[self.first_turn[self.session]]

    @property
    def session_tokens(self) -> np.ndarray:
        """int64 per session: the longest context that it reaches, last answer included, untruncated."""
        return np.maximum.reduceat(self.history_tokens + self.prompt_tokens + self.output_tokens, self.first_turn[:-1])

    @property
    def common_tokens(self) -> np.ndarray:
        """int64 per session: tokens of its start that others may have as well, by construction."""
        return np.zeros(self.sessions, np.int64) if self.beginnings is None else self.beginnings.reach

    @property
    def arrivals_known(self) -> bool:
        """Whether it is known when sessions arrive, for any of them."""
        return not bool(np.isnan(self.arrival_s).all())

    @property
    def gap_known(self) -> np.ndarray:
        """bool per turn: it follows on one, and its think time is known."""
        return ~self.is_first & ~np.isnan(self.gap_s)

    @property
    def gaps_known(self) -> bool:
        """Whether think times are known: those of all turns that follow on one."""
        return bool(self.gap_known.sum() == self.turns - self.sessions)

    def with_arrivals(self, arrival_s: np.ndarray) -> "Workload":
        """The same sessions, arriving at `arrival_s` (one per session of `roots`, seconds), others as long after their root as they do;
        later turns follow after their think times."""
        arrivals = np.full(self.turns, np.nan)
        if self.families is None:
            arrivals[self.is_first] = arrival_s
        else:
            starts = np.empty(self.sessions)
            starts[self.roots] = arrival_s
            arrivals[self.is_first] = starts[self.families.root] + self.families.after_s
        return replace(self, arrival_s=arrivals, open_loop=False)

    def with_gaps(self, gap_s: np.ndarray) -> "Workload":
        """The same turns in a closed loop with think times `gap_s` (one per turn, seconds; first turns' are ignored)."""
        return replace(self, gap_s=np.where(self.is_first, 0.0, gap_s), open_loop=False)

    def filled(self, gap_s: np.ndarray) -> "Workload":
        """The same turns in a closed loop, with think times from `gap_s` (one per turn, seconds) where they are not known."""
        gaps = self.gap_s.copy()
        np.copyto(gaps, gap_s, where=np.isnan(gaps))
        gaps[self.is_first] = 0.0
        return replace(self, gap_s=gaps, open_loop=False)

    def with_times(self, arrival_s: np.ndarray, gap_s: np.ndarray) -> "Workload":
        """Both: a closed loop."""
        return self.with_arrivals(arrival_s).with_gaps(gap_s)

    def opened(self) -> "Workload":
        """Turns at their recorded times. Raises TraceError when the source has none."""
        if not np.all(np.isfinite(self.arrival_s)):
            raise TraceError("an open loop needs the arrival time of every turn, which this trace does not have: replay it closed")
        return replace(self, open_loop=True)

    def closed(self) -> "Workload":
        """Turns a think time after their answers. Where only arrivals were recorded, the time between two requests stands for the think
        time, which is too long by the recorded server's time to answer. What neither gives stays unknown."""
        closed = self.filled(np.diff(self.arrival_s, prepend=0.0))
        taken = int(closed.gap_known.sum() - self.gap_known.sum())
        if not taken:
            return closed
        share = "" if not self.gap_known.any() else f" for {taken:,} of {int((~self.is_first).sum()):,} turns"
        return replace(closed, origin={**self.origin, "think_times": f"times between requests{share}: answers included"})

    def rows_of(self, sessions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """int64: the turns of the sessions of these numbers, one session after the other; and how many each has."""
        first = self.first_turn
        counts = np.diff(first)[sessions]
        ends = np.cumsum(counts)
        rows = np.arange(ends[-1] if len(ends) else 0)
        rows += np.repeat(first[:-1][sessions] - (ends - counts), counts)
        return rows, counts

    def select(self, sessions: np.ndarray) -> "Workload":
        """The sessions of these numbers, in this order; a session may come more than once. Then each time stands for another session like
        it: blocks that it shared with others stay shared, and so do beginnings; blocks that it alone has become others. A
        session whose root does not come before it comes by itself."""
        rows, counts = self.rows_of(sessions)
        pick = {name: getattr(self, name)[rows] for name in ("prompt_tokens", "output_tokens", "arrival_s", "gap_s")}
        for name in ("dropped_tokens", "record"):
            column = getattr(self, name)
            pick[name] = None if column is None else column[rows]
        return replace(
            self,
            session=np.repeat(np.arange(len(sessions), dtype=np.int32), counts),
            tenant=None if self.tenant is None else self.tenant[sessions],
            families=None if self.families is None else _regrouped(self.families, sessions),
            beginnings=None if self.beginnings is None else self.beginnings.those(sessions),
            blocks=None if self.blocks is None else _picked(self.blocks, self.session, rows, np.repeat(_copies(sessions), counts)),
            **pick,
        )


def record_place(number: int, files: Sequence[tuple[str, int]]) -> str:
    """Where the record is that has this number over all files: `record 3`, or `b.json, record 3` where there are several files."""
    if len(files) < 2:
        return f"record {number}"
    name, before = next(file for file in reversed(files) if file[1] < number)
    return f"{name}, record {number - before}"


def _sound(families: Families, sessions: int) -> bool:
    """Whether roots are sessions that come by themselves, before those that come with them."""
    root, after_s = families.root, families.after_s
    if not len(root) == len(after_s) == sessions or np.any((root < 0) | (root > np.arange(sessions))):
        return False
    return bool(np.all(root[root] == root) and np.all(np.isfinite(after_s) & (after_s >= 0)) and not after_s[root].any())


def _regrouped(families: Families, sessions: np.ndarray) -> Families:
    """Of the sessions picked: each comes with the latest copy of its root before it."""
    latest: dict[int, int] = {}
    root = np.arange(len(sessions), dtype=np.int32)
    for place, session in enumerate(sessions.tolist()):
        latest[session] = place
        root[place] = latest.get(int(families.root[session]), place)
    return Families(root, np.where(root == np.arange(len(sessions)), 0.0, families.after_s[sessions]))


def _copies(sessions: np.ndarray) -> np.ndarray:
    """int64 per session: how often it came before."""
    order = np.argsort(sessions, kind="stable")
    begin = np.flatnonzero(np.diff(sessions[order], prepend=-1))
    copies = np.empty(len(sessions), np.int64)
    copies[order] = np.arange(len(sessions)) - np.repeat(begin, np.diff(np.append(begin, len(sessions))))
    return copies


def _picked(blocks: Blocks, session: np.ndarray, rows: np.ndarray, copy: np.ndarray) -> Blocks:
    """The blocks of these turns; those that one session alone has are others in every copy of it."""
    counts = np.diff(blocks.first)[rows]
    first = np.append(0, np.cumsum(counts))
    places = np.arange(first[-1]) + np.repeat(blocks.first[rows] - first[:-1], counts)
    ids, copies = blocks.ids[places], np.repeat(copy, counts)
    if copies.any():
        ids ^= np.where((copies > 0) & _alone(blocks, session)[places], spread(copies, 0).view(np.int64), 0)
    return Blocks(blocks.block_tokens, first, ids)


def _alone(blocks: Blocks, session: np.ndarray) -> np.ndarray:
    """bool per hash: whether one session alone has the block."""
    holder = np.repeat(session, np.diff(blocks.first))
    _, block = np.unique(blocks.ids, return_inverse=True)
    least, most = np.full(len(holder), len(session)), np.full(len(holder), -1)
    np.minimum.at(least, block, holder)
    np.maximum.at(most, block, holder)
    return (least == most)[block]


def untimed(session, prompt_tokens, output_tokens, **origin) -> Workload:
    """A workload whose source has no times; see `Workload.with_times`."""
    session = np.asarray(session, np.int32)
    unknown = np.full(len(session), np.nan)
    return Workload(
        session=session,
        prompt_tokens=np.asarray(prompt_tokens, np.int32),
        output_tokens=np.asarray(output_tokens, np.int32),
        arrival_s=unknown,
        gap_s=unknown,
        origin=origin,
    )
