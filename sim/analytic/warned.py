"""What is wrong with a configuration, or makes a store worse than none, in sentences."""

import itertools
from collections.abc import Iterator

from kvplan.hwmodels.units import format_bytes, format_seconds
from kvplan.sim.analytic.points import at_the_mean_turn
from kvplan.sim.analytic.sizes import mean_turn
from kvplan.sim.config import SHORTHANDS, Config
from kvplan.sim.deployment import Deployment, of_sessions
from kvplan.sim.policies.registry import is_users_own
from kvplan.sim.provided import extras
from kvplan.traces import Workload
from kvplan.traces.context import contexts


def warnings_of(config: Config, deployment: Deployment, workload: Workload, found: dict) -> Iterator[str]:
    yield from _inverted(deployment)
    yield from extras(deployment)
    yield from of_sessions(config, deployment)
    yield from _overloads(found)
    yield from _slow_link(config, deployment, found["turn"])
    yield from _slower(config, deployment, found["turn"])
    yield from _short_runs(config, found)
    yield from () if deployment.pooled else _pins(deployment, found)
    yield from _truncations(deployment, workload)
    if config.batching != "iteration":
        yield f"batching={config.batching} is not run here: steps are those of `iteration`, where a prefill holds up the decodes"
    if is_users_own(config.store.write) and not deployment.pooled:
        yield f"the write policy {config.store.write} is not run here: SSD writes are those of `back`"


def _inverted(deployment: Deployment) -> Iterator[str]:
    for (upper, upper_size), (lower, lower_size) in itertools.pairwise(deployment.sizes.items()):
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
    columns = contexts(workload, deployment.window, config.deployment.truncation_ratio)
    return list(_slower(config, deployment, mean_turn(deployment, workload, *columns)))


def _slow_link(config: Config, deployment: Deployment, turn: dict) -> Iterator[str]:
    mean = at_the_mean_turn(config, deployment, turn)
    stall = mean["with_dram_s"] - mean["prefill_new_s"]
    if not any(not tier.on_device for tier in deployment.tiers) or stall <= 0.25 * mean["prefill_new_s"]:
        return
    if not deployment.connection.layerwise:
        yield (
            f"loading the mean history of {mean['history_tokens']:,} tokens takes {format_seconds(stall)}, and only then"
            f" {format_seconds(mean['prefill_new_s'])} of prefill begin: {deployment.connection.name} loads all of it first"
            " (store.connector, store.load_mode)"
        )
    else:
        yield (
            f"the host link cannot keep up: loading the mean history of {mean['history_tokens']:,} tokens takes"
            f" {format_seconds(mean['load_dram_s'])} and hides behind {format_seconds(mean['prefill_new_s'])} of prefill only; even with"
            f" the read buffer a hit waits {format_seconds(stall)} (S_buf asks for {mean['s_buf_layers']:.0f} layers,"
            f" store.read_buffer_layers is {config.store.read_buffer_layers})"
        )


def _slower(config: Config, deployment: Deployment, turn: dict) -> Iterator[str]:
    mean = at_the_mean_turn(config, deployment, turn)
    waits = "; jobs wait for it all the same, set store.load=faster" if config.store.load == "always" else ""
    for tier in [tier for tier in deployment.tiers if not tier.on_device]:
        name = tier.name
        if mean[f"with_{name}_s"] > mean["recompute_s"]:
            without = f"store.{name}=0GB" if name in SHORTHANDS else f"a {name} of 0GB"
            use = "does not pay" if tier.own is None else f"pays only for what is fetched ahead, compare with {without}"
            yield (
                f"at the mean turn loading from {name.upper()} ({format_seconds(mean[f'with_{name}_s'])}) is slower than recomputing"
                f" ({format_seconds(mean['recompute_s'])}): {name.upper()} {use}{waits}"
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
    pinned = found["hbm"]["jobs"] * deployment.stored(found["turn"]["history_tokens"])
    for tier in [tier for tier in deployment.tiers if tier.over_host_link_alone and pinned > 0.5 * tier.capacity]:
        yield (
            f"running jobs alone pin {format_bytes(tier.copies * pinned)} of {tier.name.upper()} ({format_bytes(tier.size)}) for their"
            " history: little is left to fetch ahead"
        )


def _truncations(deployment: Deployment, workload: Workload) -> Iterator[str]:
    long = float((workload.history_tokens + workload.prompt_tokens + workload.output_tokens > deployment.window).mean())
    if long > 0.01:
        yield f"{long:.1%} of the turns pass the window of {deployment.window:,} tokens and are truncated"
