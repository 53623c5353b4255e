"""What a store knows of each session, beside its place in the orders of tiers (`Tier.out`).

A session is one of these, and its record says which:

| state | position | claimed | fetched | pins |
|---|---|---|---|---|
| idle: no job of it is known | None | no | no, or announced and fetched | one per move |
| waiting: its job is in the queue | set | no | from the start of a fetch on | one per move, one while `fetched` |
| running: from `claim` to `release` | None | where there is a fetch target | no | one per move, one for the job |

It is in one tier at least just when it has a `home`.
"""


class Record:
    """One session."""

    __slots__ = ("claimed", "fetched", "held", "home", "pins", "position", "released_s", "session", "uses")

    def __init__(self, session: int, tiers: int) -> None:
        self.session = session
        self.held = [0] * tiers
        """Bytes that each tier holds: the KV of its oldest kept tokens."""
        self.home = -1
        """Index of the tier that has its newest KV; −1 for none."""
        self.pins = 0
        """What keeps it where it is: its running job, moves, a fetch for its job."""
        self.position: float | None = None
        """Of its job in the queue."""
        self.uses = 0
        """Turns that have ended."""
        self.fetched = False
        """Whether what the fetch target holds was brought there for the job that will come."""
        self.claimed = False
        """Whether what the fetch target holds is a running job's."""
        self.released_s: float | None = None
        """When its last turn ended; None while one is known. For a TTL."""

    def below(self, tier: int) -> int:
        """The next tier down that holds some of it; −1 for none."""
        for index in range(tier + 1, len(self.held)):
            if self.held[index]:
                return index
        return -1


class Records(dict[int, Record]):
    """By session; who is asked for has one."""

    def __init__(self, tiers: int) -> None:
        self._tiers = tiers

    def __missing__(self, session: int) -> Record:
        self[session] = record = Record(session, self._tiers)
        return record
