"""Hit rate over all prompt tokens against the size of a cache of blocks, by the rules of a mode, without a server.

What varies is the mode's own memory, or DRAM below vLLM's pool of blocks in HBM, whose size is `store.hbm` then.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from kvplan.hwmodels import kvsize
from kvplan.hwmodels.units import parse_bytes
from kvplan.sim.blockpool import block_tokens
from kvplan.sim.build_workload import build_workload
from kvplan.sim.config import ON_DEVICE, ON_HOST, Config, ConfigError, without_clients
from kvplan.sim.deployment import Deployment, resolve
from kvplan.sim.layergroups import Layout, layout
from kvplan.sim.replay.blocks import ENDLESS, BlockReplay, Served
from kvplan.sim.store.blocks.base import BlockCache
from kvplan.sim.store.blocks.modes import MODES, Mode
from kvplan.sim.store.blocks.tiered import Tiered
from kvplan.sim.store.blocks.vllm import VllmPool
from kvplan.sim.store.blocks.windows import Groups
from kvplan.traces import Workload
from kvplan.traces.blockpaths import BlockContexts, block_contexts

_SIZES = 10


@dataclass(frozen=True)
class Below:
    """What a tier below the pool did."""

    hit_tokens: int
    """Of what was served, those that the pool had not."""
    stored_chunks: int
    dropped_chunks: int
    """Offered, and without room."""


@dataclass(frozen=True)
class Found:
    """Of one policy and size."""

    served: Served
    below: Below | None
    """None where the mode's own memory varies."""


@dataclass(frozen=True)
class Point:
    """One size."""

    text: str
    bytes: int
    blocks: int
    """Whole ones, with those that the mode keeps for itself; chunks in DRAM below a pool."""
    found: dict[str, Found] | None
    """By policy; None where the mode's rules do not judge so much memory."""


@dataclass(frozen=True)
class BlockCurve:
    """What caches of several sizes serve."""

    config: Config
    workload: Workload
    mode: Mode
    tier: str
    policies: Sequence[str]
    contexts: BlockContexts
    block_bytes: int
    """Of a chunk in DRAM below a pool."""
    distinct_blocks: int
    """What an endless memory holds in the end."""
    endless: Served
    past_window: int
    """Prompts that are longer than the model's window."""
    points: Sequence[Point]
    groups: Groups | None
    """Of the layers, where those with a window have blocks of their own."""
    windows: Mapping[int, int]
    """Layers by window that are taken to keep every token."""


def block_curve(config: Config, tier: str | None, sizes: Sequence[str], policies: Sequence[str], read=build_workload) -> BlockCurve:
    """The configuration's requests through every policy of its mode (or those named), at every size; powers of two when no sizes are given.
    Raises ConfigError and TraceError."""
    mode, server = MODES[config.store.mode], of_sessions(config)
    tier = _known(config, "--tier", tier, [*mode.tiers, *([ON_HOST] if mode.offload else [])])
    known = list(mode.policies if tier in mode.tiers else mode.offload)
    names = [_known(config, "--policies", name, known) for name in policies or known]
    deployment, workload = resolve(server), read(server)
    found = _layout(config, deployment, tier)
    contexts = block_contexts(workload, block_tokens(config.store, workload, mode, found))
    replay = BlockReplay(mode, contexts)
    memory = _memory(config, replay, tier, deployment, found)
    endless, distinct = replay.endless(memory.make(names[0], ENDLESS))
    texts = sizes or _default_sizes(contexts, memory.block_bytes, distinct)
    points = [_point(replay, memory, names, text) for text in texts]
    past_window, windows = sum(tokens > deployment.window for tokens in contexts.tokens), kvsize.windows(deployment.model)
    curve = (config, workload, mode, tier, names, contexts, memory.block_bytes, distinct, endless, past_window, points)
    return BlockCurve(*curve, memory.groups, {} if memory.groups else windows)


def of_sessions(config: Config) -> Config:
    """The same for what knows sessions only: what a block is in bytes, and the turns. Raises ConfigError for what one cache cannot be."""
    if config.deployment.replicas > 1:
        raise ConfigError(
            f"deployment.replicas is {config.deployment.replicas}: blocks are replayed through one replica's cache: set it to 1"
        )
    without_clients(config, "blocks are replayed in the order of arrivals")
    return config.model_copy(update={"store": config.store.model_copy(update={"unit": "session"})})


def _known(config: Config, option: str, name: str | None, known: Sequence[str]) -> str:
    if name is not None and name not in known:
        raise ConfigError(f"{option} {name}: store.mode={config.store.mode} has {', '.join(known)}")
    return name or known[0]


