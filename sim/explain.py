"""What a configuration means before it runs: sizes, times at sample points, windows, and which resource gives out first.

Everything here is arithmetic on means, without queueing and without a clock: what a turn asks of each resource against what the resource
has. The simulator says what really happens. Shares of the history that each tier serves come from the LRU distances of the workload
(`traces.reuse`), so they are for LRU, and for answers that take what they take in full batches without queueing.

Sources: CachedAttention (USENIX ATC 2024) section 3 for S_buf and L_pw; the pipeline is `hwmodels.steptime.pipeline_s`.
"""

from collections.abc import Callable

import numpy as np

from hwmodels import kvsize, pipeline_s
from hwmodels.units import format_bytes, format_seconds
from sim.config import Config
from sim.engine.plant import Plant
from traces import Workload
from traces.context import contexts
from traces.reuse import accesses, stack_distances

_HISTORY_SHARES = (0.125, 0.25, 0.5, 1.0)


def explain(config: Config, built: Plant, workload: Workload, report: Callable[[int, int], None] = lambda done, total: None) -> dict:
    """All of it as plain data: bytes, seconds, tokens, dollars an hour. `report(done, total)` is called while distances are worked out."""
    turn = _mean_turn(built, workload, config.deployment.truncation_ratio)
    hbm = _hbm(config, built, turn)
    step = _decode_step_s(built, turn, hbm["jobs"])
    served = _served(built, workload, step, report)
    found = {
        "model": _model(config, built),
        "hbm": hbm,
        "turn": turn,
        "tiers": _tiers(built, turn),
        "points": _points(config, built, turn),
        "windows": _windows(built, turn),
        "served": served,
        "rate": _rate(config, workload),
    }
    found["demand"] = _demand(config, built, turn, served, step, found["rate"]["turns_per_s"])
    found["cost_usd_per_h"] = _cost(config, built, found)
    found["warnings"] = _warnings(config, built, workload, found)
    return found


def _model(config: Config, built: Plant) -> dict:
    return {
        "name": built.model.name,
        "hardware": built.node.name,
        "gpus": config.deployment.gpus,
        "replicas": config.deployment.replicas,
        "window_tokens": built.window,
        "kv_bytes_per_token": built.kv_bytes,
        "hbm_kv_bytes_per_token": built.hbm_kv_bytes,
        "weight_bytes": kvsize.weight_bytes(built.model),
        "step_times": built.steps.source,
    }


def _mean_turn(built: Plant, workload: Workload, ratio: float) -> dict:
    """Tokens of the mean turn, and of the mean session at its end, after truncation to the window."""
    history, prompt, output = contexts(workload, built.window, ratio)
    context = history + prompt + output
    last = workload.first_turn[1:] - 1
    return {
        "history_tokens": float(history.mean()),
        "prompt_tokens": float(prompt.mean()),
        "output_tokens": float(output.mean()),
        "context_tokens": float(context.mean()),
        "session_tokens": float(context[last].mean()),
        "session_bytes": float(context[last].mean() * built.kv_bytes),
        "all_bytes": float(context[last].sum() * built.kv_bytes),
        "turns_per_session": workload.turns / workload.sessions,
    }


def _hbm(config: Config, built: Plant, turn: dict) -> dict:
    tokens = built.hbm_budget // built.hbm_kv_bytes
    return {
        "installed_bytes": int(config.deployment.gpus * built.gpu.hbm.value),
        "kv_bytes": built.hbm_budget,
        "kv_tokens": tokens,
        "read_buffer_bytes": built.read_buffer,
        "write_buffer_bytes": built.write_buffer,
        "jobs": float(min(config.deployment.max_batch, max(tokens / turn["context_tokens"], 1))),
        "jobs_at_full_window": float(min(config.deployment.max_batch, tokens / built.window)),
    }


def _tiers(built: Plant, turn: dict) -> dict:
    return {
        name: {
            "capacity_bytes": size,
            "kept_free_bytes": reserve,
            "sessions": size / turn["session_bytes"],
            "sessions_at_full_window": size / (built.window * built.kv_bytes),
        }
        for name, size, reserve in built.tiers
    }


def _points(config: Config, built: Plant, turn: dict) -> list[dict]:
    """The mean prompt after histories of several lengths, up to what the window holds beside it."""
    new = max(round(turn["prompt_tokens"]), 1)
    most = max(built.window - new - max(round(turn["output_tokens"]), 1), 1)
    return [_point(config, built, new, max(round(share * most), 1)) for share in _HISTORY_SHARES]


