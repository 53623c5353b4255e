"""Times at sample points: one prompt after histories of several lengths, recomputed and loaded from each tier.

Source: CachedAttention (USENIX ATC 2024) section 3 for S_buf; the pipeline is `kvplan.hwmodels.steptime.pipeline_s`.
"""

from kvplan.hwmodels import pipeline_s
from kvplan.sim.config import ON_HOST, Config
from kvplan.sim.deployment import Deployment

_HISTORY_SHARES = (0.125, 0.25, 0.5, 1.0)


def points_of(config: Config, deployment: Deployment, turn: dict) -> list[dict]:
    """The mean prompt after histories of several lengths, up to what the window holds beside it."""
    new = max(round(turn["prompt_tokens"]), 1)
    most = max(deployment.window - new - max(round(turn["output_tokens"]), 1), 1)
    return [_point(config, deployment, new, max(round(share * most), 1)) for share in _HISTORY_SHARES]


def _point(config: Config, deployment: Deployment, new: int, history: int) -> dict:
    """Recomputing, and loading from each tier, for one prompt of `new` tokens."""
    layers, size, host = deployment.steps.layers, deployment.stored(history), deployment.host
    in_dram = size * deployment.copies.get(ON_HOST, 1.0)
    recompute, compute = deployment.steps.prefill(new + history), deployment.steps.prefill(new, history)
    latency_s = deployment.connection.transfers(layers) * host.latency_s
    load = in_dram / host.read_bytes_per_s + latency_s
    sizes = {name: size * deployment.copies.get(name, 1.0) for name in deployment.links}
    own = {name: sizes[name] / links.read_bytes_per_s + links.latency_s for name, links in deployment.links.items()}
    over_host = {name: each / host.read_bytes_per_s + latency_s for name, each in sizes.items()}
    ahead_s, layerwise = deployment.connection.ahead_s, deployment.connection.layerwise
    buffered = min(config.store.read_buffer_layers, layers) if layerwise else 0

    def turn(seconds: float, preloaded: float, begins_s: float) -> float:
        if not layerwise:
            return begins_s + seconds + compute
        return pipeline_s(layers, compute / layers, seconds / layers, preloaded, 0.0 if preloaded else begins_s)

    def from_below(name: str) -> float:
        if deployment.pooled and ON_HOST in deployment.sizes:  # chunks come up to DRAM before they are loaded
            return turn(load, 0, max(ahead_s(in_dram), own[name]))
        faster, slower = sorted((over_host[name], own[name]))
        return turn(slower, 0, ahead_s(sizes[name]) + faster / layers)

    layers_needed = max(0.0, load - compute) * host.read_bytes_per_s / (in_dram / layers)
    return {
        "prompt_tokens": new,
        "history_tokens": history,
        "kv_bytes": size,
        "recompute_s": recompute,
        "prefill_new_s": compute,
        "load_dram_s": load,
        **{f"load_{name}_s": seconds for name, seconds in own.items()},
        "with_dram_s": turn(load, buffered, ahead_s(in_dram)),
        "with_dram_unbuffered_s": turn(load, 0, ahead_s(in_dram)),
        **{f"with_{name}_s": from_below(name) for name in own},
        "break_even_bytes_per_s": in_dram / (recompute - compute) if recompute > compute else None,
        "s_buf_bytes": layers_needed * (size / layers),
        "s_buf_layers": layers_needed,
    }


def at_the_mean_turn(config: Config, deployment: Deployment, turn: dict) -> dict:
    return _point(config, deployment, max(round(turn["prompt_tokens"]), 1), max(round(turn["history_tokens"]), 1))
