"""A tier of chunks as the first one below HBM and those who move chunks see it, whatever it is made of."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

from kvplan.sim.store.blocks.base import Context, Path


class Part:
    """Of the chunks of a context, those from `start` up to `stop`."""

    def __init__(self, path: Path, start: int, stop: int) -> None:
        self.path, self.start, self.stop = path, start, stop

    @property
    def chunks(self) -> int:
        """How many."""
        return self.stop - self.start


class Moves(ABC):
    """Chunks of a context on their way into a tier, between `start` and `stop`."""

    def __init__(self, path: Context, start: int, stop: int) -> None:
        self.path, self.start, self.stop = path, start, stop

    @property
    @abstractmethod
    def chunks(self) -> int:
        """How many."""


class Below(ABC):
    """One tier."""

    dropped: int
    """Times that chunks were offered and had no room."""

    @property
    @abstractmethod
    def held(self) -> int:
        """Chunks that have room, those on their way too."""

    @abstractmethod
    def reach(self, path: Path, most: int, start: int = 0) -> int:
        """Up to which chunk a context is there, `most` at most, where those before `start` are elsewhere; `start` at least."""

    def ask(self, path: Path, start: int, stop: int, now: float) -> None:
        """These are to come up."""

    def claim(self, session: int) -> None:
        """A turn of a session begins."""

    def expect(self, session: int) -> None:
        """A job of a session waits, or has another place in the queue."""

    def release(self, session: int, now: float) -> None:
        """A turn of a session has ended, and its chunks have been renewed."""

    @abstractmethod
    def store(self, path: Context, full: int, now: float = 0.0, start: int = 0) -> Moves | None:
        """The first `full` chunks of a context are offered, new from `start` on. Those that are missing are on their way from now on, until
        `arrive`; None where none is, or they have no room."""

    @abstractmethod
    def arrive(self, coming: Any, now: float = 0.0) -> None:
        """Chunks that were on their way are there, and may go."""

    @abstractmethod
    def renew(self, path: Context, full: int, now: float = 0.0) -> None:
        """A request with these chunks has ended."""

    def passes(self, path: Context, full: int, now: float, offered: bool = True) -> "Moves | None":
        """A turn of a session takes no time: if the first `full` chunks of its context are offered, those that there is room for are there
        at once. Returns what has come."""
        self.claim(path.session)
        coming = self.store(path, full, now) if offered else None
        if coming is None:
            self.renew(path, full, now)
        else:
            self.arrive(coming, now)
        self.release(path.session, now)
        return coming

    @abstractmethod
    def expire(self, ttl_s: float, now: float) -> Sequence[object]:
        """Chunks that nobody has used for longer go; returns them."""

    @abstractmethod
    def counted(self) -> tuple[int, int]:
        """For guards: chunks one by one, and those that there is room for."""