def _point(config: Config, built: Plant, new: int, history: int) -> dict:
    """Recomputing, and loading from each tier, for one prompt of `new` tokens."""
    layers, size = built.steps.layers, history * built.kv_bytes
    recompute, compute = built.steps.prefill(new + history), built.steps.prefill(new, history)
    load = size / built.host_to_device_bytes_per_s + layers * built.host_link_latency_s
    ssd = size / built.ssd_read_bytes_per_s + built.ssd_latency_s
    buffered = min(config.store.read_buffer_layers, layers) if config.store.preload == "layerwise" else 0

    def turn(seconds: float, preloaded: float) -> float:
        if config.store.preload == "none":
            return seconds + compute
        return pipeline_s(layers, compute / layers, seconds / layers, preloaded)

    needed = max(0.0, load - compute) * built.host_to_device_bytes_per_s
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


def _windows(built: Plant, turn: dict) -> dict:
    """L_pw = C_mem / S_kv and the eviction window (C_mem + C_disk) / S_kv, in waiting jobs; running jobs' pins make C_mem smaller."""
    sizes = {name: size - reserve for name, size, reserve in built.tiers}
    memory, disk = sizes.get("dram", 0), sizes.get("ssd", 0)
    return {
        "s_kv_bytes": turn["session_bytes"],
        "prefetch_jobs": memory / turn["session_bytes"] if disk else 0.0,
        "eviction_jobs": (memory + disk) / turn["session_bytes"],
    }


def _decode_step_s(built: Plant, turn: dict, jobs: float) -> float:
    """Seconds of a decode step of a full batch of mean jobs, half-way through their answers."""
    batch = max(round(jobs), 1)
    return built.steps.decode(batch, round(batch * (turn["history_tokens"] + turn["prompt_tokens"] + turn["output_tokens"] / 2)))


def _served(built: Plant, workload: Workload, step: float, report) -> dict:
    """Shares of the history tokens that an LRU store of these tiers serves from each, and loses."""
    seen = accesses(workload, built.kv_bytes, built.window, workload.output_tokens * step)
    distances = stack_distances(seen, report)
    again = distances >= 0
    total = max(float(seen.history[again].sum()), 1.0)
    found, above, below = {}, 0.0, 0
    for name, size, reserve in built.tiers:
        below += size - reserve
        within = float(seen.history[again][distances[again] <= below].sum()) / total
        found[name] = within - above
        above = within
    found["lost"] = 1.0 - above
    return found


def _rate(config: Config, workload: Workload) -> dict:
    """What arrives at one replica."""
    starts = workload.arrival_s[workload.first_turn[:-1]]
    span = float(np.ptp(starts))
    sessions = (workload.sessions - 1) / span / config.deployment.replicas if span else 0.0
    return {"sessions_per_s": sessions, "turns_per_s": sessions * workload.turns / workload.sessions, "span_s": span}


def _demand(config: Config, built: Plant, turn: dict, served: dict, step: float, turns_per_s: float) -> dict:
    """Seconds that the mean turn takes of each resource, and the share of it that the given rate uses up."""
    history, prompt, output = turn["history_tokens"], turn["prompt_tokens"], turn["output_tokens"]
    batch = max(round(_hbm(config, built, turn)["jobs"]), 1)
    decode = output * step / batch
    hit = 1.0 - served["lost"]
    new_bytes = (prompt + output) * built.kv_bytes
    names = [name for name, *_ in built.tiers]
    top = built.tiers[0][1] if built.tiers else 0
    spills = "ssd" in names and turn["all_bytes"] / config.deployment.replicas > (top if len(names) > 1 else 0)
    rewritten = history * built.kv_bytes * served.get("ssd", 0.0) if config.store.ssd_write == "whole" else 0.0
    seconds = {
        "GPU, recomputing": built.steps.prefill(prompt + history) + decode,
        "GPU": built.steps.prefill(prompt + (1 - hit) * history, hit * history) + decode,
        "host to GPU": 0.0 if names[:1] == ["hbm"] else history * hit * built.kv_bytes / built.host_to_device_bytes_per_s,
        "GPU to host": (new_bytes if names and names != ["hbm"] else 0.0) / built.device_to_host_bytes_per_s,
        "SSD read": history * built.kv_bytes * served.get("ssd", 0.0) / built.ssd_read_bytes_per_s,
        "SSD write": (new_bytes + rewritten) * spills / built.ssd_write_bytes_per_s,
    }
    found = {
        name: {"seconds_per_turn": used, "turns_per_s": 1 / used if used else None, "utilization": used * turns_per_s}
        for name, used in seconds.items()
    }
    real = [name for name in found if name != "GPU, recomputing"] if built.tiers else ["GPU, recomputing"]
    return {"resources": found, "decode_s": decode, "first": max(real, key=lambda name: found[name]["utilization"]), "batch": batch}


