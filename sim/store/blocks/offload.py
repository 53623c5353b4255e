"""vLLM's own KV offloading: a tier below the HBM pool that is written through, and holds what the pool holds too.

Every full chunk of a prompt is offered once it has been computed, and stored if it is not there; what goes for it is what was used least
recently and is not of this prompt. Where all else going would not make room, nothing is stored: dropped, and never waited for. When the
request ends all its chunks that are there are renewed, tail before head. A lookup goes on where the pool's hit ends. A chunk is one or
several of the pool's blocks: one that is only in part beyond the pool's hit counts by that part, and hits of less than a chunk are none.

A request that loads offers and renews no chunk that the pool had for it; what it loads is renewed before others go for what it stores. So
a head may go before its tail. Chunk by chunk that is followed; in runs heads stay, and a request offers and renews its whole prompt: on a
public trace 9 chunks of 23,755 fewer are hit in one case, and none in others.

Left out: time. Chunks are there when the request ends. Source: vLLM 0.33, v1/kv_offload.
"""

from collections import OrderedDict
from collections.abc import Hashable, Iterable, Sequence
from itertools import islice
from typing import Protocol

from kvplan.sim.store.blocks.base import Context

_TRACKED = 64_000
"""Keys whose offers are counted, those offered last."""


class Offload(Protocol):
    """A tier below a pool."""

    @property
    def stored(self) -> int:
        """Chunks that were written."""

    @property
    def dropped(self) -> int:
        """Chunks that were offered and had no room."""

    @property
    def held(self) -> int:
        """Chunks that are there."""

    def request(self, path: Context, tokens: int, hit: int) -> int:
        """A prompt of which the pool has `hit` tokens. Returns the tokens beyond them that this tier has. `path` has the keys of chunks."""


def beyond(held: int, tokens: int, hit: int, chunk_tokens: int) -> int:
    """Tokens of the leading `held` chunks beyond a hit, of all tokens but one; none when they are less than a chunk."""
    more = min(held, (tokens - 1) // chunk_tokens) * chunk_tokens - hit
    return more if more >= chunk_tokens else 0


class Order(Protocol):
    """Chunks by key, and who goes first."""

    def __len__(self) -> int: ...

    def __contains__(self, key: Hashable, /) -> bool: ...

    def load(self, keys: Sequence[Hashable]) -> None:
        """They are loaded."""

    def miss(self, keys: Sequence[Hashable]) -> None:
        """They are offered, and not there."""

    def make_room(self, count: int, spared: Iterable[Hashable]) -> bool:
        """So many go, none that is spared; or none at all, when there are not so many."""

    def add(self, keys: Sequence[Hashable]) -> None:
        """They are stored."""

    def renew(self, keys: Sequence[Hashable]) -> None:
        """The request with these chunks has ended."""


class Offers:
    """How often chunks have been offered while they were not there."""

    def __init__(self, threshold: int) -> None:
        self.threshold = threshold
        """So many are enough for a chunk to be stored."""
        self._counts: OrderedDict[Hashable, int] = OrderedDict()

    def are_enough(self, key: Hashable, counts: bool = True) -> bool:
        """Whether a chunk has been offered so often; `counts`: with this time."""
        if self.threshold == 1:
            return True
        if counts:
            if key not in self._counts and len(self._counts) == _TRACKED:
                self._counts.popitem(last=False)
            self._counts[key] = self._counts.pop(key, 0) + 1
        return self._counts.get(key, 0) >= self.threshold


class FilteredOffload:
    """Stores a chunk when it is offered for the `threshold`-th time while it is not there; costs by the chunk."""

    def __init__(self, usable: int, chunk_tokens: int, order: Order, threshold: int) -> None:
        self.stored = self.dropped = 0
        self._usable = usable
        self._chunk_tokens = chunk_tokens
        self._order = order
        self._offers = Offers(threshold)

    @property
    def held(self) -> int:
        """See `Offload`."""
        return len(self._order)

    def request(self, path: Context, tokens: int, hit: int) -> int:
        """See `Offload`."""
        keys = [path[chunk] for chunk in range(tokens // self._chunk_tokens)]
        held = start = hit // self._chunk_tokens
        while held < len(keys) and keys[held] in self._order:
            held += 1
        more = beyond(held, tokens, hit, self._chunk_tokens)
        stop = (hit + more) // self._chunk_tokens
        offered, asked = (keys[stop:], keys[start:]) if more else (keys, keys)
        self._order.load(keys[start:stop])
        self._store([key for key in offered if key not in self._order and self._offers.are_enough(key)], offered)
        self._order.renew(asked)
        return more

    def _store(self, keys: Sequence[Hashable], spared: Sequence[Hashable]) -> None:
        self._order.miss(keys)
        if self._order.make_room(max(0, len(self._order) + len(keys) - self._usable), spared):
            self._order.add(keys)
            self.stored += len(keys)
        else:
            self.dropped += len(keys)


class LruOrder:
    """The least recently used goes."""

    def __init__(self) -> None:
        self._order: OrderedDict[Hashable, None] = OrderedDict()

    def __len__(self) -> int:
        return len(self._order)

    def __contains__(self, key: Hashable) -> bool:
        return key in self._order

    def load(self, keys: Sequence[Hashable]) -> None:
        """See `Order`."""
        for key in keys:
            self._order.move_to_end(key)

    def miss(self, keys: Sequence[Hashable]) -> None:
        """See `Order`: no matter."""

    def make_room(self, count: int, spared: Iterable[Hashable]) -> bool:
        """See `Order`."""
        going = list(first_of(self._order, count, frozenset(spared)))
        for key in going if len(going) == count else ():
            del self._order[key]
        return len(going) == count

    def add(self, keys: Sequence[Hashable]) -> None:
        """See `Order`."""
        self._order.update(dict.fromkeys(keys))

    def renew(self, keys: Sequence[Hashable]) -> None:
        """See `Order`."""
        for key in reversed(keys):
            if key in self._order:
                self._order.move_to_end(key)


def first_of(order: Iterable[Hashable], count: int, spared: frozenset[Hashable]) -> Iterable[Hashable]:
    """The first keys of an order, `count` at most, that are not spared."""
    return islice((key for key in order if key not in spared), count)
