"""What the turns of a workload ask of GPUs, links and drives, turn by turn, when each finds what `serve` says.

A turn that has to wait finds the GPUs in the middle of a decode step, and its read buffer fills meanwhile; nothing else is loaded before a
job starts: without a queue a fetch begins when its job does.
"""

from dataclasses import dataclass, replace

import numpy as np

from kvplan.hwmodels import pipeline_s
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
    served, prefill, stall = _prefills(config, deployment, turns, served, waits_s)
    links = _links(config, deployment, turns, served)
    save = max(_saved_s(deployment, turns, served).values(), default=0.0) if config.store.save == "sync" else 0.0
    return Work(served, float(prefill.mean()), float(stall.mean()), save, links)


def recomputing_s(deployment: Deployment, turns: Turns) -> float:
    """Seconds of the mean turn's prefill without any store."""
    return float(deployment.steps.prefill(turns.history + turns.prompt).mean())


def server(deployment: Deployment, turns: Turns, alone_s: float, most: int) -> Server:
    """The replica for turns whose prefill takes `alone_s`."""
    decoded = np.maximum(turns.output - 1, 0)
    steps = float(decoded.mean())
    weight = max(float(decoded.sum()), 1.0)
    context = float((decoded * (turns.history + turns.prompt + turns.output / 2)).sum()) / weight
    window_s = deployment.steps.per_window_byte * deployment.window_bytes(turns.history + turns.prompt, decoded)
    return Server(alone_s, steps, lambda jobs: deployment.steps.decode(jobs, jobs * context) + jobs * window_s, most)


def _prefills(
    config: Config, deployment: Deployment, turns: Turns, served: Served, waits_s: float
) -> tuple[Served, np.ndarray, np.ndarray]:
    """What is served in the end, and the seconds of each prefill and of GPUs that wait for its KV: some load policies recompute what is
    slow."""
    new = turns.history + turns.prompt - served.cached
    compute, stall = deployment.steps.prefill(new, served.cached), np.zeros(len(new))
    loaded = [index for index, tier in enumerate(deployment.tiers) if not tier.on_device]
    for turn in np.flatnonzero(np.isin(served.tier, loaded)).tolist():
        tokens, seconds = int(served.cached[turn]), float(compute[turn])
        stall[turn] = load_s(config, deployment, deployment.tiers[served.tier[turn]], tokens, seconds, waits_s) - seconds
    if config.store.load != "always":
        recompute = deployment.steps.prefill(new + served.cached)
        slow = (served.cached > 0) & (recompute < compute + stall)
        compute, stall = np.where(slow, recompute, compute), np.where(slow, 0.0, stall)
        served = replace(served, tier=np.where(slow, -1, served.tier), cached=np.where(slow, 0, served.cached))
    return served, compute, np.zeros(len(new)) if deployment.connection.asynchronous else stall


def load_s(config: Config, deployment: Deployment, tier: TierSpec, tokens: int, compute_s: float, waits_s: float) -> float:
    """Seconds from a job's start to the end of its prefill, which takes `compute_s`, while its history is loaded from a tier."""
    store, layers, size = config.store, deployment.steps.layers, tier.taken(deployment.stored(tokens))
    load = size / deployment.host.read_bytes_per_s + deployment.connection.transfers(layers) * deployment.host.latency_s
    request_s, early = deployment.connection.request_s, 0.0
    if tier.own is not None:
        load = max(load, size / tier.own.read_bytes_per_s + tier.own.latency_s)
    if not deployment.connection.layerwise:
        return request_s + load + compute_s
    if tier.own is None and store.read_buffer_layers:
        ahead_s = waits_s - request_s
        request_s, early = max(0.0, -ahead_s), min(store.read_buffer_layers, layers, max(0.0, ahead_s) / load * layers)
    return pipeline_s(layers, compute_s / layers, load / layers, early, request_s)


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
    down = {tier.name: tier.copies * below.written / count for tier, below in zip(tiers[1:], served.below, strict=True)}
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
