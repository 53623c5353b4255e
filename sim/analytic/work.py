"""What the turns of a workload ask of GPUs, links and drives, turn by turn, when each finds what `serve` says.

A turn that has to wait finds the GPUs in the middle of a decode step, and its read buffer fills meanwhile; nothing else is loaded before a
job starts: without a queue a fetch begins when its job does.
"""

from dataclasses import dataclass, replace

import numpy as np

from kvplan.hwmodels import pipeline_s
from kvplan.sim.analytic.queueing import Server
from kvplan.sim.analytic.turns import Served, Turns
from kvplan.sim.config import Config
from kvplan.sim.deployment import Deployment


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
    per_job = (
        deployment.steps.decode(1, 0)
        - deployment.steps.decode(0, 0)
        + (deployment.steps.decode(0, 1) - deployment.steps.decode(0, 0)) * context
    )
    return Server(alone_s, steps, deployment.steps.decode(0, 0), per_job, most)


def _prefills(
    config: Config, deployment: Deployment, turns: Turns, served: Served, waits_s: float
) -> tuple[Served, np.ndarray, np.ndarray]:
    """What is served in the end, and the seconds of each prefill and of waiting for its KV: some load policies recompute what is slow."""
    new = turns.history + turns.prompt - served.cached
    compute, stall = deployment.steps.prefill(new, served.cached), np.zeros(len(new))
    names = list(deployment.sizes)
    loaded = [index for index, name in enumerate(names) if name != "hbm"]
    for turn in np.flatnonzero(np.isin(served.tier, loaded)).tolist():
        tokens, seconds = int(served.cached[turn]), float(compute[turn])
        stall[turn] = load_s(config, deployment, names[served.tier[turn]], tokens, seconds, waits_s) - seconds
    if config.store.load != "always":
        recompute = deployment.steps.prefill(new + served.cached)
        slow = (served.cached > 0) & (recompute < compute + stall)
        compute, stall = np.where(slow, recompute, compute), np.where(slow, 0.0, stall)
        served = replace(served, tier=np.where(slow, -1, served.tier), cached=np.where(slow, 0, served.cached))
    return served, compute, stall


def load_s(config: Config, deployment: Deployment, tier: str, tokens: int, compute_s: float, waits_s: float) -> float:
    """Seconds from a job's start to the end of its prefill, which takes `compute_s`, while its history is loaded from a tier."""
    store, layers, size = config.store, deployment.steps.layers, tokens * deployment.kv_bytes
    load = size / deployment.host.read_bytes_per_s + layers * deployment.host.latency_s
    early = 0.0
    if tier == "dram":
        early = min(store.read_buffer_layers, layers, waits_s / load * layers) if store.preload == "layerwise" else 0.0
    else:
        load = max(load, size / deployment.drive_links.read_bytes_per_s + deployment.drive_links.latency_s)
    if store.preload == "none":
        return load + compute_s
    return pipeline_s(layers, compute_s / layers, load / layers, early)


def _links(config: Config, deployment: Deployment, turns: Turns, served: Served) -> dict[str, float]:
    names = list(deployment.sizes)
    kv, count = deployment.kv_bytes, len(turns.history)

    def tokens(*tiers: str) -> float:
        return float(served.cached[np.isin(served.tier, [names.index(name) for name in tiers if name in names])].sum()) / count

    saved = _saved_s(deployment, turns, served)
    down = {name: below.written * kv / count for name, below in zip(names[1:], served.below, strict=True)}
    to_host = down.get(names[1], 0.0) if names[:1] == ["hbm"] and down else 0.0
    return {
        "host to GPU": tokens("dram", "ssd") * kv / deployment.host.read_bytes_per_s,
        "GPU to host": saved.get("GPU to host", 0.0) + to_host / deployment.host.write_bytes_per_s,
        "SSD read": tokens("ssd") * kv / deployment.drive_links.read_bytes_per_s,
        "SSD write": saved.get("SSD write", 0.0) + down.get("ssd", 0.0) / deployment.drive_links.write_bytes_per_s,
    }


def _saved_s(deployment: Deployment, turns: Turns, served: Served) -> dict[str, float]:
    """Seconds of the links over which the mean turn's new KV reaches the first tier."""
    if not deployment.tiers or deployment.tiers[0].on_device:
        return {}
    size = float((turns.context - served.cached).mean()) * deployment.kv_bytes
    found = {"GPU to host": size / deployment.host.write_bytes_per_s}
    if deployment.tiers[0].own is not None:
        found["SSD write"] = size / deployment.drive_links.write_bytes_per_s
    return found
