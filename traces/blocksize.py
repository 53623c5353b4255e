"""How many tokens a block of a log's hashes stands for: the user's word, else the file's, else what lengths and numbers of hashes leave.

A context of `length` tokens has a hash for each of its full blocks, and one more or none for the rest. So n hashes leave the sizes above
length / (n + 1) and below length / (n − 1), and every record narrows them. The first record with several hashes that the format's own size
fits settles for it: what contradicts it later is a bad record, and no evidence.
"""

import copy
import math
from typing import Any

from kvplan.traces import fields
from kvplan.traces.reading import Reading
from kvplan.traces.source import BadRecord
from kvplan.traces.workload import TraceError

_FOUND = "in the records before"


class BlockSize:
    """Sizes that are left after the records seen so far; `own` is the format's. What a record leaves is another object, so that a bad one
    leaves nothing behind."""

    def __init__(self, own: int, reading: Reading) -> None:
        self._own, self._set = own, reading.block_tokens
        self._low: int = 1 if self._set is None else self._set
        self._high: float = math.inf if self._set is None else self._set
        self._why = _FOUND if self._set is None else "as workload.block_tokens says"

    def said(self, record: dict[str, Any], name: str) -> "BlockSize":
        """What is left after a record's own word, where it has one and the user has none. Raises BadRecord when it cannot be."""
        if self._set is not None or name not in record:
            return self
        size = fields.tokens(record, name)
        if not self._low <= size <= self._high:
            raise BadRecord(f"`{name}` is {size:,}; blocks are of {self._left()} tokens {self._why}")
        return self._with(size, size, f"as `{name}` says")

    def narrowed(self, record: dict[str, Any], name: str, length: int) -> "BlockSize":
        """What is left after a context of `length` tokens and its hashes. Raises BadRecord when these are more or fewer than can be."""
        count = len(fields.items(record, name))
        low, high = max(self._low, length // (count + 1) + 1), min(self._high, (length - 1) // (count - 1) if count > 1 else math.inf)
        if low > high:
            size = f"about {length / count:,.0f}" if count else "no"
            way_out = "" if self._set else " (workload.block_tokens says how many)"
            raise BadRecord(
                f"{count} blocks in `{name}` for {length:,} tokens are {size} tokens a block;"
                f" blocks are of {self._left()} tokens {self._why}{way_out}"
            )
        if count > 1 and low <= self._own <= high:
            low = high = self._own
        return self if (low, high) == (self._low, self._high) else self._with(low, high, self._why)

    def _with(self, low: int, high: float, why: str) -> "BlockSize":
        other = copy.copy(self)
        other._low, other._high, other._why = low, high, why
        return other

    def tokens(self) -> int:
        """The size: the format's own when it can be, else the only one left, or the only power of two. Raises TraceError when there are
        several."""
        if self._low <= self._own <= self._high:
            return self._own
        if self._low == self._high:
            return self._low
        power = 1 << (self._low - 1).bit_length()
        if not power <= self._high < 2 * power:
            raise TraceError(
                f"each block hash stands for {self._left()} tokens, by the numbers of hashes and the lengths; this format has {self._own}:"
                " workload.block_tokens says how many"
            )
        return power

    def origin(self) -> dict[str, Any]:
        """What is to be said of it: nothing of the format's own size."""
        size, why = self.tokens(), self._why
        if size == self._own:
            return {}
        if why == _FOUND:
            why = f"for the numbers of hashes and the lengths leave {self._left()}" + ", with one power of two" * (self._low < self._high)
        return {"block_tokens": f"{size:,} tokens, {why}; this format's own are of {self._own}"}

    def _left(self) -> str:
        if self._high == math.inf:
            return f"{self._low:,} or more"
        return f"{self._low:,}" if self._low == self._high else f"{self._low:,} to {self._high:,}"
