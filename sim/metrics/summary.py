"""summary.json: one run in numbers, SI units in the names, keys that others script against.

Definitions. A turn is *resumed* when it is not its session's first. TTFT runs from arrival to first token; prefill is the same without
queueing (load stall + computation); TPOT = (e2e − ttft) / (output − 1). Token hit rate = history tokens served from cache / prompt tokens
with history; `token_hits` are the same by tier, with blocks, whose turns have tokens from several: HBM's own (local), and those below
(external). `hit_rate.dram` and `.ssd` are shares of the resumed turns; a turn whose KV is still on its way up from SSD counts as
ssd. With `workload.clients` a turn arrives when it is sent, and `client_wait_s` is what it was ready before.
Turns that complete in the warm-up are cut from everything, and so are the bytes and the busy time until its end.
"""

import itertools
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from kvplan.hwmodels.cost import run_cost_usd
from kvplan.hwmodels.units import format_bytes
from kvplan.sim.config import ON_DRIVES, ON_HOST, Clients, Config
from kvplan.sim.deployment import Deployment, of_sessions
from kvplan.sim.metrics import steadiness
from kvplan.sim.metrics.byturn import by_turn
from kvplan.sim.metrics.measured import Latencies, Measured
from kvplan.sim.metrics.output import RunOutput
from kvplan.sim.metrics.schema import SCHEMA_VERSION, Summary
from kvplan.sim.moving import moving
from kvplan.sim.provenance import provenance
from kvplan.sim.provided import extras
from kvplan.traces import Workload, origin

_DAY_S = 86400.0
PERCENTILES = (50, 90, 95, 99)


def summarize(config: Config, deployment: Deployment, workload: Workload, output: RunOutput) -> Summary:
    """The summary of a finished run, whatever engine it ran on."""
    columns = output.columns
    measured = columns["order"] >= config.warmup_turns
    start_s = float(np.nanmin(columns["arrival_s"])) if output.warm_s is None else output.warm_s
    span_s = float(columns["done_s"].max()) - start_s
    sums = output.spent()
    col = Measured(columns, measured)
    resumed = ~workload.is_first[measured]
    times = Latencies(col)
    output_tokens = int(col["output_tokens"].sum())
    context_tokens = int((col["prompt_tokens"] + col["history_tokens"]).sum())
    busy_s = sum(sums[part] for part in ("prefill_s", "decode_s", "load_stall_s", "save_stall_s"))
    prefill_s = sums["prefill_s"] + sums["load_stall_s"]
    gpus, count = deployment.gpus, config.deployment.replicas
    capacity = {name: size * count for name, size in deployment.sizes.items()}
    summary: Any = {
        "schema_version": SCHEMA_VERSION,
        "turns": int(measured.sum()),
        "sessions": int(np.count_nonzero(np.bincount(workload.session[measured]))),
        "resumed_turns": int(resumed.sum()),
        "makespan_s": span_s,
        "hit_rate": _hit_rates(col, resumed, list(deployment.sizes), context_tokens),
        **({"token_hits": by_tier} if (by_tier := _token_hits(col, list(deployment.sizes), context_tokens)) else {}),
        **{name: _statistics(values) for name, values in times.items()},
        "by_turn": by_turn(
            workload.turn[measured],
            times["ttft_s"],
            col["cached_tokens"],
            col["prompt_tokens"] + col["history_tokens"],
            _tokens_of_tiers(col, list(deployment.sizes)),
        ),
        "prefill_tokens_per_s": _ratio(context_tokens, prefill_s),
        "output_tokens_per_s": _ratio(output_tokens, span_s),
        "output_tokens": output_tokens,
        "context_tokens": context_tokens,
        "goodput_per_s": _ratio(_within_slo(config, times, col["output_tokens"] > 1), span_s),
        "gpu": {
            "busy_s": busy_s,
            "busy_h": busy_s / 3600 * gpus,
            "prefill_h": prefill_s / 3600 * gpus,
            "utilization": _ratio(busy_s, span_s * count),
            "prefill_s": sums["prefill_s"],
            "decode_s": sums["decode_s"],
            "load_stall_s": sums["load_stall_s"],
            "save_stall_s": sums["save_stall_s"],
            "prefilled_tokens": round(sums["prefilled_tokens"]),
            "gpus": gpus * count,
            "replicas": count,
        },
        "tiers": _tiers(deployment, sums, output, span_s, count),
        "links": {
            link: {
                "bytes": round(sums[f"{link}.bytes"]),
                "busy_share": _ratio(sums[f"{link}.busy_s"], span_s * count),
            }
            for link in output.links
        },
        **({"moving": moved} if (moved := moving(deployment)) else {}),
        "overflow_turns": int(col["overflow"].sum()),
        "skipped_saves": int(sums.get("skipped_saves", 0)),
        **_times(col, "preempted", "preemptions"),
        **_times(col, "deferred", "deferrals"),
        "cost_usd": run_cost_usd(
            deployment.prices,
            deployment.gpu.name,
            gpus * count,
            busy_s / count,
            span_s,
            capacity.get(ON_HOST, 0),
            capacity.get(ON_DRIVES, 0),
            output_tokens,
            context_tokens,
            config.cost.gpu_hours,
            deployment.terms,
            {name: count * rate for name, rate in deployment.rents.items()},
        ),
        "ssd_wear": _wear(
            deployment,
            deployment.drives * count if deployment.keeps_on_drives else 0,
            deployment.copies.get(ON_DRIVES, 1.0) * sums.get(f"{ON_DRIVES}.written", 0),
            span_s,
        ),
        "provenance": provenance(config, workload),
    }
    summary["warnings"] = [
        *_unsteady(config, deployment, workload, output, start_s),
        *_warnings(config, deployment, workload, output, summary),
    ]
    return summary


