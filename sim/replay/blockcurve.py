"""Hit rate over all prompt tokens against the size of a cache of blocks, by the rules of a mode, without a server. Each replica has a cache
of its own; what it is of says `kvplan.sim.replay.blockmemory`.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from kvplan.hwmodels import kvsize
from kvplan.hwmodels.units import parse_bytes
from kvplan.sim.blockpool import BlockPool, block_pool, block_tokens
from kvplan.sim.build_workload import build_workload
from kvplan.sim.config import ON_DEVICE, ON_HOST, SHORTHANDS, Config, ConfigError, without_clients
from kvplan.sim.deployment import Deployment, resolve
from kvplan.sim.keptunit import unit_of
from kvplan.sim.knowledge import ServerKnowledge
from kvplan.sim.layergroups import Layout
from kvplan.sim.replay.blockmemory import Below, Found, Memory, of_layers, of_servers
from kvplan.sim.replay.blocks import BlockReplay, Moment, Served
from kvplan.sim.routing import replica_of
from kvplan.sim.store.blocks.modes import MODES, Mode
from kvplan.sim.store.blocks.windows import Groups
from kvplan.traces import Workload
from kvplan.traces.blockpaths import BlockContexts, block_contexts, served_contexts

_SIZES = 10


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
    """What caches of several sizes serve, of all replicas together. Sizes are of one."""

    config: Config
    workload: Workload
    mode: Mode
    tier: str
    policies: Sequence[str]
    own: Sequence[str]
    """Policies that are the mode's own, whether they are drawn or not."""
    contexts: BlockContexts
    block_bytes: int
    """Of a chunk in DRAM below a pool."""
    pool_bytes: int | None
    """Of the pool above."""
    answers: bool
    """Whether what varies has answers when they have ended."""
    distinct_blocks: int
    """What an endless memory holds in the end, of all replicas the most."""
    endless: Served
    past_window: int
    """Prompts that are longer than the model's window: whole, or of servers cut to it."""
    unserved: int
    """Prompts that the pool above has no room for."""
    points: Sequence[Point]
    groups: Groups | None
    """Of the layers, where those with a window have blocks of their own."""
    windows: Mapping[int, int]
    """Layers by window that are taken to keep every token."""


def _silent(done: int, total: int) -> None:
    pass


def block_curve(
    config: Config,
    tier: str | None,
    sizes: Sequence[str],
    policies: Sequence[str],
    read=build_workload,
    report: Callable[[int, int], None] = _silent,
) -> BlockCurve:
    """The configuration's requests through every policy of its mode, or with `store.unit: auto` that of its servers, and the bound on all
    (or those named), at every size; powers of two when no sizes are given. `report`: replays that are done, and all. Raises ConfigError,
    TraceError, and PolicyError when a user's own policy fails."""
    mode, server = MODES[config.store.mode], of_sessions(config)
    tier = _tier(config, tier, _tiers(mode))
    served = _with_tier(config if of_servers(config) else server, tier)
    deployment, workload = resolve(served), read(server)
    found = of_layers(config, deployment, tier)
    pool = block_pool(served, deployment, workload) if of_servers(config) and tier != ON_DEVICE else None
    contexts = _contexts(config, deployment, workload, _tokens(config, workload, found, pool))
    moment = Moment()
    knowledge = ServerKnowledge(moment, deployment, workload)
    memory = Memory(config, deployment, tier, contexts.block_tokens, knowledge, found, pool)
    names = list(policies or memory.default)
    for name in names:
        memory.check(name)
    place = replica_of(config, workload.sessions, "blocks are replayed replica by replica")
    replays = [BlockReplay(mode, part, moment, knowledge, memory.fits) for part in contexts.by(place.tolist())]
    ends = [memory.endless(replay) for replay in replays]
    distinct = max(held for _, held in ends)
    texts = sizes or _default_sizes(contexts, memory.block_bytes, distinct)
    points = _points(replays, memory, names, texts, report)
    past_window = contexts.cut or sum(tokens > deployment.window for tokens in contexts.tokens)
    windows = kvsize.windows(deployment.model)
    return BlockCurve(
        config,
        workload,
        mode,
        tier,
        names,
        memory.own,
        contexts,
        memory.block_bytes,
        memory.pool_bytes if memory.is_below else None,
        memory.answers,
        distinct,
        _together([served for served, _ in ends]),
        past_window,
        sum(not memory.fits(tokens) for tokens in contexts.tokens),
        points,
        memory.groups,
        {} if memory.groups else windows,
    )


