"""What a server's metrics say of its work: turns over time, lengths, prefix hits, latencies; and what they do not say.

Hit rates are each engine's own, by tokens, and so are their denominators: vLLM asks its own cache for all prompt tokens, and an external
one (offloading, LMCache) for those that were no local hits; a request that is preempted asks again. SGLang counts cached among all prompt
tokens, by where they lay.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from kvplan.traces.prometheus.names import Metric, engine, metrics, missing
from kvplan.traces.prometheus.series import Export, Series, label_values
from kvplan.traces.prometheus.totals import Distribution, distribution, rates, rise, total
from kvplan.traces.workload import TraceError

_MOST_BINS = 96
_SPAN_S = 1.0, 1e9
"""Shortest and longest span of an export."""
_MOST_PER_S = 1e6
"""Turns per second: more is no service."""
_SERVER = ("instance", "pod", "engine", "engine_index", "tp_rank", "dp_rank")
"""Labels that tell one server's series from another's."""
_MODEL = ("model_name", "model")
_BROKEN_OFF = ("abort", "error")
_LATENCIES = ("ttft", "tpot", "e2e", "queue")
_SIZES = ("prompt", "uncached", "output")
_GAUGES = ("running", "waiting", "kv_usage")
UNKNOWN = (
    "turns per session, and how long users think between them: metrics count requests and not who sends them. An access log of a thousand"
    " sessions is enough (session or user, time, prompt and output tokens; `kvplan list formats` names what is read)",
    "how much of a prompt is history, and which prompts share a prefix: the same log, with the text or its block hashes",
)
"""What no metric says, and where it is to be had."""


Span = tuple[float, float, float]
"""(from, to, turns per second)."""


@dataclass(frozen=True)
class HitRate:
    """Of a prefix cache, by tokens."""

    rate: float
    hits: float
    queries: float
    of: str
    """What is counted against."""


@dataclass(frozen=True)
class Observed:
    """Of all servers of an export together."""

    engine: str | None
    model: str | None
    servers: int
    begin_s: float
    """Since 1970."""
    span_s: float
    """0 where every series has one point."""
    turns: float
    """Requests that ended: in the span, or since the servers started."""
    turns_per_s: float | None
    curve: tuple[Span, ...]
    """Seconds since `begin_s`."""
    sizes: dict[str, Distribution]
    """Tokens of a turn: `prompt` with history, of it `uncached`, `output`."""
    latencies: dict[str, Distribution]
    """Seconds: ttft, tpot, e2e, queue, as they were recorded."""
    hits: dict[str, HitRate]
    """local, external, all, and by where it lay."""
    levels: dict[str, tuple[float, float]]
    """(mean, most) of gauges, over time and summed over servers; of a usage the mean over servers."""
    found: dict[str, str]
    """Role -> the metric's name."""
    missing: tuple[str, ...]
    notes: tuple[str, ...]

    def data(self) -> dict[str, Any]:
        """Plain, for JSON."""
        return {
            "engine": self.engine,
            "model": self.model,
            "servers": self.servers,
            "begin_s": self.begin_s,
            "span_s": self.span_s,
            "turns": self.turns,
            "turns_per_s": self.turns_per_s,
            "turns_per_s_over_time": [{"from_s": start, "to_s": end, "turns_per_s": rate} for start, end, rate in self.curve],
            "tokens": {name: {**each.data(), "open_share": each.open_share} for name, each in self.sizes.items()},
            "latency_s": {name: {**each.data(), "open_share": each.open_share} for name, each in self.latencies.items()},
            "hit_rate": {
                name: {"rate": each.rate, "hits": each.hits, "queries": each.queries, "of": each.of} for name, each in self.hits.items()
            },
            "levels": {name: {"mean": mean, "max": most} for name, (mean, most) in self.levels.items()},
            "metrics_found": self.found,
            "metrics_missing": list(self.missing),
            "not_known": list(UNKNOWN),
            "notes": list(self.notes),
        }