def _times(col: Mapping[str, np.ndarray], what: str, times: str) -> dict[str, int]:
    """How many turns that happened to, and how often, in a run in which it did."""
    found = col.get(times)
    return {} if found is None else {f"{what}_turns": int((found > 0).sum()), times: int(found.sum())}


def _statistics(values: np.ndarray) -> dict[str, float | None]:
    if not len(values):
        return dict.fromkeys(("mean", *(f"p{p}" for p in PERCENTILES), "max"))
    found = {"mean": float(values.mean())}
    found |= {f"p{p}": float(q) for p, q in zip(PERCENTILES, np.percentile(values, PERCENTILES), strict=True)}
    return {**found, "max": float(values.max())}


def _hit_rates(col, resumed: np.ndarray, names: list[str], context_tokens: int) -> dict[str, float]:
    hits = col["cached_tokens"] > 0
    found = {
        "turns": _ratio(int(hits.sum()), len(hits)),
        "resumed": _ratio(int((hits & resumed).sum()), int(resumed.sum())),
        "tokens": _ratio(int(col["cached_tokens"].sum()), context_tokens),
        ON_HOST: 0.0,
        ON_DRIVES: 0.0,
    }
    for index, name in enumerate(names):
        found[name] = _ratio(int((hits & resumed & (col["tier"] == index)).sum()), int(resumed.sum()))
    return found


def _token_hits(col, names: list[str], context_tokens: int) -> dict[str, float]:
    """By the tier that they come from; empty where a turn has only one."""
    return {name: _ratio(int(tokens.sum()), context_tokens) for name, tokens in _tokens_of_tiers(col, names).items()}


def _tokens_of_tiers(col, names: list[str]) -> dict[str, np.ndarray]:
    """Per turn, what each tier served; empty where a turn has only one."""
    return {name: col[f"{name}_tokens"] for name in names if f"{name}_tokens" in col}


def _within_slo(config: Config, times: Mapping[str, np.ndarray], several: np.ndarray) -> int:
    """Turns within every objective; a turn of one output token has no TPOT to miss."""
    slo = config.slo
    good = np.ones(len(several), bool)
    if slo.ttft_p95_s is not None:
        good &= times["ttft_s"] <= slo.ttft_p95_s
    if slo.tpot_p95_s is not None:
        good[several] &= times["tpot_s"] <= slo.tpot_p95_s
    return int(good.sum())


def _tiers(deployment: Deployment, sums, output: RunOutput, span_s: float, count: int) -> dict:
    """Of the deployment's tiers, whether the store used them or not."""
    found = {}
    for tier in deployment.tiers:
        name, each = tier.name, tier.copies
        found[name] = {
            "capacity_bytes": tier.size * count,
            "peak_bytes": round(each * sum(books.peak_bytes.get(name, 0) for books in output.ended)),
            "mean_bytes": each * _ratio(max(sums.get(f"{name}.byte_seconds", 0.0), 0.0), span_s),  # what is left of 0 by rounding
            "written_bytes": round(each * sums.get(f"{name}.written", 0)),
            "read_bytes": round(each * sums.get(f"{name}.read", 0)),
        }
    return found


def _wear(deployment: Deployment, drives: int, written: float, span_s: float) -> dict[str, float | None]:
    """Of the drives, whatever part of them the tier is: DWPD, and years to the rated bytes written (rated DWPD · capacity · warranty)."""
    per_day, capacity = _ratio(written, span_s) * _DAY_S, drives * round(deployment.ssd.capacity.value)
    rated = deployment.ssd.rated_dwpd.value * capacity * deployment.ssd.warranty.value * 365
    return {
        "bytes_per_day": per_day,
        "dwpd": _ratio(per_day, capacity),
        "lifetime_years": rated / per_day / 365 if per_day else None,
        "drives": drives,
        "drive_bytes": capacity,
    }


