"""The layer pipeline: its closed form against the recurrence that defines it, and the read buffer that the paper asks for.

The recurrence: layer i is computed from max(end of layer i − 1, when its KV is there) on. Its KV is there at the start for the first b
layers, then one layer every l seconds. The paper's buffer, S_buf = B·(T_load·L_hist − T_pref·L_new), holds what cannot be loaded during the
prefill. It counts whole transfers and whole prefills, but a layer must be there before it is computed: what is left of the stall is the
shorter of one layer's load (of the first, when no buffer is asked for) and one layer's computation (of the last).

Source: CachedAttention (USENIX ATC 2024) section 3.2.
"""

import numpy as np

from kvplan.hwmodels import pipeline_s
from kvplan.sim import config
from kvplan.sim.deployment import Deployment, resolve
from kvplan.sim.rng import stream
from kvplan.validate.verdict import Finding

CASES = 20_000
HISTORY, NEW = 3000, 100


def recurrence_s(layers: int, compute_s: float, load_s: float, preloaded: float, delay_s: float) -> float:
    """Seconds to the end of the prefill, layer by layer; parameters as those of `hwmodels.pipeline_s`."""
    end = 0.0
    for layer in range(1, layers + 1):
        there = delay_s + (layer - preloaded) * load_s if layer > preloaded else 0.0
        end = max(end, there) + compute_s
    return end


def closed_forms() -> list[Finding]:
    """The closed form on random pipelines, and S_buf for three of the paper's models."""
    rng = stream(1, "pipeline")
    off = 0.0
    for _ in range(CASES):
        layers = int(rng.integers(1, 100))
        compute, load, delay = rng.exponential(1, 3) * (rng.random(3) < 0.9)
        preloaded = rng.choice(np.array([0, layers, rng.integers(0, layers + 1), rng.uniform(0, layers)]))
        exact = recurrence_s(layers, compute, load, preloaded, delay)
        off = max(off, abs(pipeline_s(layers, compute, load, preloaded, delay) - exact) / max(1.0, exact))
    found = [Finding(f"closed form of {CASES:,} pipelines, largest relative error", 0, "recurrence, section 3.2", off, 1e-12)]
    for model, gpus in (("llama-2-13b", 2), ("llama-1-65b", 4), ("llama-2-70b", 4)):
        deployment = resolve(config.load(None, [f"model={model}", f"deployment.gpus={gpus}"]))
        found += _buffer(model, deployment, min(HISTORY, deployment.window - NEW))
    return found


def _buffer(model: str, deployment: Deployment, history: int) -> list[Finding]:
    """What S_buf leaves of the stall, and the smallest buffer that leaves as little, by the recurrence."""
    size, layers = deployment.stored(history), deployment.steps.layers
    transfer, prefill = size / deployment.host.read_bytes_per_s, deployment.steps.prefill(NEW, history)
    compute, load = prefill / layers, transfer / layers
    paper = deployment.host.read_bytes_per_s * (transfer - prefill)
    end = recurrence_s(layers, compute, load, max(0.0, paper) / size * layers, 0.0)
    least = _least_layers(layers, compute, load)
    return [
        Finding(f"{model}: stall that S_buf leaves, ms", 1e3 * min(load, compute), "one layer", 1e3 * (end - prefill), 1e-9),
        Finding(f"{model}: read buffer, GB", max(0.0, paper) / 1e9, "S_buf, section 3.2", least / layers * size / 1e9, 1e-6),
    ]


def _least_layers(layers: int, compute_s: float, load_s: float) -> float:
    """Fewest layers preloaded, a fraction counts, with which the prefill ends at most one layer's computation late; by bisection."""
    low, high = 0.0, float(layers)
    if recurrence_s(layers, compute_s, load_s, low, 0.0) <= (layers + 1) * compute_s:
        return low
    while high - low > 1e-9 * layers:
        middle = (low + high) / 2
        late = recurrence_s(layers, compute_s, load_s, middle, 0.0) > (layers + 1) * compute_s * (1 + 1e-12)
        low, high = (middle, high) if late else (low, middle)
    return high
