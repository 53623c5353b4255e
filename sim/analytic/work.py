"""What the turns of a workload ask of GPUs, links and drives, turn by turn, when each finds what `serve` says.

A turn that has to wait finds the GPUs in the middle of a decode step, and its read buffer fills meanwhile; nothing else is loaded before a
job starts: without a queue a fetch begins when its job does.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from kvplan.hwmodels import pipeline_s
from kvplan.sim.analytic.prefilling import each_s, prefill_alone
from kvplan.sim.analytic.queueing import Server
from kvplan.sim.analytic.turns import Served, Turns, served_bytes
from kvplan.sim.config import Config
from kvplan.sim.deployment import Deployment
from kvplan.sim.tiers import TierSpec


@dataclass(frozen=True)
class Work:
    """Of the mean turn, in seconds."""

    served: Served
    prefill_s: float
    stall_s: float
    """The GPUs wait for KV that loads slower than new tokens are prefilled."""
    save_s: float
    """The GPUs wait until KV is saved."""
    links_s: dict[str, float]
    """By name: host to GPU, GPU to host, SSD read, SSD write."""


def work(config: Config, deployment: Deployment, turns: Turns, served: Served, waits_s: float) -> Work:
    """`waits_s`: what a turn waits in the mean until its prefill starts."""
    done = prefills(config, deployment, turns, served, waits_s)
    links = _links(config, deployment, turns, done.served)
    save = max(_saved_s(deployment, turns, done.served).values(), default=0.0) if config.store.save == "sync" else 0.0
    stall = 0.0 if deployment.connection.asynchronous else float(done.waits_s.mean())
    return Work(done.served, float(done.compute_s.mean()), stall, save, links)


def server(deployment: Deployment, turns: Turns, alone_s: float, most: int) -> Server:
    """The replica for turns whose prefill takes `alone_s`."""
    decoded = np.maximum(turns.output - 1, 0)
    steps = float(decoded.mean())
    weight = max(float(decoded.sum()), 1.0)
    context = float((decoded * (turns.history + turns.prompt + turns.output / 2)).sum()) / weight
    windows = deployment.window_bytes(turns.history + turns.prompt, decoded)
    return Server(alone_s, steps, lambda jobs: deployment.steps.decode(jobs, jobs * context, 1, jobs * windows), most)


@dataclass(frozen=True)
class Prefills:
    """Of each turn on idle links: its first token is out when it has waited and computed."""

    served: Served
    """In the end: some load policies recompute what is slow."""
    compute_s: np.ndarray
    waits_s: np.ndarray
    """For its KV, beyond what it computes meanwhile."""


def prefills(config: Config, deployment: Deployment, turns: Turns, served: Served, waits_s: float) -> Prefills:
    """`waits_s` as for `work`."""
    alone, context = prefill_alone(config, deployment), turns.history + turns.prompt
    resident = served.tokens[_on_device(deployment, True)].sum(axis=0)
    compute, waits = alone(context - served.cached, served.cached), np.zeros(len(context))
    loading = np.flatnonzero(served.cached > resident)
    whole = each_s(deployment.steps.prefill, (context - served.cached)[loading], served.cached[loading])
    loaded = served.loaded or deployment.stored
    comes_up_s, before = _comes_up_s(deployment, served)[loading], np.zeros(len(context))
    if config.store.defers:
        before[loading], comes_up_s = comes_up_s, np.zeros(len(loading))
    waits[loading] = _loads_s(config, deployment, served.tokens[:, loading], whole, waits_s, comes_up_s, loaded) - whole
    if config.store.load != "always":
        again = each_s(deployment.steps.prefill, (context - resident)[loading], resident[loading])
        slow = loading[again < whole + waits[loading]]
        compute[slow], waits[slow] = alone((context - resident)[slow], resident[slow]), 0.0
        tokens = served.tokens.copy()
        tokens[np.ix_(_on_device(deployment, False), slow)] = 0
        served = replace(served, tokens=tokens)
    return Prefills(served, compute, before + waits)


def _on_device(deployment: Deployment, so: bool) -> np.ndarray:
    """bool per tier."""
    return np.array([tier.on_device == so for tier in deployment.tiers], bool)


def _loads_s(
    config: Config,
    deployment: Deployment,
    tokens: np.ndarray,
    compute_s: np.ndarray,
    waits_s: float,
    ready_s: np.ndarray,
    loaded: Callable[[int], int],
) -> np.ndarray:
    """`_load_s` of what each turn has from each tier, of chunks of blocks all from the first tier below HBM."""
    below, found = [found for found in zip(deployment.tiers, tokens, strict=True) if not found[0].on_device], np.zeros(len(compute_s))
    if deployment.pooled and below:
        below = [(below[0][0], sum(sizes for _, sizes in below))]
    for tier, sizes in below:
        here, load_s = np.flatnonzero(sizes), _load_s(config, deployment, tier, waits_s, loaded)
        columns = (column[here].tolist() for column in (sizes, compute_s, ready_s))
        found[here] = [load_s(*turn) for turn in zip(*columns, strict=True)]
    return found


def _comes_up_s(deployment: Deployment, served: Served) -> np.ndarray:
    """Seconds until a turn's chunks of blocks have come up to the first tier below HBM, from each at once: before any is loaded, or before
    its job starts where it is deferred for that."""
    found = np.zeros(served.tokens.shape[1])
    for tier, rose in () if served.rose is None else zip(deployment.tiers, served.rose, strict=True):
        up = [tier.own.seconds(tier.taken(size)) if tier.own and size else 0.0 for size in rose.tolist()]
        found = np.maximum(found, up)
    return found


def _load_s(
    config: Config, deployment: Deployment, tier: TierSpec, waits_s: float, loaded: Callable[[int], int]
) -> Callable[[int, float, float], float]:
    """(tokens of history in a tier, seconds that the prefill takes, seconds after a job's start until the history is complete there) ->
    seconds from the start to the end of the prefill, while the history is loaded."""
    layers, host, connection, own = deployment.steps.layers, deployment.host, deployment.connection, tier.own
    latency_s = connection.transfers(layers) * host.latency_s
    buffered = min(config.store.read_buffer_layers, layers) if own is None else 0

    def seconds(tokens: int, compute_s: float, ready_s: float) -> float:
        size = tier.taken(loaded(tokens))
        load, asks_s = size / host.read_bytes_per_s + latency_s, connection.ahead_s(size)
        request_s, early = max(asks_s, ready_s), 0.0
        if own is not None:
            faster, load = sorted((load, own.seconds(size)))
            request_s += faster / layers  # the first layer goes over one after the other
        if not connection.layerwise:
            return request_s + load + compute_s
        if buffered:
            ahead_s = waits_s - asks_s
            request_s = max(ready_s, -ahead_s, 0.0)
            if not ready_s:
                early = min(buffered, max(0.0, ahead_s) / load * layers)
        return pipeline_s(layers, compute_s / layers, load / layers, early, request_s)

    return seconds


def read_of(tier: str) -> str:
    """What the links of a tier's own are called, towards the GPU."""
    return f"{tier.upper()} read"


def write_of(tier: str) -> str:
    return f"{tier.upper()} write"


def _links(config: Config, deployment: Deployment, turns: Turns, served: Served) -> dict[str, float]:
    """Seconds of each link for the mean turn."""
    names, tiers, host = list(deployment.sizes), deployment.tiers, deployment.host
    count = len(turns.history)

    def loaded(indices: list[int]) -> float:
        return sum(tiers[index].copies * size for index, size in enumerate(served_bytes(deployment, turns, served)) if index in indices)

    saved = _saved_s(deployment, turns, served)
    down = {tier.name: tier.copies * written / count for tier, written in zip(tiers[1:], served.written, strict=True)}
    to_host = down.get(names[1], 0.0) if down and tiers[0].on_device else 0.0
    found = {
        "host to GPU": loaded([index for index, tier in enumerate(tiers) if not tier.on_device]) / host.read_bytes_per_s,
        "GPU to host": saved.get("GPU to host", 0.0) + to_host / host.write_bytes_per_s,
    }
    for name, links in deployment.links.items():
        here = [index for index, tier in enumerate(tiers) if tier.name == name]
        found[read_of(name)] = loaded(here) / links.read_bytes_per_s
        found[write_of(name)] = saved.get(write_of(name), 0.0) + down.get(name, 0.0) / links.write_bytes_per_s
    return found


def _saved_s(deployment: Deployment, turns: Turns, served: Served) -> dict[str, float]:
    """Seconds of the links over which the mean turn's new KV reaches the first tier."""
    if not deployment.tiers or deployment.tiers[0].on_device:
        return {}
    first, kept = deployment.tiers[0], deployment.connection.saved(turns.context, turns.output)
    size = first.copies * float(deployment.stored(np.maximum(kept - served.cached, 0)).mean())
    found = {"GPU to host": size / deployment.host.write_bytes_per_s}
    if first.own is not None:
        found[write_of(first.name)] = size / first.own.write_bytes_per_s
    return found