def _unsteady(config: Config, deployment: Deployment, workload: Workload, output: RunOutput, start_s: float) -> list[str]:
    """What makes the run's figures depend on how long it is."""
    replicas, clients = config.deployment.replicas, config.workload.clients
    span = steadiness.Span.of(output.columns, workload, start_s, config.deployment.max_batch * replicas)
    found = steadiness.load_warnings(span) if clients is None else _idle_clients(clients, workload, output, start_s)
    for tier in (tier for tier in deployment.tiers if f"{tier.name}_bytes" in output.series):
        times, held = steadiness.held(output.series, tier.name, replicas)
        size, room = tier.size * replicas, tier.taken(tier.capacity - tier.reserve) * replicas
        found += steadiness.tier_warnings(tier.name.upper(), size, room, start_s, times, held)
    return found


def _idle_clients(clients: Clients, workload: Workload, output: RunOutput, start_s: float) -> list[str]:
    """What keeps a client's load from being what it says."""
    most = clients.most
    if most is None or clients.barrier:
        return []
    if most > workload.sessions:
        return [f"workload.clients allows {most:,} turns at once, but there are {workload.sessions:,} sessions, each with one at a time"]
    return steadiness.drain_warnings(most, output.columns["arrival_s"], output.columns["done_s"], start_s)


def _warnings(config: Config, deployment: Deployment, workload: Workload, output: RunOutput, summary: dict) -> list[str]:
    found = []
    measured = output.columns["order"] >= config.warmup_turns
    if output.warm_s is not None and output.columns["admitted_s"][measured].max() <= output.warm_s:
        found.append(
            f"the warm-up leaves less than a turn: all {summary['turns']} turns measured began before its end; make warmup_turns smaller"
        )
    if output.clipped:
        found.append(f"turns longer than the window of {deployment.window} tokens, cut to it: {output.clipped}")
    if summary["skipped_saves"] > 0.01 * summary["turns"]:
        found.append(
            f"{summary['skipped_saves']} saves ({summary['skipped_saves'] / summary['turns']:.1%} of the turns) found no room:"
            " KV comes faster than the tiers below take it, or is too large for them"
        )
    columns = output.columns
    if idle := sum(books.sums["prefill_s"] == 0 for books in output.ended):
        found.append(f"{idle:,} of {config.deployment.replicas:,} replicas never had a turn: these are too few sessions for so many")
    found += [*_short_of_hbm(summary), *extras(deployment), *of_sessions(config, deployment)]
    longest = deployment.stored(int((columns["history_tokens"] + columns["prompt_tokens"] + columns["output_tokens"]).max()))
    found += [
        f"{tier.name} ({format_bytes(tier.size)}) is smaller than the longest session ({format_bytes(tier.taken(longest))}): what is too"
        " large for a tier is kept below it, or nowhere"
        for tier in deployment.tiers
        if tier.capacity < longest
    ]
    unmeasured = _unmeasured(deployment, output)
    if unmeasured:
        found.append(f"step times are extrapolated beyond what was measured: {', '.join(unmeasured)}")
    for (upper, upper_size), (lower, lower_size) in itertools.pairwise(deployment.sizes.items()):
        if lower_size < upper_size:
            found.append(f"{lower} ({format_bytes(lower_size)}) is smaller than {upper} ({format_bytes(upper_size)}) above it")
    return found + origin.warnings(workload.origin, but=[origin.SHARED] * _shares(deployment, workload))


def _shares(deployment: Deployment, workload: Workload) -> bool:
    """Whether sessions reuse what others had: in blocks, where it is known."""
    return deployment.pooled and (workload.blocks is not None or workload.beginnings is not None)


def _short_of_hbm(summary: dict) -> list[str]:
    turns, times = summary.get("preempted_turns", 0), summary.get("preemptions", 0)
    if turns <= 0.01 * summary["turns"]:
        return []
    return [
        f"HBM is short: {turns / summary['turns']:.1%} of the turns gave way to others, and were computed again, {times / turns:.1f} times"
        " each: set deployment.max_batch lower, or use more GPUs"
    ]


def _unmeasured(deployment: Deployment, output: RunOutput) -> list[str]:
    """What lies outside the range of the step times' measurements, in words: the largest of each kind, and the smallest prefill."""
    columns = output.columns
    history = columns["cached_tokens"]
    new = columns["prompt_tokens"] + columns["history_tokens"] - history
    running, hbm_bytes = (int(output.series[name].max()) for name in ("running", "hbm_running_bytes"))
    largest = {
        "new": int(new.max()),
        "history": int(history.max()),
        "batch": running,
        "context": deployment.tokens_in_hbm(hbm_bytes, 1),
    }
    return deployment.steps.outside(new=int(new.min())) + deployment.steps.outside(**largest)


def _ratio(part: float, whole: float) -> float:
    return float(part / whole) if whole and math.isfinite(whole) else 0.0
