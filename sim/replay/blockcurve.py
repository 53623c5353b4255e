"""Hit rate over all prompt tokens against the size of a cache of blocks, by the rules of a mode, without a server."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from kvplan.hwmodels.units import parse_bytes
from kvplan.sim.build_workload import build_workload
from kvplan.sim.config import ON_DEVICE, Config, ConfigError, without_clients
from kvplan.sim.deployment import Deployment, resolve
from kvplan.sim.replay.blocks import BlockReplay, Served
from kvplan.sim.store.blocks.modes import MODES, Mode
from kvplan.traces import Workload
from kvplan.traces.blockpaths import BlockContexts, block_contexts

_SIZES = 10


@dataclass(frozen=True)
class Point:
    """One size."""

    text: str
    bytes: int
    blocks: int
    """Whole ones, with those that the mode keeps for itself."""
    served: dict[str, Served] | None
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
    distinct_blocks: int
    """What an endless memory holds in the end."""
    endless: Served
    past_window: int
    """Prompts that are longer than the model's window."""
    points: Sequence[Point]


def block_curve(config: Config, tier: str | None, sizes: Sequence[str], policies: Sequence[str], read=build_workload) -> BlockCurve:
    """The configuration's requests through every policy of its mode (or those named), at every size; powers of two when no sizes are given.
    Raises ConfigError and TraceError."""
    mode = MODES[config.store.mode]
    tier, names = _in(config.store.mode, "--tier", tier, mode.tiers), policies or list(mode.policies)
    for name in names:
        _in(config.store.mode, "--policies", name, list(mode.policies))
    server = _of_sessions(config)
    deployment, workload = resolve(server), read(server)
    contexts = block_contexts(workload, config.store.block_tokens or _block_tokens(workload, mode))
    replay = BlockReplay(mode, contexts)
    block_bytes, (endless, distinct) = _bytes_in(tier, deployment, contexts.block_tokens), replay.endless()
    most = replay.most_judged()
    return BlockCurve(
        config=config,
        workload=workload,
        mode=mode,
        tier=tier,
        policies=names,
        contexts=contexts,
        block_bytes=block_bytes,
        distinct_blocks=distinct,
        endless=endless,
        past_window=sum(tokens > deployment.window for tokens in contexts.tokens),
        points=[_point(replay, names, size, block_bytes, most) for size in sizes or _default_sizes(contexts, block_bytes, distinct)],
    )


def _of_sessions(config: Config) -> Config:
    """The same for what knows sessions only: what a block is in bytes, and the turns. Raises ConfigError for what one cache cannot be."""
    if config.deployment.replicas > 1:
        raise ConfigError(
            f"deployment.replicas is {config.deployment.replicas}: blocks are replayed through one replica's cache: set it to 1"
        )
    without_clients(config, "blocks are replayed in the order of arrivals")
    return config.model_copy(update={"store": config.store.model_copy(update={"unit": "session"})})


def _in(mode: str, option: str, name: str | None, known: Sequence[str]) -> str:
    if name is not None and name not in known:
        raise ConfigError(f"{option} {name}: store.mode={mode} has {', '.join(known)}")
    return name or known[0]


def _block_tokens(workload: Workload, mode: Mode) -> int:
    return mode.block_tokens if workload.blocks is None else workload.blocks.block_tokens


def _bytes_in(tier: str, deployment: Deployment, tokens: int) -> int:
    return deployment.in_hbm(tokens) if tier == ON_DEVICE else deployment.stored(tokens)


def _default_sizes(contexts: BlockContexts, block_bytes: int, distinct: int) -> list[str]:
    """Powers of two from the longest prompt to all blocks, the largest of them."""
    longest = -(-max(contexts.tokens) // contexts.block_tokens)
    least, top = (math.ceil(math.log2((blocks + 1) * block_bytes)) for blocks in (longest, distinct))
    return [_size(power) for power in range(max(least, top - _SIZES + 1), max(least, top) + 1)]


def _size(power: int) -> str:
    """2^power bytes: 512MiB, 1GiB, 2GiB."""
    place = min(power // 10, 5)
    return f"{2 ** (power - 10 * place)}{('B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB')[place]}"


def _point(replay: BlockReplay, policies: Sequence[str], size: str, block_bytes: int, most_judged: float) -> Point:
    try:
        exact = parse_bytes(size)
    except ValueError as error:
        raise ConfigError(f"--sizes: {error}") from None
    blocks = exact // block_bytes
    judged = blocks <= most_judged
    return Point(size, exact, blocks, {policy: replay.served(policy, blocks) for policy in policies} if judged else None)
