"""A heap of items by key whose entries can be replaced and discarded; every operation is O(log n), amortised."""

from heapq import heapify, heappop, heappush
from typing import Generic, TypeVar

Rank = float | tuple[float, ...]
"""What items can be ordered by."""
Key = TypeVar("Key", bound=Rank)


class LazyHeap(Generic[Key]):
    """Smallest key first; ties by item. Stale entries are skipped when met and swept when they outnumber live ones."""

    def __init__(self) -> None:
        self._heap: list[tuple[Key, int]] = []
        self._key: dict[int, Key] = {}

    def push(self, item: int, key: Key) -> None:
        """Adds the item, or moves it to a new key."""
        self._key[item] = key
        heappush(self._heap, (key, item))
        if len(self._heap) > 2 * len(self._key) + 64:
            self._heap = [(key, item) for item, key in self._key.items()]
            heapify(self._heap)

    def discard(self, item: int) -> bool:
        """Removes the item; whether it was there."""
        return self._key.pop(item, None) is not None

    def first(self) -> tuple[Key, int] | None:
        """The smallest key, and its item."""
        heap, keys = self._heap, self._key
        while heap:
            first = heap[0]
            if keys.get(first[1]) == first[0]:
                return first
            heappop(heap)
        return None

    def peek(self) -> int | None:
        """The item with the smallest key."""
        first = self.first()
        return None if first is None else first[1]

    def key(self, item: int) -> Key:
        """The key of an item that is there."""
        return self._key[item]

    def __contains__(self, item: int) -> bool:
        return item in self._key

    def __len__(self) -> int:
        return len(self._key)
