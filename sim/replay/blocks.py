"""A workload's requests through a cache of blocks, one at a time in order of their starts, without a clock or a server.

Hits are tokens, and shares are of all prompt tokens, history included. Left out: answers before they come back in a prompt; that requests
overlap, and pin what they use; windows: contexts are taken whole.
"""

import math
from dataclasses import dataclass

from kvplan.sim.store.blocks.base import BlockCache
from kvplan.sim.store.blocks.modes import Mode
from kvplan.traces.blockpaths import BlockContexts

ENDLESS = 1 << 60
"""Blocks of a memory for everything."""


@dataclass(frozen=True)
class Served:
    """What a cache served of the requests that are counted."""

    hit_tokens: int
    prompt_tokens: int

    @property
    def hit_rate(self) -> float:
        """Share of all prompt tokens."""
        return self.hit_tokens / self.prompt_tokens


class BlockReplay:
    """Requests by the rules of a mode."""

    def __init__(self, mode: Mode, contexts: BlockContexts) -> None:
        self.mode = mode
        self.contexts = contexts
        self._requests = list(zip(contexts.paths, contexts.tokens, strict=True))
        self._first = int(len(self._requests) * mode.warmup_share)

    def cache(self, policy: str, blocks: int) -> BlockCache:
        """The mode's own, with so many blocks of memory, the reserved ones included."""
        usable = max(0, blocks - self.mode.reserved)
        return self.mode.policies[policy](usable, self.contexts.block_tokens, self.contexts.paths, self.contexts.tokens)

    def served(self, cache: BlockCache) -> Served:
        """By a cache that is empty yet."""
        self._run(cache, 0, self._first)
        return Served(self._run(cache, self._first, len(self._requests)), sum(self.contexts.tokens[self._first :]))

    def endless(self, cache: BlockCache) -> tuple[Served, int]:
        """With memory for everything; and the blocks that are held in the end."""
        return self.served(cache), cache.held

    def most_judged(self) -> float:
        """Blocks of the largest memory that the rules judge: one that has filled before they count."""
        cache = self.cache(next(iter(self.mode.policies)), ENDLESS)
        self._run(cache, 0, self._first)
        return cache.held if self._first else math.inf

    def _run(self, cache: BlockCache, start: int, stop: int) -> int:
        """Tokens that the requests from `start` to `stop` hit."""
        return sum(cache.request(path, tokens) for path, tokens in self._requests[start:stop])
