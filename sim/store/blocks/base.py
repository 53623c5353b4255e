"""What a cache of blocks is asked, and what it is told of a context."""

from collections.abc import Hashable
from typing import Protocol


class Path(Protocol):
    """A context in blocks: keys from its start, equal where two contexts are the same up to and with that block. A sequence that works its
    keys out when asked will do; caches ask for few of them."""

    def __len__(self) -> int: ...

    def __getitem__(self, block: int, /) -> Hashable: ...


class Context(Path, Protocol):
    """That of a session's turn."""

    @property
    def session(self) -> int:
        """Its number in the workload."""


class BlockCache(Protocol):
    """One that requests come to one at a time."""

    @property
    def held(self) -> int:
        """Blocks that later requests can find."""

    def request(self, path: Context, tokens: int) -> int:
        """A prompt of so many tokens is served, and what the rules keep of it is kept. Returns the tokens that hit. `path` has a key for
        each full block at least."""
