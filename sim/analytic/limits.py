"""Where the arithmetic does not hold, in words: what it leaves out of a configuration, and what that does to its figures."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from kvplan.sim.analytic.expected import Expected
from kvplan.sim.config import Config, Store
from kvplan.sim.deployment import Deployment
from kvplan.sim.keptunit import fetches_ahead
from kvplan.sim.tiers import fetch_target

SERVED, GPU, LINKS = "served", "GPU", "links"
_HIGH = 0.8
_SOME = 0.25
_FEW_TURNS = 400


class Limit(NamedTuple):
    """One reason."""

    of: tuple[str, ...]
    """Kinds of figures that it concerns."""
    words: str


def limits(config: Config, deployment: Deployment, seen: Expected) -> Iterator[Limit]:
    """Those of a configuration."""
    yield from _policies(config, deployment, seen)
    yield from () if deployment.pooled else _room(config, deployment, seen)
    yield from _saturation(seen)
    yield from _sample(seen)
    if len(seen.turns.history) < _FEW_TURNS:
        yield Limit((SERVED, GPU, LINKS), f"{len(seen.turns.history)} turns are few: chance moves every figure")


def _policies(config: Config, deployment: Deployment, seen: Expected) -> Iterator[Limit]:
    store = config.store
    if store.load != "always" and deployment.tiers:
        yield Limit(
            (SERVED, GPU, LINKS),
            f"links are taken to be idle: store.load={store.load} decides by how busy they are, and loads less or more",
        )
    if fetches_ahead(store) if deployment.pooled else _fetches(store, deployment, seen):
        yield Limit(
            (SERVED, GPU, LINKS),
            f"nothing is fetched ahead: store.prefetch={store.prefetch} brings what waiting jobs need from SSD into DRAM, which then"
            " serves it",
        )
    leave = len(deployment.tiers) > 1 if deployment.pooled else _leave(deployment, seen)
    if store.eviction != "lru" and leave:
        yield Limit((SERVED, LINKS), f"tiers are taken to be LRU: store.eviction={store.eviction} lets others leave")
    if deployment.pooled:
        return
    if store.ttl_s is not None and len(deployment.tiers) > 1:
        yield Limit((LINKS,), "what expires leaves room and is not written down: less moves between tiers than is said")
    if store.write == "within-rating" and len(deployment.tiers) > 1:
        yield Limit((SERVED, LINKS), "all is written down that must make room: store.write=within-rating loses what is beyond the rating")


def _room(config: Config, deployment: Deployment, seen: Expected) -> Iterator[Limit]:
    """Tiers that are small beside single sessions, and saves that find no room."""
    largest = deployment.stored(int(seen.turns.context.max()))
    for tier, kept in zip(deployment.tiers, seen.pinned, strict=True):
        name, size = tier.name, tier.capacity
        if kept > _SOME * (size - tier.reserve):
            yield Limit((SERVED, LINKS), f"running jobs keep {kept / size:.0%} of {name}: who leaves then is not LRU's choice alone")
        elif size < 20 * largest:
            yield Limit((SERVED, LINKS), f"{name} holds {size / largest:.0f} of the largest sessions: figures come in steps of a session")
    for tier in deployment.tiers[:-1]:
        if tier.reserve < largest and _leave(deployment, seen):
            yield Limit((SERVED, LINKS), f"{tier.name} keeps less free than the largest session: saves may find no room and are skipped")


def _saturation(seen: Expected) -> Iterator[Limit]:
    if seen.load > _HIGH:
        yield Limit(
            (SERVED, GPU, LINKS),
            f"at the busiest time GPUs have {seen.load:.0%} of the work that full batches can do: turns wait, come back later, and LRU"
            " serves less",
        )
    busiest = max(seen.busy, key=lambda name: 0.0 if name == "GPU" else seen.busy[name])
    if busiest != "GPU" and seen.busy[busiest] > _SOME:
        yield Limit(
            (SERVED, GPU, LINKS),
            f"{busiest} is busy {seen.busy[busiest]:.0%} of the time: transfers wait for each other, and so do GPUs and saves",
        )


def _sample(seen: Expected) -> Iterator[Limit]:
    """Not all replicas were looked at."""
    walked, replicas = (len(np.unique(turns.replica)) for turns in (seen.walked, seen.turns))
    if walked < replicas:
        yield Limit(
            (SERVED, GPU, LINKS),
            f"they are those of {walked} of {replicas} replicas, {len(seen.walked.history):,} of {len(seen.turns.history):,} turns: hits of"
            f" all, in any tier, are within {100 * seen.error:.1f} points (two standard errors)",
        )


def _fetches(store: Store, deployment: Deployment, seen: Expected) -> bool:
    """Whether whole sessions are fetched ahead."""
    return store.prefetch != "none" and fetch_target(deployment.tiers) is not None and _leave(deployment, seen)


def _leave(deployment: Deployment, seen: Expected) -> bool:
    """Whether sessions leave the first tier at all."""
    return bool(deployment.tiers) and bool(np.any(seen.turns.distance > deployment.tiers[0].capacity - deployment.tiers[0].reserve))
