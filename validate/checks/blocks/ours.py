"""The same caches in kvplan, over contexts in blocks."""

from functools import singledispatch

from kvplan.sim.replay.blocks import BlockReplay, Served
from kvplan.sim.store.blocks.modes import MODES
from kvplan.sim.store.blocks.tiered import Tiered
from kvplan.sim.store.blocks.vllm import VllmPool
from kvplan.sim.store.blocks.windows import Groups, WindowsPool
from kvplan.traces.blockpaths import BlockContexts
from kvplan.validate.checks.blocks.figures import EXTERNAL, HIT, RATE, STORED, Cache, Offload, Pool, Tool, Windows

_WINDOW_TOKENS = 1_024


@singledispatch
def ours(cache: Cache, contexts: BlockContexts) -> dict[str, float]:
    """Figures by name."""
    raise TypeError(cache)


@ours.register
def _(cache: Pool, contexts: BlockContexts) -> dict[str, float]:
    return _figures(BlockReplay(MODES["vllm"], contexts).served(VllmPool(cache.usable, contexts.block_tokens)))


@ours.register
def _(cache: Offload, contexts: BlockContexts) -> dict[str, float]:
    tokens = contexts.block_tokens
    tier = MODES["vllm"].offload[cache.policy](cache.chunks, tokens, cache.threshold)
    both = Tiered(VllmPool(cache.usable, tokens), tier, 1)
    found = _figures(BlockReplay(MODES["vllm"], contexts).served(both))
    return {**found, EXTERNAL: both.below, STORED: both.tier.stored}


@ours.register
def _(cache: Tool, contexts: BlockContexts) -> dict[str, float]:
    replay = BlockReplay(MODES["kvcache-simulator"], contexts)
    return _figures(replay.served(replay.cache(cache.policy, cache.blocks)))


@ours.register
def _(cache: Windows, contexts: BlockContexts) -> dict[str, float]:
    pool = WindowsPool(Groups(1, 1, _WINDOW_TOKENS, cache.dense, junctions=False), cache.usable, contexts.block_tokens)
    return _figures(BlockReplay(MODES["vllm"], contexts).served(pool))


def _figures(served: Served) -> dict[str, float]:
    return {HIT: served.hit_tokens, RATE: served.hit_rate}
