"""What a store knows of each session, beside the bytes that tiers hold of it (`Tier.held`) and its place in their orders (`Tier.out`).

A session is one of these, and its record says which:

| state | position | claimed | fetched | pins |
|---|---|---|---|---|
| idle: no job of it is known | None | None | None, or announced and fetched | one per move |
| waiting: its job is in the queue | set | None | set from the start of a fetch on | one per move, one while `fetched` |
| running: from `claim` to `release` | None | set where there is a fetch target | None | one per move, one for the job |

It is in one tier at least just when it has a `home`.
"""


class Record:
    """One session."""

    __slots__ = ("claimed", "fetched", "home", "pins", "position", "released_s", "uses")

    def __init__(self) -> None:
        self.home = -1
        """Index of the tier that has its newest KV; −1 for none."""
        self.pins = 0
        """What keeps it where it is: its running job, moves, a fetch for its job."""
        self.position: float | None = None
        """Of its job in the queue."""
        self.uses = 0
        """Turns that have ended."""
        self.fetched: int | None = None
        """Bytes in the fetch target, brought there for the job that will come."""
        self.claimed: int | None = None
        """Bytes in the fetch target, of a running job."""
        self.released_s: float | None = None
        """When its last turn ended; None while one is known. For a TTL."""


class Records(dict[int, Record]):
    """By session; who is asked for has one."""

    def __missing__(self, session: int) -> Record:
        self[session] = record = Record()
        return record
