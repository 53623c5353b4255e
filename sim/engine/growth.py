"""How the HBM of jobs grows while they decode, a token each a step: in proportion, as windows and states have it, or block by block."""

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable

from kvplan.hwmodels.footprint import Footprint


class Growth(ABC):
    """Of one batch's jobs. One that decodes is known by its tokens less the steps that the batch has decoded by then: that stays as it
    is. `step` are those steps."""

    each = 0
    """Bytes of each token; 0 where tokens differ."""

    @abstractmethod
    def size(self, tokens: int) -> int:
        """Bytes of a job of so many tokens."""

    def joins(self, place: int) -> None:
        """A job decodes from now on."""

    def leaves(self, place: int) -> None:
        """It does not any more."""

    @abstractmethod
    def of(self, step: int, decoding: int, steps: int) -> int:
        """Bytes that so many steps more take."""

    @abstractmethod
    def most(self, step: int, decoding: int, free: int) -> int:
        """Steps that so many bytes are enough for; it may be a few less."""


class Even(Growth):
    """Every token takes as much. O(1)."""

    def __init__(self, each: int) -> None:
        self.each = each

    def size(self, tokens: int) -> int:
        return tokens * self.each

    def of(self, step: int, decoding: int, steps: int) -> int:
        return decoding * steps * self.each

    def most(self, step: int, decoding: int, free: int) -> int:
        return free // (decoding * self.each)


class Uneven(Growth):
    """Of layers with windows: `size` is that of a job of so many tokens, and so many `together` take `each` bytes at most. O(jobs)."""

    def __init__(self, size: Callable[[int], int], each: int, together: int = 1) -> None:
        self._size, self._each, self._together = size, each, together
        self._places: Counter[int] = Counter()

    def size(self, tokens: int) -> int:
        return self._size(tokens)

    def joins(self, place: int) -> None:
        self._places[place] += 1

    def leaves(self, place: int) -> None:
        self._places[place] -= 1
        if not self._places[place]:
            del self._places[place]

    def of(self, step: int, decoding: int, steps: int) -> int:
        now = [(place + step, jobs) for place, jobs in self._places.items()]
        return sum([jobs * (self.size(tokens + steps) - self.size(tokens)) for tokens, jobs in now])

    def most(self, step: int, decoding: int, free: int) -> int:
        return free // (decoding * self._each) * self._together


class InBlocks(Growth):
    """A job takes a block when those that it has are full. O(1) for a step, O(tokens of a block) for others."""

    def __init__(self, block_tokens: int, block_bytes: int) -> None:
        self._tokens, self._bytes = block_tokens, block_bytes
        self._jobs = [0] * block_tokens
        """By place, as far as it says where in a block a job is."""

    def size(self, tokens: int) -> int:
        return -(-tokens // self._tokens) * self._bytes

    def joins(self, place: int) -> None:
        self._jobs[place % self._tokens] += 1

    def leaves(self, place: int) -> None:
        self._jobs[place % self._tokens] -= 1

    def of(self, step: int, decoding: int, steps: int) -> int:
        jobs, tokens = self._jobs, self._tokens
        if steps == 1:
            return jobs[-step % tokens] * self._bytes
        rounds, rest = divmod(steps, tokens)
        return (rounds * decoding + sum([jobs[-each % tokens] for each in range(step, step + rest)])) * self._bytes

    def most(self, step: int, decoding: int, free: int) -> int:
        jobs, tokens = self._jobs, self._tokens
        rounds, left = divmod(free // self._bytes, decoding)
        steps = rounds * tokens
        while left >= jobs[-(step + steps) % tokens]:
            left -= jobs[-(step + steps) % tokens]
            steps += 1
        return steps


def growth_of(footprint: Footprint) -> Growth:
    """Of jobs that have room for their tokens, not for blocks of them."""
    if not footprint.is_checkpoint:
        return Even(footprint.per_token)
    return Uneven(footprint.of, footprint.per_token + sum(each for _, each in footprint.windows))
