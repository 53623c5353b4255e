"""What a configuration means before it runs: sizes, times at sample points, windows, and which resource gives out first.

Everything here is arithmetic (`kvplan.sim.analytic`), without a clock: what turns ask of each resource against what the resource has. The
simulator says what really happens; `kvplan validate explain` lays the two side by side. Shares of the history that each tier serves come
from the LRU distances of the workload, replica by replica; how busy GPUs are, from turns that come at random. `limits` says in words what
a configuration has that this leaves out.

Sources: CachedAttention (USENIX ATC 2024) section 3 for S_buf and L_pw; the pipeline is `kvplan.hwmodels.steptime.pipeline_s`.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np

from kvplan.hwmodels import kvsize, pipeline_s
from kvplan.hwmodels.cost import usd_per_s
from kvplan.hwmodels.units import format_bytes, format_seconds
from kvplan.sim.analytic.expected import Expected, expected
from kvplan.sim.analytic.limits import limits
from kvplan.sim.analytic.turns import Turns
from kvplan.sim.config import Config, without_clients
from kvplan.sim.deployment import Deployment, copies
from kvplan.sim.policies.registry import is_users_own
from kvplan.sim.provided import extras
from kvplan.traces import Workload
from kvplan.traces.context import contexts

_HISTORY_SHARES = (0.125, 0.25, 0.5, 1.0)
_MIDDLE = (0.05, 0.95)
"""Turns within these quantiles of time tell the rate: a few late sessions do not stretch it."""
_HOLDS_UP = ("GPU", "host to GPU", "GPU to host", "SSD read")
"""Resources that turns wait for. A save that the SSD cannot write in time is skipped instead."""


def explain(
    config: Config, deployment: Deployment, workload: Workload, report: Callable[[int, int], None] = lambda done, total: None
) -> dict:
    """All of it as plain data: bytes, seconds, tokens, dollars an hour. `report(done, total)` is called while distances are worked out.
    Raises ConfigError for clients, whose load follows from the answers."""
    without_clients(config, "explain works out what is asked for from when turns come")
    turn = _mean_turn(deployment, workload, config.deployment.truncation_ratio)
    hbm = _hbm(config, deployment, turn)
    most = max(round(hbm["jobs"]), 1)
    seen = expected(config, deployment, workload, most, report)
    found = {
        "model": _model(config, deployment),
        "hbm": hbm,
        "turn": turn,
        "tiers": _tiers(deployment, turn),
        "points": _points(config, deployment, turn),
        "windows": _windows(deployment, turn),
        "served": _served(deployment, seen),
        "rate": _rate(config, workload, seen.turns),
    }
    found["demand"] = _demand(deployment, found, seen)
    found["cost_usd_per_h"] = _cost(config, deployment, found)
    found["limits"] = [limit._asdict() for limit in limits(config, deployment, seen)]
    found["warnings"] = list(_warnings(config, deployment, workload, found))
    found["origin"] = dict(workload.origin)
    return found


def _model(config: Config, deployment: Deployment) -> dict:
    return {
        "name": deployment.model.name,
        "hardware": deployment.node.name,
        "gpus": deployment.gpus,
        "replicas": config.deployment.replicas,
        "window_tokens": deployment.window,
        "kv_bytes_per_token": deployment.kv_bytes,
        "hbm_kv_bytes_per_token": deployment.hbm_kv_bytes,
        "weight_bytes": kvsize.weight_bytes(deployment.model),
        "step_times": deployment.steps.source,
    }


def _mean_turn(deployment: Deployment, workload: Workload, ratio: float) -> dict:
    """Tokens of the mean turn, and of the mean session at its end, after truncation to the window."""
    history, prompt, output = contexts(workload, deployment.window, ratio)
    context = history + prompt + output
    last = workload.first_turn[1:] - 1
    resumed = ~workload.is_first
    return {
        "resumed_share": float(resumed.mean()),
        "resumed_history_tokens": float(history[resumed].mean()) if resumed.any() else 0.0,
        "history_tokens": float(history.mean()),
        "prompt_tokens": float(prompt.mean()),
        "output_tokens": float(output.mean()),
        "context_tokens": float(context.mean()),
        "session_tokens": float(context[last].mean()),
        "session_bytes": float(context[last].mean() * deployment.kv_bytes),
        "all_bytes": float(context[last].sum() * deployment.kv_bytes),
        "turns_per_session": workload.turns / workload.sessions,
    }


def _hbm(config: Config, deployment: Deployment, turn: dict) -> dict:
    tokens = deployment.hbm_budget // deployment.hbm_kv_bytes
    return {
        "installed_bytes": int(deployment.gpus * deployment.gpu.hbm.value),
        "kv_bytes": deployment.hbm_budget,
        "kv_tokens": tokens,
        "read_buffer_bytes": deployment.read_buffer,
        "write_buffer_bytes": deployment.write_buffer,
        "jobs": float(min(config.deployment.max_batch, max(tokens / turn["context_tokens"], 1))),
        "jobs_at_full_window": float(min(config.deployment.max_batch, tokens / deployment.window)),
    }


def _tiers(deployment: Deployment, turn: dict) -> dict:
    return {
        name: {
            "capacity_bytes": round(copies(deployment, name) * size),
            "kept_free_bytes": round(copies(deployment, name) * reserve),
            "sessions": size / turn["session_bytes"],
            "sessions_at_full_window": size / (deployment.window * deployment.kv_bytes),
        }
        for name, size, reserve in deployment.tiers
    }


def _points(config: Config, deployment: Deployment, turn: dict) -> list[dict]:
    """The mean prompt after histories of several lengths, up to what the window holds beside it."""
    new = max(round(turn["prompt_tokens"]), 1)
    most = max(deployment.window - new - max(round(turn["output_tokens"]), 1), 1)
    return [_point(config, deployment, new, max(round(share * most), 1)) for share in _HISTORY_SHARES]


def _point(config: Config, deployment: Deployment, new: int, history: int) -> dict:
    """Recomputing, and loading from each tier, for one prompt of `new` tokens."""
    layers, size = deployment.steps.layers, history * deployment.kv_bytes
    recompute, compute = deployment.steps.prefill(new + history), deployment.steps.prefill(new, history)
    load = size / deployment.host_to_device_bytes_per_s + layers * deployment.host_link_latency_s
    ssd = size / deployment.ssd_read_bytes_per_s + deployment.ssd_latency_s
    buffered = min(config.store.read_buffer_layers, layers) if config.store.preload == "layerwise" else 0

    def turn(seconds: float, preloaded: float) -> float:
        if config.store.preload == "none":
            return seconds + compute
        return pipeline_s(layers, compute / layers, seconds / layers, preloaded)

    needed = max(0.0, load - compute) * deployment.host_to_device_bytes_per_s
    return {
        "prompt_tokens": new,
        "history_tokens": history,
        "kv_bytes": size,
        "recompute_s": recompute,
        "prefill_new_s": compute,
        "load_dram_s": load,
        "load_ssd_s": ssd,
        "with_dram_s": turn(load, buffered),
        "with_dram_unbuffered_s": turn(load, 0),
        "with_ssd_s": turn(max(load, ssd), 0),
        "break_even_bytes_per_s": size / (recompute - compute),
        "s_buf_bytes": needed,
        "s_buf_layers": needed / (size / layers),
    }


def _windows(deployment: Deployment, turn: dict) -> dict:
    """L_pw = C_mem / S_kv and the eviction window (C_mem + C_disk) / S_kv, in waiting jobs; running jobs' pins make C_mem smaller."""
    sizes = {name: size - reserve for name, size, reserve in deployment.tiers}
    memory, disk = sizes.get("dram", 0), sizes.get("ssd", 0)
    return {
        "s_kv_bytes": turn["session_bytes"],
        "prefetch_jobs": memory / turn["session_bytes"] if disk else 0.0,
        "eviction_jobs": (memory + disk) / turn["session_bytes"],
    }