@dataclass(frozen=True)
class _Memory:
    """What varies."""

    block_bytes: int
    make: Callable[[str, int], BlockCache]
    """(policy, blocks of it) -> an empty cache."""
    most_judged: float = math.inf
    """Blocks."""
    groups: Groups | None = None
    """Of layers, where each has blocks of its own."""


def _memory(config: Config, replay: BlockReplay, tier: str, deployment: Deployment, found: Layout | None) -> _Memory:
    """That of the mode, or DRAM below it."""
    tokens = replay.contexts.block_tokens
    if tier not in replay.mode.tiers:
        return _below(config, replay.mode, deployment, tokens)
    if found is not None:
        return _grouped(found, replay.mode, tokens)
    return _Memory(_bytes_in(tier, deployment, tokens), replay.cache, replay.most_judged())


def _bytes_in(tier: str, deployment: Deployment, tokens: int) -> int:
    return tokens * deployment.in_hbm(1) if tier == ON_DEVICE else round(tokens * deployment.stored(1) * deployment.copies.get(tier, 1.0))


def _layout(config: Config, deployment: Deployment, tier: str) -> Layout | None:
    """Of vLLM's pool, where windows are kept as windows, or layers keep states. Raises ConfigError where they keep states elsewhere."""
    store, dense = config.store, config.store.retention == "dense"
    grouped, found = store.mode == "vllm" and tier == ON_DEVICE, layout(deployment.model, deployment.hbm_kv, dense)
    if deployment.hbm_kv.state:
        if found is None or not grouped or dense:
            raise ConfigError(
                f"{deployment.model.name} has layers that keep states: blocks of them are replayed in vLLM's pool, of one kind of state"
                " beside one of full attention, where prompts' ends are kept: set store.mode=vllm, store.retention=boundary, --tier hbm"
            )
        return found
    return None if not grouped or store.windows == "every-token" else found


def _grouped(found: Layout, mode: Mode, block_tokens: int) -> _Memory:
    """vLLM's pool for a model with windows or states."""

    def make(policy: str, blocks: int) -> BlockCache:
        usable = max(0, blocks - mode.reserved)
        return found.make(usable, block_tokens, usable, None)

    return _Memory(found.token_bytes * block_tokens, make, groups=found.groups)


def _below(config: Config, mode: Mode, deployment: Deployment, block_tokens: int) -> _Memory:
    """DRAM below a pool of `store.hbm`."""
    store, chunk_tokens = config.store, block_tokens * config.store.chunk_blocks
    usable = parse_bytes(store.hbm) // _bytes_in(ON_DEVICE, deployment, block_tokens) - mode.reserved

    def make(policy: str, chunks: int) -> BlockCache:
        tier = mode.offload[policy](chunks, chunk_tokens, store.threshold)
        return Tiered(VllmPool(usable, block_tokens) if usable > 0 else None, tier, store.chunk_blocks)

    return _Memory(_bytes_in(ON_HOST, deployment, chunk_tokens), make)


def _default_sizes(contexts: BlockContexts, block_bytes: int, distinct: int) -> list[str]:
    """Powers of two from the longest prompt to all blocks, the largest of them."""
    longest = -(-max(contexts.tokens) // contexts.block_tokens)
    least, top = (math.ceil(math.log2((blocks + 1) * block_bytes)) for blocks in (longest, distinct))
    return [_size(power) for power in range(max(least, top - _SIZES + 1), max(least, top) + 1)]


def _size(power: int) -> str:
    """2^power bytes: 512MiB, 1GiB, 2GiB."""
    place = min(power // 10, 5)
    return f"{2 ** (power - 10 * place)}{('B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB')[place]}"


def _exact(size: str, block_bytes: int) -> int:
    """Bytes of a size, or of so many blocks."""
    count = size.strip().removesuffix("blocks")
    if count.isdecimal() and count != size.strip():
        return int(count) * block_bytes
    try:
        return parse_bytes(size)
    except ValueError as error:
        raise ConfigError(f"--sizes: {error}, or 2048blocks") from None


def _point(replay: BlockReplay, memory: _Memory, policies: Sequence[str], text: str) -> Point:
    size = _exact(text, memory.block_bytes)
    blocks = size // memory.block_bytes
    judged = blocks <= memory.most_judged
    return Point(text, size, blocks, {name: _found(replay, memory.make(name, blocks)) for name in policies} if judged else None)


def _found(replay: BlockReplay, cache: BlockCache) -> Found:
    served = replay.served(cache)
    return Found(served, Below(cache.below, cache.tier.stored, cache.tier.dropped) if isinstance(cache, Tiered) else None)
