"""What a policy is: an order, and nothing else.

The store owns bytes, membership, pins and the evict loop; the engine owns time. A policy is told what enters and leaves its order
and is asked who is next. None of these calls may cost more than O(log n).

`position` is the place of a session's waiting job in the job queue: a number, smaller is sooner; None when no job of the session
waits. Policies that read it set `USES_QUEUE`, and are then told whenever it changes.
"""

from abc import ABC, abstractmethod
from typing import ClassVar


class Eviction(ABC):
    """The order in which a tier's sessions leave it. One instance per tier."""

    NAME: ClassVar[str]
    USES_QUEUE: ClassVar[bool] = False

    @abstractmethod
    def insert(self, session: int, position: float | None) -> None:
        """The session joins the order: it was just stored in the tier, or set aside by `remove` while it was in use."""

    @abstractmethod
    def remove(self, session: int) -> None:
        """The session leaves the order, for good or for a while. Always one that is in it."""

    @abstractmethod
    def victim(self) -> int | None:
        """The session in the order that should leave the tier next, None when there is none. Changes nothing a caller can see."""

    def use(self, session: int, position: float | None) -> None:
        """A turn of a session in the order has ended. By default it joins anew; an order that ignores use overrides this."""
        self.remove(session)
        self.insert(session, position)

    def reposition(self, session: int, position: float) -> None:
        """A job of a session in the order has joined the queue. Called when `USES_QUEUE`."""

    def forget(self, session: int) -> None:
        """The session has left the tier for good. Called after `remove`."""


class Queue(ABC):
    """What a policy may see of the job queue."""

    @abstractmethod
    def position_at(self, index: int) -> float | None:
        """Position of the job that is `index` places behind the head, None when fewer wait."""


class Prefetch(ABC):
    """Which session to bring from SSD to DRAM next, ahead of its job."""

    NAME: ClassVar[str]

    @abstractmethod
    def want(self, session: int, position: float) -> None:
        """A job of the session waits while its KV lies on SSD."""

    @abstractmethod
    def drop(self, session: int) -> None:
        """No longer: the job has started, or the KV has moved or gone. Also called for sessions never wanted."""

    @abstractmethod
    def next(self, queue: Queue, room: float) -> int | None:
        """The session to fetch now, None to wait. `room`: mean-sized sessions that DRAM can hold ahead of their jobs."""


class Scheduler(Queue):
    """The queue of waiting jobs (turns), and who is next."""

    NAME: ClassVar[str]

    @abstractmethod
    def push(self, turn: int) -> float:
        """A turn starts to wait; returns its position."""

    @abstractmethod
    def head(self) -> int | None:
        """The turn to admit next, None when nobody waits."""

    @abstractmethod
    def pop(self) -> int:
        """Removes and returns the head."""

    @abstractmethod
    def __len__(self) -> int:
        """Waiting turns."""