def observed(export: Export) -> Observed:
    """Raises TraceError when no turn was counted, or several models are mixed."""
    found = metrics(export.series)
    turns = _turns(found)
    begin, span = _span(turns)
    number = total(turns)
    if not number > 0:
        raise TraceError("no turn ended in the export's time: its counters of requests do not rise")
    seconds = span or _since_start(found, turns)
    if seconds and number / seconds > _MOST_PER_S:
        raise TraceError(f"{number:,.0f} turns in {seconds:.3g} s are no service: are the times right?")
    edges = np.linspace(begin, begin + span, _bins(turns) + 1)
    curve = zip(edges - begin, edges[1:] - begin, rates(turns, edges), strict=False) if span else ()
    sizes, latencies = _distributions(found, _SIZES), _distributions(found, _LATENCIES)
    hits = _hits(found)
    return Observed(
        engine=engine(next(iter(found.values())).name),
        model=_model(found),
        servers=_servers(turns),
        begin_s=begin,
        span_s=span,
        turns=number,
        turns_per_s=number / seconds if seconds else None,
        curve=tuple((float(start), float(end), float(rate)) for start, end, rate in curve),
        sizes=sizes,
        latencies=latencies,
        hits=hits,
        levels=_levels(found),
        found={role: metric.name for role, metric in found.items()},
        missing=tuple(missing(found)),
        notes=tuple(_notes(export, turns, sizes | latencies, hits, span)),
    )


def _turns(found: dict[str, Metric]) -> list[Series]:
    """The counter of requests that ended, or of a histogram that has one value a request. Raises TraceError."""
    if "requests" in found:
        return found["requests"].parts[""]
    for role in ("e2e", "prompt", "output", "ttft"):
        if role in found and found[role].parts.get("count"):
            return found[role].parts["count"]
    seen = ", ".join(metric.name for metric in found.values())
    raise TraceError(f"nothing counts requests among {seen}: query vllm:request_success_total or sglang:num_requests_total as well")


def _span(series: Sequence[Series]) -> tuple[float, float]:
    """(begin, seconds) of all points. Raises TraceError for what is no span of an export."""
    begin, end = min(each.time_s[0] for each in series), max(each.time_s[-1] for each in series)
    if end > begin and not _SPAN_S[0] <= end - begin <= _SPAN_S[1]:
        raise TraceError(f"the export spans {end - begin:.3g} s: times are not in seconds or milliseconds, or too few")
    return float(begin), float(end - begin)


def _bins(series: Sequence[Series]) -> int:
    return int(np.clip(max(len(each.time_s) for each in series) - 1, 1, _MOST_BINS))


def _since_start(found: dict[str, Metric], turns: Sequence[Series]) -> float | None:
    """Seconds from the start of the servers to an export of one moment."""
    if "started_s" not in found:
        return None
    started = min(float(each.values[-1]) for each in found["started_s"].parts[""])
    seconds = float(turns[0].time_s[0]) - started
    return seconds if seconds > 0 else None


def _servers(series: Sequence[Series]) -> int:
    return len({tuple(each.label(name) for name in _SERVER) for each in series})


def _model(found: dict[str, Metric]) -> str | None:
    """Raises TraceError when there is more than one."""
    series = [each for metric in found.values() for part in metric.parts.values() for each in part]
    for name in _MODEL:
        models = label_values(series, name)
        if len(models) > 1:
            shown = ", ".join(models[:5])
            raise TraceError(f"{len(models)} models in one export ({shown}): keep one, for example with --label {name}={models[0]}")
        if models:
            return models[0]
    return None


def _distributions(found: dict[str, Metric], roles: Sequence[str]) -> dict[str, Distribution]:
    made = {}
    for role in roles:
        if role in found and (each := distribution(found[role].parts)) is not None:
            made[role] = _in_seconds(each) if found[role].name.endswith("milliseconds") else each
    for role, counter in (("prompt", "prompt_tokens"), ("output", "output_tokens")):
        if role in roles and role not in made and counter in found and (number := total(_turns(found))) > 0:
            made[role] = Distribution(number, total(found[counter].parts[""]) / number, ())
    return made