def _tokens(config: Config, workload: Workload, found: Layout | None, pool: BlockPool | None) -> int:
    """Of a block; of servers, whose pool is given, of what they store together where that is all there is."""
    mode = MODES[config.store.mode]
    if pool is not None:
        return pool.chunk_tokens if mode.in_chunks else pool.block_tokens
    return block_tokens(config.store, workload, mode, found)


def _contexts(config: Config, deployment: Deployment, workload: Workload, tokens: int) -> BlockContexts:
    """In blocks of so many tokens: whole, or what servers make of them."""
    if not of_servers(config):
        return block_contexts(workload, tokens)
    return served_contexts(workload, tokens, deployment.window, config.deployment.truncation_ratio)


def why_sessions(config: Config, tier: str | None) -> str | None:
    """What keeps a curve from blocks; None: it is of blocks, asked for or those of servers (`store.unit: auto`)."""
    if not of_servers(config):
        return None if config.store.unit == "block" else "store.unit=session"
    if unit_of(config) == "session":
        return "servers of blocks are not simulated with this"
    tier = tier or ON_HOST
    if tier not in _tiers(MODES[config.store.mode]):
        return f"{tier.upper()} below other tiers is not replayed"
    if config.workload.clients is not None:
        return "what clients send when is known from a run alone"
    kv = resolve(config).hbm_kv
    return "windows and states are replayed in HBM alone (--tier hbm)" if tier != ON_DEVICE and (kv.state or kv.windows) else None


def _tiers(mode: Mode) -> list[str]:
    """Whose sizes a curve of a mode's blocks can vary."""
    return [*mode.tiers, *([ON_HOST] if mode.offload else [])]


def of_sessions(config: Config) -> Config:
    """The same for what knows sessions only: what a block is in bytes, and the turns. Raises ConfigError for what one cache cannot be."""
    without_clients(config, "blocks are replayed in the order of arrivals")
    return config.model_copy(update={"store": config.store.model_copy(update={"unit": "session"})})


def _with_tier(server: Config, tier: str) -> Config:
    """With some of what varies, so that it is known how fast it is."""
    store = server.store
    if tier == ON_DEVICE or tier not in SHORTHANDS or parse_bytes(getattr(store, tier)):
        return server
    return server.model_copy(update={"store": store.model_copy(update={tier: "1GB"})})


def _tier(config: Config, name: str | None, known: Sequence[str]) -> str:
    if name is not None and name not in known:
        raise ConfigError(f"--tier {name}: store.mode={config.store.mode} has {', '.join(known)}")
    return name or (ON_HOST if of_servers(config) else known[0])


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


def _points(
    replays: Sequence[BlockReplay], memory: Memory, policies: Sequence[str], texts: Sequence[str], report: Callable[[int, int], None]
) -> list[Point]:
    sizes = [_exact(text, memory.block_bytes) for text in texts]
    blocks = [size // memory.block_bytes for size in sizes]
    most = min(memory.most_judged(replay) for replay in replays)
    found: list[dict[str, list[Found]]] = [{name: [] for name in policies} for _ in sizes]
    total = len(replays) * len(policies) * len(sizes)
    for done, (replay, name) in enumerate((replay, name) for name in policies for replay in replays):
        finds = memory.finder(replay, name)
        for place, (size, count) in enumerate(zip(sizes, blocks, strict=True)):
            report(done * len(sizes) + place, total)
            if count <= most:
                found[place][name].append(finds(size))
    return [
        Point(text, size, count, {name: _all(each) for name, each in by.items()} if count <= most else None)
        for text, size, count, by in zip(texts, sizes, blocks, found, strict=True)
    ]


def _all(found: Sequence[Found]) -> Found:
    """Of all replicas."""
    below = [each.below for each in found if each.below is not None]
    return Found(_together([each.served for each in found]), _below(below) if below else None)


def _together(served: Sequence[Served]) -> Served:
    return Served(sum(each.hit_tokens for each in served), sum(each.prompt_tokens for each in served))


def _below(below: Sequence[Below]) -> Below:
    stored, dropped = ([getattr(each, name) for each in below] for name in ("stored_chunks", "dropped_chunks"))
    return Below(sum(each.hit_tokens for each in below), *(None if None in each else sum(each) for each in (stored, dropped)))
