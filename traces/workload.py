"""The one table that every reader and generator makes and that the simulator replays.

One row per turn, sorted by session and then by turn. Two ways to say when a turn arrives:

- *closed loop*: a session's first turn arrives at `arrival_s`; each later turn arrives `gap_s` (the think time) after the answer
  to the one before, whenever the simulated server gives it. `arrival_s` of later turns is NaN.
- *open loop*: every turn has its recorded `arrival_s`, and `gap_s` is NaN. A turn whose predecessor is still running waits for it.

Readers of formats without times leave both NaN; `with_times` fills them in.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np

MAX_TOKENS = 10**9
"""More tokens than this in one message are taken for a broken record."""


class TraceError(ValueError):
    """A trace is unusable; the message says which file and record, why, and what to do."""


@dataclass(frozen=True)
class Workload:
    """Turns of all sessions, in columns of equal length."""

    session: np.ndarray
    """int32: index of the session, 0, 1, 2, …, ascending."""
    prompt_tokens: np.ndarray
    """int32: new tokens of the user in this turn, history not included; at least 1."""
    output_tokens: np.ndarray
    """int32: tokens of the answer; at least 1."""
    arrival_s: np.ndarray
    """float64: seconds from the start of the trace, or NaN (see above)."""
    gap_s: np.ndarray
    """float64: seconds from the end of the previous answer, 0 for first turns, or NaN (see above)."""
    open_loop: bool = False
    tenant: np.ndarray | None = None
    """Optional: one label per session."""
    origin: Mapping[str, object] = field(default_factory=dict)
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
        for name in ("prompt_tokens", "output_tokens"):
            column = getattr(self, name)
            bad = np.flatnonzero((column < 1) | (column > MAX_TOKENS))
            if bad.size:
                raise TraceError(f"turn {bad[0]}: {name} is {column[bad[0]]}, which is not within 1 and {MAX_TOKENS}")
        if self.tenant is not None and len(self.tenant) != self.sessions:
            raise TraceError(f"{len(self.tenant)} tenants are given for {self.sessions} sessions")
        if self.timed:
            self._check_times()

    def _check_times(self) -> None:
        first = self.is_first
        timed = np.ones(len(first), bool) if self.open_loop else first
        arrivals = self.arrival_s[timed]
        if not np.all(np.isfinite(arrivals)) or np.any(arrivals < 0):
            raise TraceError("an arrival time is missing, negative or not finite")
        if self.open_loop:
            if np.any(np.diff(self.arrival_s)[~first[1:]] < 0):
                raise TraceError("turns of a session are out of order in time")
        elif not np.all(np.isfinite(self.gap_s)) or np.any(self.gap_s < 0):
            raise TraceError("a think time is missing, negative or not finite")

    @property
    def turns(self) -> int:
        """Number of turns."""
        return len(self.session)

    @property
    def sessions(self) -> int:
        """Number of sessions."""
        return int(self.session[-1]) + 1

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
        """int64 per turn: all tokens of the session before this turn, untruncated."""
        total = self.prompt_tokens.astype(np.int64) + self.output_tokens
        before = np.cumsum(total) - total
        return before - before[self.first_turn[self.session]]

    @property
    def session_tokens(self) -> np.ndarray:
        """int64 per session: all its tokens, untruncated."""
        return np.add.reduceat(self.prompt_tokens.astype(np.int64) + self.output_tokens, self.first_turn[:-1])

    @property
    def timed(self) -> bool:
        """Whether arrivals are known."""
        return not bool(np.isnan(self.arrival_s[0]))

    def with_times(self, arrival_s: np.ndarray, gap_s: np.ndarray) -> "Workload":
        """The same turns in a closed loop: `arrival_s` per session in seconds, `gap_s` per turn (ignored for first turns)."""
        first = self.is_first
        arrivals = np.full(self.turns, np.nan)
        arrivals[first] = arrival_s
        return replace(self, arrival_s=arrivals, gap_s=np.where(first, 0.0, gap_s), open_loop=False)


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