def _in_seconds(each: Distribution) -> Distribution:
    points = tuple((share, value / 1000) for share, value in each.points)
    return Distribution(each.count, None if each.mean is None else each.mean / 1000, points, each.open_share)


def _hits(found: dict[str, Metric]) -> dict[str, HitRate]:
    made: dict[str, HitRate] = {}

    def add(name: str, hits: float, queries: float, of: str) -> None:
        if queries > 0:
            made[name] = HitRate(hits / queries, hits, queries, of)

    def counted(role: str) -> float | None:
        return total(found[role].parts[""]) if role in found else None

    local, asked = counted("local_hits"), counted("local_queries")
    external, asked_outside = counted("external_hits"), counted("external_queries")
    of = "prompt tokens, history included"
    if local is not None and asked is not None:
        add("local", local, asked, of)
    if external is not None and asked_outside is not None:
        add("external", external, asked_outside, "prompt tokens that were no local hits")
    if local is not None and asked is not None:
        add("all", local + (external or 0.0), asked, of)
    prompt = counted("prompt_tokens")
    if "cached_tokens" in found and prompt:
        cached = found["cached_tokens"].parts[""]
        add("all", total(cached), prompt, of)
        for source in label_values(cached, "cache_source"):
            add(source, total([each for each in cached if each.label("cache_source") == source]), prompt, of)
    requested, hit = counted("lmcache_requested"), counted("lmcache_hits")
    if requested is not None and hit is not None:
        add("lmcache", hit, requested, "tokens that LMCache was asked for")
    return made


def _levels(found: dict[str, Metric]) -> dict[str, tuple[float, float]]:
    made = {}
    for role in _GAUGES:
        if role in found:
            series = found[role].parts[""]
            times = np.unique(np.concatenate([each.time_s for each in series]))
            values = sum(np.interp(times, each.time_s, each.values) for each in series)
            values = values / len(series) if role == "kv_usage" else values
            made[role] = float(values.mean()), float(values.max())
    if "cache_hit_rate" in found:
        values = np.concatenate([each.values for each in found["cache_hit_rate"].parts[""]])
        made["cache_hit_rate"] = float(values.mean()), float(values.max())
    return made


def _notes(export: Export, turns: Sequence[Series], shapes: dict[str, Distribution], hits: dict[str, HitRate], span: float) -> list[str]:
    rises = [rise(each) for each in turns]
    resets, gaps = sum(each.resets for each in rises), sum(each.gaps for each in rises)
    notes = []
    if not span:
        notes.append("one moment: counts are since the servers started; query_range over a day or a week gives load over time")
    lost = sum(each.total for each, one in zip(rises, turns, strict=True) if one.label("finished_reason") in _BROKEN_OFF)
    if lost > 0:
        notes.append(
            f"{lost / sum(each.total for each in rises):.1%} of the turns were broken off (finished_reason abort or error); they count"
        )
    if resets:
        notes.append(f"{resets} restarts: what was counted between the last point before one and the restart is lost")
    if gaps:
        notes.append(f"{gaps} gaps: what was counted in one is spread evenly over it")
    if export.no_numbers:
        notes.append(f"{export.no_numbers:,} points are no numbers (NaN, infinite), and left out")
    if export.nameless:
        notes.append(f"{export.nameless:,} series without a name (computed by a query) are left out: export the metrics themselves")
    if export.native:
        notes.append(f"{export.native:,} native histograms are left out: export the classic ones (_bucket, _sum, _count)")
    notes += [
        f"{each.open_share:.1%} of {role} is beyond the last bucket: percentiles there are a guess that keeps the mean"
        for role, each in shapes.items()
        if each.open_share > 0.005
    ]
    notes += [
        f"hit rate {name}: more hits than queries ({each.rate:.2f}), so they are not of the same time"
        for name, each in hits.items()
        if each.rate > 1
    ]
    return notes
