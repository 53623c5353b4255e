"""Bytes that a session takes, by its tokens: of layers that keep KV of all of them or of a window, and of layers that keep a state.

    bytes(T) = per_token · T + Σ bytes · min(T, window) + state

Tokens may be a number or an array of them, bytes are of the same kind; no tokens take none. A session that is kept with windows or states
is a checkpoint of its last token, and usable as a whole only.
"""

from dataclasses import dataclass
from typing import Any, TypeVar

Tokens = TypeVar("Tokens", bound=Any)
"""A count (`int`), a mean (`float`), or one per turn (`np.ndarray`): not listed as such, for the compiler would take the first for all."""


def least(tokens: Tokens, most: int) -> Tokens:
    """The smaller of the two, of each."""
    return tokens - (tokens > most) * (tokens - most)


def attended(tokens: Tokens, window: int) -> Tokens:
    """Pairs of a session's first tokens with those that they attend to, themselves included, at most `window` of each.

    >>> [attended(tokens, 3) for tokens in (1, 2, 3, 4, 5)]
    [1, 3, 6, 9, 12]
    """
    inside = least(tokens, window)
    return inside * (inside + 1) // 2 + (tokens - inside) * window


@dataclass(frozen=True)
class Footprint:
    """Of layers that keep KV of all tokens, so that every byte stands for itself.

    >>> Footprint(36_864).of(1000)
    36864000
    """

    per_token: int
    """Of layers that keep all tokens."""
    windows: tuple[tuple[int, int], ...] = ()
    """(tokens, bytes a token), the shortest first."""
    state: int = 0
    """Whatever the tokens."""
    is_checkpoint = False
    """Whether a session is of use as a whole only."""

    @property
    def windows_bytes(self) -> int:
        """Of all windows, when they are full."""
        return sum(window * each for window, each in self.windows)

    def of(self, tokens: Tokens) -> Tokens:
        """Bytes of a session of so many tokens."""
        return tokens * self.per_token

    def tokens_in(self, size: int) -> int:
        """The whole tokens of a session of so many bytes."""
        return size // self.per_token

    def among(self, size: int, each: float) -> int:
        """The whole tokens of sessions of `each` tokens that take so many bytes together."""
        return size // self.per_token

    def grown(self, before: int, after: int) -> int:
        """Bytes that are written when a session of `before` bytes becomes one of `after`."""
        return after - before

    def rest(self, size: int, start: int, stop: int | None) -> int:
        """Bytes that remain of use, of a session of `size` bytes, when its history loses the oldest tokens, those of `start` bytes, and all
        beyond those of `stop` bytes (None: none)."""
        return max(0, (size if stop is None else min(size, stop)) - start)

    def window_reads(self, before: Tokens, steps: Tokens) -> Tokens:
        """Bytes of windows that so many tokens, one after the other behind `before` of them, attend to in all, and of states, which each
        reads and writes."""
        return steps * 0


@dataclass(frozen=True)
class Checkpoint(Footprint):
    """Of layers with windows or states beside them.

    >>> gpt_oss = Checkpoint(36_864, ((128, 36_864),))
    >>> [gpt_oss.of(tokens) for tokens in (1, 128, 1000)]
    [73728, 9437184, 41582592]
    >>> gpt_oss.tokens_in(41_582_592)
    1000
    """

    is_checkpoint = True

    def of(self, tokens: Tokens) -> Tokens:
        size = tokens * self.per_token
        return size + sum(least(tokens, window) * each for window, each in self.windows) + (tokens > 0) * self.state

    def tokens_in(self, size: int) -> int:
        size = max(0, size - self.state)
        before, rate = 0, self.per_token + sum(each for _, each in self.windows)
        for window, each in self.windows:
            if size <= rate * (window - before):
                return before + size // rate
            size -= rate * (window - before)
            before, rate = window, rate - each
        return before + size // rate

    def among(self, size: int, each: float) -> int:
        return int(size * each / self.of(each))

    def grown(self, before: int, after: int) -> int:
        """Those of the tokens between them, with windows and a state of their own, which come in the place of others."""
        return self.of(self.tokens_in(after) - self.tokens_in(before))

    def rest(self, size: int, start: int, stop: int | None) -> int:
        """What ends before its end has no window and no state there: all of it is of no use, unless the whole session lies within the
        shortest window. A state holds the oldest tokens too, and is of no use without them."""
        if self.state and (start or (stop is not None and stop < size)):
            return 0
        tokens = self.tokens_in(size)
        if stop is not None and stop < size:
            tokens = self.tokens_in(stop) if tokens <= self.windows[0][0] else 0
        return self.of(max(0, tokens - self.tokens_in(start)))

    def window_reads(self, before: Tokens, steps: Tokens) -> Tokens:
        windows = sum((attended(before + steps, window) - attended(before, window)) * each for window, each in self.windows)
        return windows + steps * (2 * self.state)


def kept_as(per_token: int, windows: tuple[tuple[int, int], ...], state: int) -> Footprint:
    """A checkpoint only where there is something beside KV of all tokens."""
    return Checkpoint(per_token, windows, state) if windows or state else Footprint(per_token)
