"""What a workload means to somebody who sizes a KV cache for it: plain data, from the turns alone.

Bytes need a model: `kv_bytes` is its KV per token, `sized` the bytes of sessions, `window` its longest context. Nothing is simulated; see
`kvplan.traces.reuse` for what that leaves out.
"""

from collections.abc import Callable, Mapping
from itertools import pairwise

import numpy as np

from kvplan.traces.blockreuse import block_reuse
from kvplan.traces.context import contexts
from kvplan.traces.reuse import accesses, active, hit_curve, in_order, stack_distances
from kvplan.traces.sharing import Sharing, sharing
from kvplan.traces.workload import Workload

_PERCENTILES = (10, 25, 50, 75, 90, 95, 99)
_SPANS_S = (60, 600, 3600, 6 * 3600, 86400)
_GAP_BINS_S = (1, 5, 30, 120, 600, 3600, 6 * 3600)
_CURVE_POINTS = 200


def describe(
    workload: Workload,
    kv_bytes: int,
    window: int,
    ttl_s: float = 3600.0,
    report: Callable[[int, int], None] = lambda done, total: None,
    ratio: float = 0.5,
    sized: Callable[[np.ndarray], np.ndarray] | None = None,
    block_tokens: int = 16,
) -> dict:
    """Statistics of a workload with times: seconds, tokens, bytes; strict JSON. `ttl_s` is the time that KV shall be kept, `ratio`
    the share of the history that truncation cuts off at a time. `sized`: bytes of sessions of so many tokens; None: in proportion.
    `block_tokens`: of a shared store's blocks, where no hashes say it."""
    sized = sized or (lambda tokens: tokens * kv_bytes)
    turns = np.diff(workload.first_turn)
    history, prompt = workload.history_tokens, workload.prompt_tokens.astype(np.int64)
    context = history + prompt + workload.output_tokens
    read, added, answered = contexts(workload, window, ratio)
    kept = read + added + answered
    resumed = ~workload.is_first
    tokens = accesses(workload, 1, window, ratio=ratio)
    seen, size, longest = tokens.sized(sized), sized(kept), int(sized(np.array(window)))
    distances = stack_distances(seen, report)
    again = distances >= 0
    reached = _statistics(distances[again])
    dsput, held = active(seen, ttl_s)
    ends = np.append(workload.first_turn[1:], workload.turns)[:-1] - 1
    span_s = float(seen.time_s[-1] - seen.time_s[0])
    return {
        "sessions": workload.sessions,
        "turns": workload.turns,
        "resumed_turns": int(resumed.sum()),
        "loop": "open" if workload.open_loop else "closed",
        "span_s": span_s,
        "multi_turn_share": float((turns > 1).mean()),
        "turns_per_session": _statistics(turns),
        "prompt_tokens": _statistics(prompt),
        "output_tokens": _statistics(workload.output_tokens),
        "context_tokens": _statistics(context),
        "gap_s": _statistics(seen.gap_s[again]),
        "gap_histogram": _histogram(seen.gap_s[again]),
        "session_start_spacing_s": _statistics(np.diff(np.sort(workload.arrival_s[workload.first_turn[:-1]]))),
        "tenants": _shares(workload),
        "prefill_tokens": int((history + prompt).sum()),
        "history_share": float(history.sum() / (history + prompt).sum()),
        "edited_share": 0.0 if workload.dropped_tokens is None else _share(workload.dropped_tokens[resumed] > 0),
        "kv": {
            "bytes_per_token": kv_bytes,
            "window_tokens": window,
            "turns_past_window_share": float((context > window).mean()),
            "session_mean_bytes": float(size[ends].mean()),
            "session_max_bytes": int(size.max()),
            "all_bytes": int(size[ends].sum()),
        },
        "reuse": {
            "distance_bytes": reached,
            "token_hit_rate": reached and _token_hit_rates(reached, distances, tokens.history, int((read + added).sum())),
            "kept_for": [_kept_for(seen, seconds) for before, seconds in pairwise((0, *_SPANS_S)) if before < span_s],
        },
        "sessions_per_hour": _per_hour(seen),
        "ttl": {
            "ttl_s": ttl_s,
            "dsput": dsput,
            "ccps_bytes": longest,
            "ccput_bytes": dsput * longest,
            "held_bytes": held,
            "reuse_share": _share(seen.gap_s[again] <= ttl_s),
        },
        "lru_curve": _curve(tokens, distances),
        "blocks": _blocks(workload, kv_bytes),
        "shared": _shared(sharing(workload, block_tokens), kv_bytes, "construction" if workload.blocks is None else "block hashes"),
        "origin": dict(workload.origin),
    }


def _statistics(values: np.ndarray) -> dict[str, float] | None:
    """Mean, percentiles and maximum; None of nothing."""
    if not len(values):
        return None
    found = {"mean": float(np.mean(values))}
    found |= {f"p{p}": float(q) for p, q in zip(_PERCENTILES, np.percentile(values, _PERCENTILES), strict=True)}
    return {**found, "max": float(np.max(values))}


