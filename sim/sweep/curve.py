"""Hit rate and latency against the size of a tier, for several policies: the runs are those of a comparison, policy by size.

Beside the simulated policies stands a clockless one: what a single LRU list of whole sessions hits at every capacity, exact, from stack
distances (`kvplan.traces.reuse`). It knows no server: every session's KV is there at once, nothing is reserved, and answers take the mean
time per output token that the runs have measured, without queueing.

Capacities are also given as a share of what is asked for: what all tiers hold together (RCC) against the distinct sessions of one TTL, at
their real sizes, and at a full window each (CCpUT), which says little where the window is far longer than what comes.
Source: CachedAttention (USENIX ATC 2024).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import takewhile

import numpy as np

from kvplan.hwmodels.units import parse_bytes
from kvplan.sim.analytic.turns import turns_of
from kvplan.sim.build_workload import build_workload
from kvplan.sim.config import ON_HOST, SHORTHANDS, Config, ConfigError, load
from kvplan.sim.deployment import Deployment, of_sessions, resolve
from kvplan.sim.policies.registry import policies
from kvplan.sim.replay.blockcurve import why_sessions
from kvplan.sim.replay.blockmemory import OPTIMAL
from kvplan.sim.routing import replica_of
from kvplan.sim.sweep.axes import Axis, Point
from kvplan.sim.sweep.compare import Question, Sweep, prepare
from kvplan.sim.sweep.digest import digest
from kvplan.sim.sweep.variants import Variant
from kvplan.traces import Workload
from kvplan.traces.context import contexts
from kvplan.traces.reuse import accesses, active, stack_distances, starts

TIER, POLICIES = ON_HOST, ("lookahead", "lru", "fifo")
"""What a curve is of when nobody says."""
TTL_S = 3600.0
"""The unit of time of CCpUT when no TTL is set."""
_SIZES = 8
_BY_REPLICA = "a curve is worked out replica by replica"
_POINTS = 200


@dataclass(frozen=True)
class Capacity:
    """What the sessions of a workload ask for, in bytes."""

    ttl_s: float
    dsput: int
    """Distinct sessions that have a turn within any TTL, at most."""
    ccput_bytes: int
    """All of them at a full window."""
    held_bytes: int
    """All of them at their real sizes."""
    longest_bytes: int
    """The longest session."""


def capacity(config: Config, deployment: Deployment, workload: Workload) -> Capacity:
    """Of a workload with times; answers take no time, so a real server has more active sessions in a closed loop."""
    ttl_s = config.store.ttl_s or TTL_S
    seen = accesses(workload, 1, deployment.window, ratio=config.deployment.truncation_ratio).sized(deployment.stored)
    dsput, held = active(seen, ttl_s)
    return Capacity(ttl_s, dsput, dsput * deployment.stored(deployment.window), held, int(seen.size.max()))


def default_sizes(tier: str, deployment: Deployment, needed: Capacity) -> list[str]:
    """Powers of two, up to what holds all active sessions, that fit into the node and hold the longest session: a full window, or twice the
    longest here, since other replications draw others."""
    copies = deployment.copies.get(tier, 1.0)
    top = math.ceil(math.log2(copies * needed.held_bytes / 1e6))
    if tier == ON_HOST and deployment.node.max_dram is not None:
        top = min(top, math.floor(math.log2(deployment.node.max_dram.value / 1e6)))
    least = math.ceil(math.log2(copies * min(deployment.stored(deployment.window), 2 * needed.longest_bytes) / 1e6))
    return [_size(power) for power in range(max(top - _SIZES + 1, least), max(top, least) + 1)]


def _size(power: int) -> str:
    """About 2^power MB: 256MB, 512MB, 1GB, 2GB; a GB is 1000 MB, so each step from MB to GB is 2.4 % short."""
    return f"{2 ** (power - 10)}GB" if power >= 10 else f"{2 ** max(power, 0)}MB"


def axes(config: Config, tier: str, names: Sequence[str], sizes: Sequence[str]) -> tuple[Axis, Axis]:
    """Policies by sizes. A prefetcher of a policy's name goes with it; the others have the configured one."""
    known = policies("prefetch")
    points = tuple((name, name if name in known else config.store.prefetch) for name in names)
    for size in sizes:
        _check_size(size)
    return Axis(("store.eviction", "store.prefetch"), points), Axis((f"store.{tier}",), tuple((size,) for size in sizes))


def _check_size(size: str) -> None:
    try:
        parse_bytes(size)
    except ValueError as error:
        raise ConfigError(f"--sizes: {error}") from None


_NO_BLOCKS = (
    "this curve is of whole sessions ({why}); servers of blocks, which store.unit=auto is elsewhere, also keep prefixes in the HBM that"
    " running requests leave, and need less: `kvplan compare --vary store.{tier}=...` has their hits by size"
)


@dataclass(frozen=True)
class Curves:
    """Runs that are ready to be done, and what they are asked for."""

    sweep: Sweep
    tier: str
    needed: Capacity
    config: Config
    """What the points have in common."""


