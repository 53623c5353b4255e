"""ARC as an order of chunks: those used once and those used again apart, with the balance learnt from what was given up too soon.

As in vLLM: what is stored is among those used once, also when it was given up before; the first request does not count as a second use.

Sources: Megiddo and Modha, ARC, FAST 2003; vLLM 0.33, v1/kv_offload/cpu/policies/arc.py.
"""

from collections import OrderedDict
from collections.abc import Hashable, Iterable, Sequence


class ArcOrder:
    """Of `usable` chunks."""

    def __init__(self, usable: int) -> None:
        self._usable = usable
        self._once: OrderedDict[Hashable, None] = OrderedDict()
        self._again: OrderedDict[Hashable, None] = OrderedDict()
        self._gone_once: OrderedDict[Hashable, None] = OrderedDict()
        self._gone_again: OrderedDict[Hashable, None] = OrderedDict()
        self._target = 0.0
        """Chunks that may have been used once."""
        self._new: frozenset[Hashable] = frozenset()

    def __len__(self) -> int:
        return len(self._once) + len(self._again)

    def __contains__(self, key: Hashable) -> bool:
        return key in self._once or key in self._again

    def load(self, keys: Sequence[Hashable]) -> None:
        """See `Order`: no matter before the request ends."""

    def miss(self, keys: Sequence[Hashable]) -> None:
        """See `Order`."""
        once, again = self._gone_once, self._gone_again
        for key in keys:
            if key in once:
                self._target = min(self._target + max(1.0, len(again) / len(once)), self._usable)
            elif key in again:
                self._target = max(self._target - max(1.0, len(once) / len(again)), 0.0)

    def make_room(self, count: int, spared: Iterable[Hashable]) -> bool:
        """See `Order`."""
        going = self._going(count, frozenset(spared))
        if len(going) < count:
            return False
        for key, held, gone in going:
            del held[key]
            gone[key] = None
        for gone in (self._gone_once, self._gone_again):
            while len(gone) > self._usable:
                gone.popitem(last=False)
        return True

    def _going(self, count: int, spared: frozenset[Hashable]) -> list[tuple[Hashable, OrderedDict, OrderedDict]]:
        """The next to go: (key, where it is held, where it is remembered)."""
        once, again = ((key for key in held if key not in spared) for held in (self._once, self._again))
        left, found = len(self._once), []
        for _ in range(count):
            key = next(once, None) if left >= int(self._target) else None
            if key is not None:
                left -= 1
                found.append((key, self._once, self._gone_once))
            elif (key := next(again, None)) is not None:
                found.append((key, self._again, self._gone_again))
        return found

    def add(self, keys: Sequence[Hashable]) -> None:
        """See `Order`."""
        for key in keys:
            self._gone_once.pop(key, None)
            self._gone_again.pop(key, None)
            self._once[key] = None
        self._new = frozenset(keys)

    def renew(self, keys: Sequence[Hashable]) -> None:
        """See `Order`."""
        for key in reversed(keys):
            if key in self._new:
                self._once.move_to_end(key)
            elif key in self:
                self._once.pop(key, None)
                self._again[key] = None
                self._again.move_to_end(key)
        self._new = frozenset()
