"""One tier of the store: who holds how many bytes in it, in which order they leave, and the sums that the metrics and the guards read."""

from collections import deque
from typing import Final

from kvplan.sim.policies.base import Eviction
from kvplan.sim.store.record import Record, Records
from kvplan.sim.tiers import TierSpec

NEW: Final = 1
"""Why a session that is in a tier is not in its order: it came for a turn that waits or runs, and joins the order when that turn ends …"""
ASIDE: Final = 2
"""… or it was to leave while it was in use, and joins the order again when it is not. One that is neither of these is in it."""


class Tier:
    """Bytes by session, with capacity. Conservation: `written − moved − dropped == used`."""

    eviction: Eviction
    """The order in which sessions leave; set by the store, since it needs a view of the tier."""

    def __init__(self, spec: TierSpec, records: Records, index: int, largest: int) -> None:
        self.spec, self.name, self.index = spec, spec.name, index
        self._records = records
        self.capacity = self.free = self._least_free = spec.capacity
        """Bytes: all, and those not used."""
        self.largest = largest
        """Bytes of a session that may come in, at most."""
        self.reserve = self.low_water = spec.reserve
        """Bytes that are to be free; and those that are to be free now, when a fetch waits for more than the reserve."""
        self.copies_due: deque[int] = deque()
        """Sessions whose KV the write policy wants in the tier below as well."""
        self.written = self.read = 0
        """Bytes that came in: saved, demoted into or fetched into this tier; and bytes read, to serve a turn or to move to another tier."""
        self.moved = self.dropped = 0
        """Bytes that left because another tier holds them; and those that were lost here: evicted, expired, truncated or voided."""
        self.out: dict[int, int] = {}
        """Sessions that are here and not in the order, and why."""
        self._moment = 0.0

    @property
    def used(self) -> int:
        """Bytes held."""
        return self.capacity - self.free

    # --- bytes ----------------------------------------------------------------------------------------------------------------

    def held(self, session: int) -> int:
        """Bytes of the session."""
        return self._records[session].held[self.index]

    def sessions(self) -> dict[int, int]:
        """Bytes of each session of which there are any, for those who check."""
        return {session: record.held[self.index] for session, record in self._records.items() if record.held[self.index]}

    def add(self, record: Record, size: int, now: float, for_turn: bool = True) -> None:
        """`size` more bytes of the session, which joins the order now, or when the turn ends `for_turn` that they come."""
        held = record.held[self.index]
        record.held[self.index] = held + size
        self._moment += size * now
        self.free = free = self.free - size
        if free < self._least_free:
            self._least_free = free
        self.written += size
        if size and not held:
            if for_turn:
                self.out[record.session] = NEW
            else:
                self.eviction.insert(record.session)

    def cut(self, record: Record, size: int, now: float, moved: bool = False) -> None:
        """`size` bytes of the session leave; with all of them it leaves the order."""
        held = record.held[self.index]
        if size == held:
            session = record.session
            out = self.out.pop(session, None)
            if out == ASIDE:
                self.eviction.restore(session)
            if out != NEW:
                self.eviction.remove(session)
        record.held[self.index] = held - size
        self._moment -= size * now
        self.free += size
        if moved:
            self.moved += size
        else:
            self.dropped += size

    def rewrite(self, size: int) -> None:
        """So many bytes came in the place of others of the same session: windows that have moved on."""
        self.written += size
        self.dropped += size

    def forgo(self, size: int) -> None:
        """`size` bytes that were to come in will not, and have left again as lost."""
        self.written -= size
        self.dropped -= size

    # --- the order ------------------------------------------------------------------------------------------------------------

    def set_aside(self, session: int) -> None:
        """It is in use and was to leave."""
        self.eviction.set_aside(session)
        self.out[session] = ASIDE

    def restore(self, session: int) -> None:
        """One of those that are out is not in use any more: if it was set aside, it may leave."""
        if self.out[session] == ASIDE:
            del self.out[session]
            self.eviction.restore(session)

    def use(self, session: int) -> None:
        """A turn of a session that is here has ended."""
        out = self.out.pop(session, None)
        if out == NEW:
            self.eviction.insert(session)
            return
        if out == ASIDE:
            self.eviction.restore(session)
        self.eviction.use(session)

    # --- what the metrics read ------------------------------------------------------------------------------------------------

    def begin(self) -> None:
        """The measured span begins: `peak` counts from here."""
        self._least_free = self.free

    @property
    def peak(self) -> int:
        """Most bytes held at any time of the measured span."""
        return self.capacity - self._least_free

    def byte_seconds(self, now: float) -> float:
        """Integral of `used` over time, from the start to `now`: each byte has been here since it came."""
        return self.used * now - self._moment
