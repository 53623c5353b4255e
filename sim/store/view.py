"""What eviction policies see of a tier, and what only the store's owner can tell them."""

import math

from mypy_extensions import mypyc_attr

from kvplan.sim.policies.base import View
from kvplan.sim.store.record import Records
from kvplan.sim.store.tier import Tier


@mypyc_attr(allow_interpreted_subclasses=True)
class Knowledge:
    """What the store has no means to know. Whoever owns a store says what it knows; by this, time stands still and all costs the same."""

    def now_s(self) -> float:
        """Simulated time."""
        return 0.0

    def recompute_s(self, session: int, size: int) -> float:
        """Seconds to prefill the tokens of `size` bytes of the session's KV."""
        return 1.0

    def load_s(self, tier: str, size: int) -> float:
        """Seconds to bring `size` bytes from the tier to the GPU over idle links."""
        return 1.0

    def next_use_s(self, session: int) -> float:
        """When the session's next turn comes or came; infinity when there is none."""
        return math.inf

    def tenant(self, session: int) -> int:
        """Number of the session's tenant."""
        return 0


@mypyc_attr(allow_interpreted_subclasses=True)
class KnowingView(View):
    """A tier, of which a subclass says what it holds of a session, and where its job is in the queue."""

    def __init__(self, name: str, capacity: int, is_last: bool, knowledge: Knowledge) -> None:
        self.capacity, self.is_last = capacity, is_last
        self._name, self._knowledge = name, knowledge

    def now_s(self) -> float:
        return self._knowledge.now_s()

    def recompute_s(self, session: int) -> float:
        return self._knowledge.recompute_s(session, self.size(session))

    def load_s(self, session: int) -> float:
        return self._knowledge.load_s(self._name, self.size(session))

    def next_use_s(self, session: int) -> float:
        return self._knowledge.next_use_s(session)

    def tenant(self, session: int) -> int:
        return self._knowledge.tenant(session)


class TierView(KnowingView):
    """One tier of whole sessions, as its eviction policy sees it."""

    def __init__(self, tier: Tier, is_last: bool, records: Records, knowledge: Knowledge) -> None:
        super().__init__(tier.name, tier.capacity, is_last, knowledge)
        self._records, self._index = records, tier.index

    def size(self, session: int) -> int:
        return self._records[session].held[self._index]

    def position(self, session: int) -> float | None:
        return self._records[session].position