def prepare_curves(question: Question, tier: str, sizes: Sequence[str], names: Sequence[str], read=build_workload) -> Curves:
    """The question's configuration with every eviction policy at every size; powers of two when no sizes are given. Raises ConfigError and
    TraceError."""
    config, notes = load(question.source, question.overrides), []
    if OPTIMAL in names:
        why = why_sessions(config, tier)
        raise ConfigError(f"--policies {OPTIMAL}: this curve is of whole sessions ({why}), and the bound is of blocks: --unit block has it")
    if config.store.unit == "auto":
        notes = of_sessions(config, resolve(config)) or [_NO_BLOCKS.format(tier=tier, why=why_sessions(config, tier) or "simulated")]
        question = replace(question, overrides=(*question.overrides, "store.unit=session"))
        config = load(question.source, question.overrides)
    deployment = resolve(config)
    if not deployment.connection.saves_answers:
        notes.append(
            "LRU, clockless, keeps answers as well, which are not saved here (store.saved): nothing that is simulated hits as much"
        )
    workload = read(config)
    replica_of(config, workload.sessions, _BY_REPLICA)  # before anything is simulated
    needed = capacity(config, deployment, workload)
    varied = axes(config, tier, names, sizes or default_sizes(tier, deployment, needed))
    sweep = _with_recomputation(prepare(replace(question, axes=varied), lambda _: workload))
    return Curves(replace(sweep, notes=(*notes, *sweep.notes)), tier, needed, config)


RECOMPUTE = "recompute"
"""The variant without any store."""


def _with_recomputation(sweep: Sweep) -> Sweep:
    """The same, and as many runs without a store: what a curve is held against."""
    if not sweep.runs:
        return sweep
    first = [run for run in sweep.runs if run.variant == sweep.runs[0].variant]
    bare = [replace(run, variant=RECOMPUTE, config=run.config.recompute()) for run in first]
    runs = tuple(replace(run, digest=digest(run.config)) for run in bare)
    variant = Variant(Point(RECOMPUTE, tuple((f"store.{tier}", "0GB") for tier in SHORTHANDS)), bare[0].config)
    return replace(sweep, variants=(*sweep.variants, variant), runs=(*sweep.runs, *runs))


def lru(sweep: Sweep, tier: str, elsewhere: int, sizes: Sequence[str], tpot_s: float) -> list[dict[str, float]]:
    """Hit rates of resumed turns and of all prompt tokens, means over the replications' workloads, of one LRU list of whole sessions per
    replica, as large as all tiers together, and the varied tier's part: what lies within its size, beyond all tiers above it."""
    first = [run.config for run in sweep.runs if run.variant == sweep.runs[0].variant]
    above, copies = _above(first[0], tier), resolve(first[0]).copies.get(tier, 1.0)
    reuse = [_reuse(config, resolve(config), build_workload(config), tpot_s) for config in first]
    exact = [parse_bytes(size) for size in sizes]
    return [
        {
            "bytes": float(size),
            "hit_rate.resumed": float(np.mean([each.turns(0, size / copies + elsewhere) for each in reuse])),
            "hit_rate.tokens": float(np.mean([each.tokens(size / copies + elsewhere) for each in reuse])),
            f"hit_rate.{tier}": float(np.mean([each.turns(above, above + size / copies) for each in reuse])),
        }
        for size in np.union1d(_between(exact), exact)
    ]


def _above(config: Config, tier: str) -> int:
    """Bytes of KV in the tiers that come before it."""
    rooms = {tier.name: tier.capacity for tier in resolve(config).tiers}
    return sum(rooms.get(each.name, 0) for each in takewhile(lambda each: each.name != tier, config.store.listed))


def _between(exact: Sequence[int]) -> np.ndarray:
    """Sizes from the least that is not 0 to the greatest."""
    positive = [size for size in exact if size]
    return np.rint(np.geomspace(min(positive), max(positive), _POINTS)) if positive else np.array([])


@dataclass(frozen=True)
class _Reuse:
    """Resumed turns after the warm-up, in columns of equal length; tokens."""

    distance: np.ndarray
    """Bytes to the end of the session's KV in an LRU list, from the most recent on."""
    history: np.ndarray
    """Of the turn, where it outlived no TTL, and a cut of its start has not spoilt it (`store.positions`); else 0."""
    prompts: int
    """What all turns after the warm-up read, histories included."""

    def turns(self, above: float, capacity: float) -> float:
        """Share of the resumed turns that find their history beyond the one and within the other."""
        found = (self.history > 0) & (self.distance > above) & (self.distance <= capacity)
        return float(found.mean()) if len(found) else 0.0

    def tokens(self, capacity: float) -> float:
        """Share of all prompt tokens that is found within the capacity."""
        return float(self.history[self.distance <= capacity].sum() / max(1, self.prompts))


def _reuse(config: Config, deployment: Deployment, workload: Workload, tpot_s: float) -> _Reuse:
    distances, found, prompts = [], [], 0
    place, answer_s, ratio = (
        replica_of(config, workload.sessions, _BY_REPLICA),
        workload.output_tokens * tpot_s,
        config.deployment.truncation_ratio,
    )
    seen = accesses(workload, 1, deployment.window, answer_s, ratio)
    history, prompt, _ = contexts(workload, deployment.window, ratio)
    order, spoilt = np.argsort(starts(workload, answer_s), kind="stable"), turns_of(config, deployment, workload).void
    read, kept = (history + prompt)[order], ~spoilt[order]
    for replica in np.unique(place):
        mine = place[seen.session] == replica
        part = seen.those(mine)
        distance, counted = stack_distances(part.sized(deployment.stored)), np.flatnonzero(mine) >= config.warmup_turns
        resumed = (distance >= 0) & counted
        distances.append(distance[resumed])
        found.append(np.where(kept[mine] & (part.gap_s <= (config.store.ttl_s or math.inf)), part.history, 0)[resumed])
        prompts += int(read[mine][counted].sum())
    return _Reuse(np.concatenate(distances), np.concatenate(found), prompts)
