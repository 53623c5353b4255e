"""A workload's requests through a cache of blocks, one at a time in order of their starts, without a server.

Hits are tokens, and shares are of all prompt tokens, history included. Left out: answers before they come back in a prompt, but of servers
(`kvplan.sim.replay.blockmemory`); that requests overlap, and pin what they use; windows: contexts are taken whole. A request takes no
time: a session's next turn is known when it has come.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from kvplan.sim.knowledge import ServerKnowledge
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


class Moment:
    """When the request comes that a cache is asked for: the clock of what servers know."""

    now = 0.0


def _any(tokens: int) -> bool:
    return True


class BlockReplay:
    """Requests by the rules of a mode. `moment` and `knowledge` are kept up with them, for policies that ask; `fits`: whether a prompt of
    so many tokens will be served, for those who know when a session comes back."""

    def __init__(
        self,
        mode: Mode,
        contexts: BlockContexts,
        moment: Moment | None = None,
        knowledge: ServerKnowledge | None = None,
        fits: Callable[[int], bool] = _any,
    ) -> None:
        self.mode = mode
        self.contexts = contexts
        self._moment, self._knowledge = moment or Moment(), knowledge
        self._requests = list(zip(contexts.paths, contexts.tokens, contexts.times_s, _next_s(contexts, fits), strict=True))
        self._first = int(len(self._requests) * mode.warmup_share)

    def cache(self, policy: str, blocks: int) -> BlockCache:
        """The mode's own, with so many blocks of memory, the reserved ones included."""
        usable = max(0, blocks - self.mode.reserved)
        return self.mode.policies[policy](usable, self.contexts.block_tokens, self.contexts.paths, self.contexts.tokens)

    def served(self, cache: BlockCache) -> Served:
        """By a cache that is empty yet."""
        self._run(cache, 0, self._first)
        return Served(sum(self._run(cache, self._first, len(self._requests))), sum(self.contexts.tokens[self._first :]))

    def hits(self, cache: BlockCache) -> list[int]:
        """Tokens of each request, by a cache that is empty yet."""
        return self._run(cache, 0, len(self._requests))

    def most_judged(self) -> float:
        """Blocks of the largest memory that the rules judge: one that has filled before they count."""
        cache = self.cache(next(iter(self.mode.policies)), ENDLESS)
        self._run(cache, 0, self._first)
        return cache.held if self._first else math.inf

    def _run(self, cache: BlockCache, start: int, stop: int) -> list[int]:
        """Tokens that each request from `start` to `stop` hits."""
        hits, moment, knowledge = [], self._moment, self._knowledge
        for path, tokens, now, next_s in self._requests[start:stop]:
            moment.now = now
            if knowledge is not None:
                knowledge.next_turn(path.session, next_s)
            hits.append(cache.request(path, tokens))
        return hits


def _next_s(contexts: BlockContexts, fits: Callable[[int], bool]) -> Sequence[float]:
    """Per request, when the session's next one comes that fits; infinity when there is none."""
    later: dict[int, float] = {}
    found = []
    for path, tokens, now in zip(*map(reversed, (contexts.paths, contexts.tokens, contexts.times_s)), strict=True):
        found.append(later.get(path.session, math.inf))
        if fits(tokens):
            later[path.session] = now
    return found[::-1]