def _cost(config: Config, built: Plant, found: dict) -> dict:
    """Dollars an hour of one replica by the clock, and the share of a turn's GPU time that the cache must save, and does."""
    gpu = config.deployment.gpus * built.prices.gpus[built.gpu.name].value * 3600
    sizes = {name: size for name, size, _ in built.tiers}
    storage = 3600 * (sizes.get("dram", 0) * built.prices.dram.value + sizes.get("ssd", 0) * built.prices.ssd.value)
    resources = found["demand"]["resources"]
    return {
        "gpus": gpu,
        "storage": storage,
        "storage_share": storage / (gpu + storage) if gpu + storage else 0.0,
        "must_save_share": storage / gpu if gpu else 0.0,
        "seconds_saved_share": 1 - resources["GPU"]["seconds_per_turn"] / resources["GPU, recomputing"]["seconds_per_turn"],
    }


def _warnings(config: Config, built: Plant, workload: Workload, found: dict) -> list[str]:
    warnings = []
    for (upper, upper_size, _), (lower, lower_size, _) in zip(built.tiers, built.tiers[1:], strict=False):
        if lower_size < upper_size:
            warnings.append(f"{lower} ({format_bytes(lower_size)}) is smaller than {upper} ({format_bytes(upper_size)}) above it")
    first = found["demand"]["first"]
    use = found["demand"]["resources"][first]["utilization"]
    if use > 1:
        warnings.append(
            f"overloaded: {first} would have to work {use:.0%} of the time; the queue grows as long as sessions arrive, turns come back later than"
            " assumed here, and LRU serves less"
        )
    mean = _point(config, built, max(round(found["turn"]["prompt_tokens"]), 1), max(round(found["turn"]["history_tokens"]), 1))
    stall = mean["with_dram_s"] - mean["prefill_new_s"]
    if built.tiers and stall > 0.25 * mean["prefill_new_s"]:
        warnings.append(
            f"the host link cannot keep up: loading the mean history of {mean['history_tokens']:,} tokens takes"
            f" {format_seconds(mean['load_dram_s'])} and hides behind {format_seconds(mean['prefill_new_s'])} of prefill only; even with the read"
            f" buffer a hit waits {format_seconds(stall)} (S_buf asks for {mean['s_buf_layers']:.0f} layers, store.read_buffer_layers is"
            f" {config.store.read_buffer_layers})"
        )
    if built.tiers and mean["with_ssd_s"] > mean["recompute_s"]:
        warnings.append(
            f"at the mean turn loading from SSD ({format_seconds(mean['with_ssd_s'])}) is slower than recomputing"
            f" ({format_seconds(mean['recompute_s'])}): SSD pays only for what is fetched ahead"
        )
    if config.store.ttl_s is not None and found["rate"]["span_s"] < 2 * config.store.ttl_s:
        warnings.append(
            f"the run is too short for its TTL: sessions arrive for {format_seconds(found['rate']['span_s'])}, store.ttl_s is"
            f" {format_seconds(config.store.ttl_s)}; make it at least twice as long"
        )
    pinned = found["hbm"]["jobs"] * found["turn"]["history_tokens"] * built.kv_bytes
    dram = next((size for name, size, _ in built.tiers if name == "dram"), 0)
    if dram and pinned > 0.5 * dram:
        warnings.append(
            f"running jobs alone pin {format_bytes(pinned)} of DRAM ({format_bytes(dram)}) for their history: little is left to fetch ahead"
        )
    long = float((workload.history_tokens + workload.prompt_tokens + workload.output_tokens > built.window).mean())
    if long > 0.01:
        warnings.append(f"{long:.1%} of the turns pass the window of {built.window:,} tokens and are truncated")
    return warnings