def _served(deployment: Deployment, seen: Expected) -> dict:
    """Shares of the history tokens that an LRU store of these tiers serves from each, and loses."""
    served, total = seen.work.served, max(float(seen.turns.history.sum()), 1.0)
    found = {name: float(served.cached[served.tier == index].sum()) / total for index, (name, *_) in enumerate(deployment.tiers)}
    return found | {"lost": 1.0 - float(served.cached.sum()) / total}


def _rate(config: Config, workload: Workload, turns: Turns) -> dict:
    """What arrives at one replica. Sessions may begin within minutes and go on for hours, so turns are counted over their own time;
    `steady` is what would come if sessions kept arriving."""
    replicas = config.deployment.replicas
    span = float(np.ptp(workload.arrival_s[workload.first_turn[:-1]]))
    low, high = _MIDDLE
    middle = float(np.ptp(np.quantile(turns.time_s, _MIDDLE)))
    return {
        "sessions_per_s": (workload.sessions - 1) / span / replicas if span else 0.0,
        "turns_per_s": (high - low) * (workload.turns - 1) / middle / replicas if middle else 0.0,
        "steady_turns_per_s": (workload.sessions - 1) / span / replicas * workload.turns / workload.sessions if span else 0.0,
        "span_s": span,
        "turns_span_s": float(np.ptp(turns.time_s)),
    }