def _histogram(gaps: np.ndarray) -> list[dict[str, float | None]]:
    """Shares of the gaps by length; the last bin has no end."""
    counts = np.histogram(gaps, [0, *_GAP_BINS_S, np.inf])[0]
    ends = [*map(float, _GAP_BINS_S), None]
    return [{"up_to_s": end, "share": float(count / max(len(gaps), 1))} for end, count in zip(ends, counts, strict=True)]


def _share(which: np.ndarray) -> float:
    return float(which.mean()) if len(which) else 0.0


def _shares(workload: Workload) -> Mapping[str, float]:
    if workload.tenant is None:
        return {}
    names, tenant = np.unique(workload.tenant, return_inverse=True)
    counts = np.bincount(tenant, np.diff(workload.first_turn))
    return {str(name): float(count / workload.turns) for name, count in zip(names, counts, strict=True)}


def _kept_for(seen, seconds: float) -> dict[str, float]:
    """What keeping KV this long after its last use gives and takes, at the busiest moment."""
    sessions, held = active(seen, seconds)
    gaps = seen.gap_s[~np.isnan(seen.gap_s)]
    return {"seconds": seconds, "reuse_share": _share(gaps <= seconds), "sessions": sessions, "held_bytes": held}


def _per_hour(seen) -> dict[str, float]:
    """Distinct sessions in each whole clock hour of the trace; of the whole trace when it is shorter."""
    hours = ((seen.time_s - seen.time_s[0]) // 3600).astype(np.int64)
    whole = max(int((seen.time_s[-1] - seen.time_s[0]) // 3600), 1)
    sessions = int(seen.session.max()) + 1
    pairs = np.unique(hours * sessions + seen.session)
    _, counts = np.unique(pairs[pairs < whole * sessions] // sessions, return_counts=True)
    return {"mean": float(counts.sum() / whole), "max": float(counts.max()), "hours": whole}


def _token_hit_rates(sizes: dict[str, float], distances: np.ndarray, history: np.ndarray, prompts: int) -> dict[str, float]:
    """Of LRU stores as large as the percentiles of the reuse distance: what is found of all prompts, history included."""
    rates = hit_curve(distances, history, np.array(list(sizes.values()))) * (history.sum() / prompts)
    return dict(zip(sizes, rates.tolist(), strict=True))


def _curve(seen, distances: np.ndarray) -> list[dict[str, float]]:
    """Exact hit rates of an LRU store of whole sessions by capacity, first turns counted as misses; clockless."""
    again = distances >= 0
    order = np.argsort(distances[again], kind="stable")
    if not len(order):
        return []
    capacity = distances[again][order]
    tokens = np.cumsum(seen.history[again][order]) / max(int(seen.history.sum()), 1)
    pick = np.unique(np.linspace(0, len(order) - 1, _CURVE_POINTS).astype(int))
    return [
        {"capacity_bytes": int(capacity[i]), "turn_hit_rate": float((i + 1) / len(distances)), "history_hit_rate": float(tokens[i])}
        for i in pick
    ]


def _shared(found: Sharing | None, kv_bytes: int, known_by: str) -> dict | None:
    """What a store that all requests share, and that forgets nothing, holds in the end and hits, as shares of all prompt tokens."""
    if found is None:
        return None
    return {
        "known_by": known_by,
        "block_tokens": found.block_tokens,
        "distinct": found.distinct,
        "held_bytes": found.distinct * found.block_tokens * kv_bytes,
        "hit_rate": {"tokens": found.rate(found.hits), "own": found.rate(found.own), "others": found.rate(found.hits - found.own)},
    }


def _blocks(workload: Workload, kv_bytes: int) -> dict | None:
    """What a cache of blocks that all requests share hits, as a share of all prompt tokens: an endless one, and LRU by capacity."""
    if workload.blocks is None:
        return None
    context, tokens = workload.history_tokens + workload.prompt_tokens, workload.blocks.block_tokens
    reuse = block_reuse(workload.blocks, context, in_order(workload))
    total = int(context.sum())
    capacities = np.unique(np.geomspace(max(reuse.smallest, 1), max(reuse.enough, 1), _CURVE_POINTS).round().astype(np.int64))
    size = tokens * kv_bytes
    return {
        "block_tokens": tokens,
        "distinct": reuse.distinct,
        "held_bytes": reuse.distinct * size,
        "hit_rate": reuse.hits * tokens / total,
        "distance_bytes": {f"p{share}": reuse.capacity_for(share / 100) * size for share in _PERCENTILES} | {"max": reuse.enough * size}
        if reuse.hits
        else None,
        "lru_curve": [
            {"capacity_blocks": int(capacity), "capacity_bytes": int(capacity) * size, "token_hit_rate": float(hits * tokens / total)}
            for capacity, hits in zip(capacities, reuse.hits_within(capacities), strict=True)
            if hits
        ],
    }
