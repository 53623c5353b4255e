"""What the engine asks of a store, whichever it is: where a session's KV is, and what moves are due.

A store owns bytes and has no clock; `now` is passed in. It moves nothing itself and calls nobody back: it answers what is due, and hears
when that has ended. Sessions are keys to it, which it only compares. Sizes are bytes.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import NamedTuple

from mypy_extensions import mypyc_attr

from kvplan.sim.store.tier import Tier


class Move:
    """KV on its way from one tier to another."""

    __slots__ = ("session", "size", "source", "stays", "target")

    def __init__(self, session: int, source: int, target: int, size: int) -> None:
        self.session = session
        """−1 when it has become useless on its way."""
        self.source, self.target, self.size = source, target, size
        self.stays = False
        """Whether the source keeps what is written to the target."""


class Useful(NamedTuple):
    """Which bytes of what is kept of a history its next job can use; None in `stop` means to the end."""

    start: int = 0
    """The oldest are of no use, up to here: the context window was cut, and positions are decoupled."""
    stop: int | None = None
    """What comes after is of no use: the history has been edited, or goes on from an earlier point. 0: nothing is."""


ALL = Useful()

Spills = Callable[[int, int], bool]
"""(tier, bytes) -> whether a tier can be written so much just now, asked when one above could hold it but has no room."""


def always(tier: int, size: int) -> bool:
    """Of an owner whose links are never too busy."""
    return True


@mypyc_attr(allow_interpreted_subclasses=True)
class Store(ABC):
    """One replica's."""

    tiers: list[Tier]
    """Fastest first; none at all in a store that keeps nothing."""
    fetch_target: int | None
    """The tier that fetches fill from below; None when there is none, or nothing below it."""
    skipped_saves: int
    """Saves for which no tier had room."""
    moved: list[int]
    """Sessions that are expected, and whose KV has another home since the owner looked, or none. The owner empties it."""
    tells: bool = True
    """Whether anything comes into `moved`: not where the owner wants to know nothing."""

    # --- where KV is

    @abstractmethod
    def lookup(self, session: int) -> tuple[int, int]:
        """(tier, bytes) of the session's KV; (−1, 0) when nothing is kept."""

    @abstractmethod
    def arrived(self, session: int) -> tuple[int, int]:
        """`lookup`, less what would still have to come from below the fetch target."""

    @abstractmethod
    def bytes_to_come(self, session: int) -> int:
        """Of the session's KV, what a fetch brings or could bring."""

    # --- the life of a turn

    @abstractmethod
    def come(self, session: int, now: float, useful: Useful = ALL) -> None:
        """A turn of the session has come, that can use so much of what is kept."""

    @abstractmethod
    def expect(self, session: int, position: float) -> None:
        """Its job has joined the queue, or has another place in it."""

    @abstractmethod
    def announce(self, session: int) -> None:
        """Word has come that a job of the session will follow."""

    @abstractmethod
    def claim(self, session: int, now: float, useful: Useful = ALL) -> tuple[int, int]:
        """Its job starts: what it can use is kept until `release`. Returns where that is, as `lookup` does."""

    @abstractmethod
    def keep_only(self, session: int, now: float, useful: Useful) -> None:
        """Of what is kept of the session no more than this is of use to any job to come."""

    @abstractmethod
    def load(self, session: int, size: int, now: float) -> int | None:
        """So much of a claimed session's KV is read for its job; returns the tier that it comes into on its way, if any."""

    @abstractmethod
    def save(self, session: int, size: int, now: float, spills: Spills = always) -> tuple[int, int]:
        """The KV of a claimed session is now `size` bytes; (the tier that takes it, bytes to be copied there), or (−1, 0)."""

    @abstractmethod
    def release(self, session: int, now: float) -> None:
        """Its job has ended."""

    # --- moves

    @abstractmethod
    def next_fetch(self, now: float) -> Move | None:
        """The next session to bring up ahead of its job, if there is one and it has room."""

    @abstractmethod
    def next_demotion(self, source: int, now: float) -> Move | None:
        """The next that a tier must write to the one below it, or is to copy there."""

    @abstractmethod
    def end_move(self, move: Move, now: float, sent: int | None = None) -> None:
        """The bytes have arrived: all, or the first `sent` of them, because the session's job has started."""