def _demand(deployment: Deployment, found: dict, seen: Expected) -> dict:
    """Seconds that the mean turn takes of each resource, in full batches, and the share of it that the given rate uses up; and the shares
    of the whole run in which it will be busy, in batches as they come."""
    full, rate = seen.server, found["rate"]["turns_per_s"]
    without = replace(full, alone_s=seen.recomputing_s)
    seconds = {"GPU, recomputing": 1 / without.most_per_s, "GPU": 1 / full.most_per_s, **seen.work.links_s}
    resources = {
        name: {"seconds_per_turn": used, "turns_per_s": 1 / used if used else None, "utilization": used * rate}
        for name, used in seconds.items()
    }
    real = _HOLDS_UP if deployment.tiers else ("GPU, recomputing",)
    return {
        "resources": resources,
        "decode_s": full.steps * full.step_s(full.most) / full.most,
        "first": max(real, key=lambda name: resources[name]["utilization"]),
        "batch": full.most,
        "busy": seen.busy,
        "jobs": seen.jobs,
    }


def _cost(config: Config, deployment: Deployment, found: dict) -> dict:
    """Dollars an hour of one replica by the clock, and the share of a turn's GPU time that the cache must save, and does."""
    sizes = {name: size for name, size, _ in deployment.tiers}
    rates = usd_per_s(deployment.prices, deployment.gpu.name, deployment.gpus, sizes.get("dram", 0), sizes.get("ssd", 0), deployment.terms)
    gpu, storage = 3600 * rates["gpu"], 3600 * (rates["dram"] + rates["ssd"])
    resources = found["demand"]["resources"]
    return {
        "gpus": gpu,
        "storage": storage,
        "storage_share": storage / (gpu + storage) if gpu + storage else 0.0,
        "must_save_share": storage / gpu if gpu else 0.0,
        "seconds_saved_share": 1 - resources["GPU"]["seconds_per_turn"] / resources["GPU, recomputing"]["seconds_per_turn"],
    }


def _warnings(config: Config, deployment: Deployment, workload: Workload, found: dict) -> Iterator[str]:
    yield from _inverted(deployment)
    yield from extras(deployment)
    yield from _overloads(found)
    yield from _slow_link(config, deployment, found["turn"])
    yield from _slower(config, deployment, found["turn"])
    yield from _short_runs(config, found)
    yield from _pins(deployment, found)
    yield from _truncations(deployment, workload)
    if is_users_own(config.store.write):
        yield f"the write policy {config.store.write} is not run here: SSD writes are those of `back`"


def _inverted(deployment: Deployment) -> Iterator[str]:
    for (upper, upper_size, _), (lower, lower_size, _) in zip(deployment.tiers, deployment.tiers[1:], strict=False):
        if lower_size < upper_size:
            yield f"{lower} ({format_bytes(lower_size)}) is smaller than {upper} ({format_bytes(upper_size)}) above it"


