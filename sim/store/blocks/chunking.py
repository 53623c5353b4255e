"""What tiers below a pool make of its contexts: chunks, of all layers or of each group's, and what they have of one together."""

from dataclasses import dataclass

from kvplan.sim.store.blocks.base import Context
from kvplan.sim.store.blocks.below import Below, Moves
from kvplan.sim.store.blocks.chunks import Chunks, Coming, Lookup, look_up
from kvplan.sim.store.blocks.grouped import GroupedChunks, InChunks, reached_by_groups
from kvplan.sim.store.blocks.pool import Use
from kvplan.sim.store.blocks.tiered import together
from kvplan.sim.store.blocks.windows import Groups


@dataclass(frozen=True)
class Chunking:
    """Of so many tokens a chunk."""

    blocks: int
    """In a chunk."""
    tokens: int
    groups: Groups | None
    """Of layers, where each has chunks of its own."""

    def tier(self, usable: int, threshold: int) -> Chunks:
        """An empty one, in the engine's own order."""
        return Chunks(usable, threshold) if self.groups is None else GroupedChunks(self.groups, usable, threshold)

    def context(self, path: Context, use: Use | None = None) -> Context:
        """In chunks; with those of its windows, of who has used it."""
        context = together(path, self.blocks)
        return context if self.groups is None else InChunks(context, [] if use is None else use.below(self.blocks))

    def written(self, coming: Moves, above: int = 0) -> int:
        """Blocks of a pool that are written for chunks on their way to a tier: from the pool, which is `above` 0, one of a state's."""
        alone = coming.beside if isinstance(coming, Coming) and self.groups is not None and self.groups.states and not above else 0
        return coming.chunks * self.blocks - alone * (self.blocks - 1)

    def look_up(self, first: Chunks | None, lower: list[Below], path: Context, tokens: int, hit: int, coming: bool = False) -> Lookup:
        """What tiers, the first and those below it, have of a prompt of so many tokens, of which the pool has `hit`; the last is always
        computed. See `kvplan.sim.store.blocks.chunks.reached`."""
        context, most = self.context(path), (tokens - 1) // self.tokens
        if self.groups is None:
            return look_up(first, lower, context, most, coming)
        tiers = [tier for tier in (first, *lower) if isinstance(tier, GroupedChunks)]
        return reached_by_groups(tiers, self.groups.reach(self.tokens), context, hit // self.tokens, most, coming)
