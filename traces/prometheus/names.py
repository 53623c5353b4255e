"""Which metric is which: names differ between engines and versions, so they are found by their ends.

A name is compared without its engine (`vllm:`, `sglang_`, …), without `_total`, and with `:`, `.` and `-` as `_`. Of the ends that fit the
longest counts, so that `external_prefix_cache_hits` is not taken for `prefix_cache_hits`. Where a server has a metric under two names, an
old and a new one, the first in the list counts.

Source: vLLM 0.33 (docs.vllm.ai, "Metrics"; vllm/v1/metrics/loggers.py), SGLang 0.5.23 (docs.sglang.io, "Production metrics"), LMCache 0.5.6
(docs.lmcache.ai, "Observability").
"""

import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field

from kvplan.traces.prometheus.series import Series
from kvplan.traces.workload import TraceError

ENGINES = ("vllm", "sglang", "lmcache")
COUNTERS = {
    "requests": ("request_success", "num_requests"),
    "prompt_tokens": ("prompt_tokens",),
    "output_tokens": ("generation_tokens",),
    "local_queries": ("prefix_cache_queries", "gpu_prefix_cache_queries"),
    "local_hits": ("prefix_cache_hits", "gpu_prefix_cache_hits"),
    "external_queries": ("external_prefix_cache_queries",),
    "external_hits": ("external_prefix_cache_hits",),
    "cached_tokens": ("cached_tokens",),
    "lmcache_requested": ("num_requested_tokens",),
    "lmcache_hits": ("num_hit_tokens",),
    "stored_bytes": ("kv_offload_store_bytes",),
    "loaded_bytes": ("kv_offload_load_bytes",),
}
HISTOGRAMS = {
    "prompt": ("request_prompt_tokens", "prompt_tokens_histogram"),
    "uncached": ("uncached_prompt_tokens_histogram",),
    "output": ("request_generation_tokens", "generation_tokens_histogram"),
    "ttft": ("time_to_first_token_seconds", "time_to_first_token_milliseconds"),
    "tpot": (
        "request_time_per_output_token_seconds",
        "time_per_output_token_seconds",
        "inter_token_latency_seconds",
        "time_per_output_token_milliseconds",
        "inter_token_latency_milliseconds",
    ),
    "e2e": ("e2e_request_latency_seconds", "e2e_request_latency_milliseconds"),
    "queue": ("request_queue_time_seconds", "queue_time_seconds"),
}
GAUGES = {
    "running": ("num_requests_running", "num_running_reqs"),
    "waiting": ("num_requests_waiting", "num_queue_reqs"),
    "kv_usage": ("kv_cache_usage_perc", "gpu_cache_usage_perc", "token_usage"),
    "cache_hit_rate": ("cache_hit_rate",),
    "started_s": ("process_start_time_seconds",),
}
_PARTS = ("bucket", "sum", "count")


@dataclass
class Metric:
    """The series of one metric, of all servers; of a histogram by its parts."""

    name: str
    """As it was exported, without the part."""
    parts: dict[str, list[Series]] = field(default_factory=lambda: defaultdict(list))


def _known() -> dict[str, tuple[str, int, str]]:
    """Normalised name -> (role, rank, part)."""
    plain = {name: (role, rank, "") for roles in (COUNTERS, GAUGES) for role, names in roles.items() for rank, name in enumerate(names)}
    parts = {
        f"{name}_{part}": (role, rank, part) for role, names in HISTOGRAMS.items() for rank, name in enumerate(names) for part in _PARTS
    }
    return plain | parts


_KNOWN = _known()


def recognised(name: str) -> tuple[str, int, str] | None:
    """(role, rank, part) of an exported name; None for one that says nothing of a workload."""
    words = re.sub(r"[^a-z0-9]+", "_", name.lower()).removesuffix("_total").split("_")
    ends = ("_".join(words[place:]) for place in range(len(words)))
    return next((_KNOWN[end] for end in ends if end in _KNOWN), None)


def engine(name: str) -> str | None:
    """The engine that a metric's name names."""
    return next((each for each in ENGINES if re.search(rf"(^|[^a-z]){each}[^a-z]", name.lower())), None)


def metrics(series: Iterable[Series]) -> dict[str, Metric]:
    """Role -> metric. Raises TraceError when none is known, or two engines are mixed."""
    found: dict[str, dict[tuple[int, str], Metric]] = defaultdict(dict)
    names, engines = set(), set()
    for each in series:
        names.add(each.name)
        role = recognised(each.name)
        if role is not None:
            engines.add(engine(each.name))
            base = each.name.removesuffix(f"_{role[2]}") if role[2] else each.name
            found[role[0]].setdefault((role[1], base), Metric(base)).parts[role[2]].append(each)
    if len(engines & {"vllm", "sglang"}) > 1:
        raise TraceError("metrics of vLLM and of SGLang in one export: keep those of one server, for example with --label job=NAME")
    if not found:
        seen = ", ".join(sorted(names)[:5])
        raise TraceError(
            f"no metric of vLLM, SGLang or LMCache among {len(names)} ({seen}{', …' if len(names) > 5 else ''}): query for example"
            ' {__name__=~"vllm:.*"}'
        )
    return {role: alike[min(alike)] for role, alike in found.items()}


def missing(found: dict[str, Metric]) -> list[str]:
    """The names of what was not found, without engines."""
    return [names[0] for roles in (COUNTERS, HISTOGRAMS, GAUGES) for role, names in roles.items() if role not in found]
