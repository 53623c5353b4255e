"""A count-min sketch that forgets: how often was something seen lately, in a few bytes per item.

Source: TinyLFU (Einziger, Friedman, Manes: ACM Transactions on Storage 13(4), 2017), with its minimal increment and its halving of all
counts after a sample. Left out: the doorkeeper, a Bloom filter in front that saves memory.
"""

from operator import getitem

_MULTIPLIERS = (0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9, 0xD6E8FEB86659FD93)
_HALF = bytes(count // 2 for count in range(256))
_HIGHEST = 15


class Sketch:
    """Counts to 15 of numbered items, never too low but for the halving. O(1) per call, amortised."""

    def __init__(self) -> None:
        self._bits = 6
        self._rows = [bytearray(1 << self._bits) for _ in _MULTIPLIERS]
        self._added = 0

    def fit(self, items: int) -> None:
        """Makes the rows four times as wide as there are items. A counter becomes two of the same value, so no count gets too low."""
        while 4 * items > 1 << self._bits:
            self._bits += 1
            self._rows = [bytearray(count for count in row for _ in range(2)) for row in self._rows]

    def add(self, item: int) -> None:
        """Counts one more; after some 10 to 20 for each item that the sketch is fit for, all counts are halved."""
        places = self._places(item)
        least = min(map(getitem, self._rows, places))
        if least < _HIGHEST:
            for row, place in zip(self._rows, places, strict=True):
                if row[place] == least:
                    row[place] = least + 1
        self._added += 1
        if self._added >= 5 << (self._bits - 1):
            self._added //= 2
            self._rows = [row.translate(_HALF) for row in self._rows]

    def count(self, item: int) -> int:
        """How often the item was seen lately; sometimes too high."""
        return min(map(getitem, self._rows, self._places(item)))

    def _places(self, item: int) -> list[int]:
        """The top bits of products, so that widening splits each place in two neighbours."""
        shift = 64 - self._bits
        return [((item + 1) * multiplier & 0xFFFFFFFFFFFFFFFF) >> shift for multiplier in _MULTIPLIERS]