def _overloads(found: dict) -> Iterator[str]:
    first, resources = found["demand"]["first"], found["demand"]["resources"]
    use, writes = resources[first]["utilization"], resources["SSD write"]["utilization"]
    if use > 1:
        yield (
            f"overloaded: {first} would have to work {use:.0%} of the time; the queue grows as long as sessions arrive, turns come back"
            " later than assumed here, and LRU serves less"
        )
    if writes > 1:
        yield (
            f"SSD writes would have to go on {writes:.0%} of the time: what has no room is not saved, so no queue grows, and the SSD serves"
            " less than is said here"
        )


def slower_than_recomputing(config: Config, deployment: Deployment, workload: Workload) -> list[str]:
    """The tiers from which a hit takes longer than none at the mean turn: what makes a store worse than none."""
    return list(_slower(config, deployment, _mean_turn(deployment, workload, config.deployment.truncation_ratio)))


def _at_the_mean_turn(config: Config, deployment: Deployment, turn: dict) -> dict:
    return _point(config, deployment, max(round(turn["prompt_tokens"]), 1), max(round(turn["history_tokens"]), 1))


def _slow_link(config: Config, deployment: Deployment, turn: dict) -> Iterator[str]:
    mean = _at_the_mean_turn(config, deployment, turn)
    stall = mean["with_dram_s"] - mean["prefill_new_s"]
    if {"dram", "ssd"} & {name for name, *_ in deployment.tiers} and stall > 0.25 * mean["prefill_new_s"]:
        yield (
            f"the host link cannot keep up: loading the mean history of {mean['history_tokens']:,} tokens takes"
            f" {format_seconds(mean['load_dram_s'])} and hides behind {format_seconds(mean['prefill_new_s'])} of prefill only; even with"
            f" the read buffer a hit waits {format_seconds(stall)} (S_buf asks for {mean['s_buf_layers']:.0f} layers,"
            f" store.read_buffer_layers is {config.store.read_buffer_layers})"
        )


def _slower(config: Config, deployment: Deployment, turn: dict) -> Iterator[str]:
    mean = _at_the_mean_turn(config, deployment, turn)
    waits = "; jobs wait for it all the same, set store.load=faster" if config.store.load == "always" else ""
    for name in [name for name, *_ in deployment.tiers if name != "hbm"]:
        if mean[f"with_{name}_s"] > mean["recompute_s"]:
            use = "SSD pays only for what is fetched ahead, compare with store.ssd=0GB" if name == "ssd" else "DRAM does not pay"
            yield (
                f"at the mean turn loading from {name.upper()} ({format_seconds(mean[f'with_{name}_s'])}) is slower than recomputing"
                f" ({format_seconds(mean['recompute_s'])}): {use}{waits}"
            )


def _short_runs(config: Config, found: dict) -> Iterator[str]:
    starts, turns, ttl = found["rate"]["span_s"], found["rate"]["turns_span_s"], config.store.ttl_s
    first, steady = found["demand"]["first"], found["rate"]["steady_turns_per_s"]
    if ttl is not None and starts < 2 * ttl:
        yield (
            f"the run is too short for its TTL: sessions arrive for {format_seconds(starts)}, store.ttl_s is {format_seconds(ttl)}; make it"
            " at least twice as long"
        )
    if turns > 2 * starts > 0:
        yield (
            f"sessions arrive for {format_seconds(starts)} and go on for {format_seconds(turns)}: the rate is a mean over all of that; were"
            f" they to keep arriving, {steady:.3g} turns/s would come, and {first} be in use"
            f" {steady * found['demand']['resources'][first]['seconds_per_turn']:.0%} of the time"
        )


def _pins(deployment: Deployment, found: dict) -> Iterator[str]:
    pinned = found["hbm"]["jobs"] * found["turn"]["history_tokens"] * deployment.kv_bytes
    dram = next((size for name, size, _ in deployment.tiers if name == "dram"), 0)
    if dram and pinned > 0.5 * dram:
        yield (
            f"running jobs alone pin {format_bytes(pinned)} of DRAM ({format_bytes(dram)}) for their history: little is left to fetch ahead"
        )


def _truncations(deployment: Deployment, workload: Workload) -> Iterator[str]:
    long = float((workload.history_tokens + workload.prompt_tokens + workload.output_tokens > deployment.window).mean())
    if long > 0.01:
        yield f"{long:.1%} of the turns pass the window of {deployment.window:,} tokens and are truncated"
