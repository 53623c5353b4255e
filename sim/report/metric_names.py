"""How a measure is named, scaled and judged where it is shown.

Only those with a `Metric` below have words of their own; every other path works as well, in its own unit and without a better side.
"""

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Metric:
    """How to show a measure."""

    name: str
    """As in "points of hit rate (resumed turns)"."""
    unit: str = ""
    scale: float = 1.0
    """Shown number = measured · scale."""
    better: int = 0
    """+1: more is better, −1: less is better, 0: neither."""
    difference: str | None = None
    """Unit of a difference, where it is another one."""

    @property
    def relative(self) -> bool:
        """Whether variants differ by a factor (latencies, throughputs, costs) and not by points."""
        return self.better != 0 and self.unit != "%"

    def at(self, value: float) -> "Metric":
        """The same, in the unit that suits a measured value: milliseconds become seconds from 10 s on."""
        return replace(self, unit="s", scale=1.0) if self.unit == "ms" and abs(value) >= 10 else self


def metric(key: str) -> Metric:
    """Of any measure."""
    if key in _METRICS:
        return _METRICS[key]
    head, _, tail = key.partition(".")
    if head == "hit_rate":
        return Metric(f"hit rate (resumed turns, from {tail.upper()})", "%", 100, 0, "points")
    if head in _LATENCIES:
        return Metric(f"{_LATENCIES[head]} ({tail})", "ms", 1e3, -1)
    if key.endswith(("_bytes", ".bytes")):
        return Metric(key, "GB", 1e-9)
    return Metric(key)


_LATENCIES = {
    "ttft_s": "TTFT",
    "prefill_s": "prefill without queueing",
    "queue_s": "queueing",
    "tpot_s": "TPOT",
    "e2e_s": "end-to-end latency",
    "client_wait_s": "wait in the client",
}
_METRICS = {
    **{
        f"hit_rate.{key}": Metric(f"hit rate ({name})", "%", 100, 1, "points")
        for key, name in (("turns", "all turns"), ("resumed", "resumed turns"), ("tokens", "prompt tokens"))
    },
    "bound.resumed": Metric("bound of the hit rate (resumed turns)", "%", 100, 0, "points"),
    "bound.tokens": Metric("bound of the hit rate (prompt tokens)", "%", 100, 0, "points"),
    "prefill_tokens_per_s": Metric("prefill throughput", "tok/s", 1, 1),
    "output_tokens_per_s": Metric("output throughput", "tok/s", 1, 1),
    "goodput_per_s": Metric("goodput", "turns/s", 1, 1),
    "makespan_s": Metric("makespan", "s", 1, -1),
    "gpu.busy_h": Metric("busy GPU hours", "h", 1, -1),
    "cost_usd.total": Metric("cost", "$", 1, -1, "dollars"),
    "cost_usd.per_million_output_tokens": Metric("cost per million output tokens", "$", 1, -1, "dollars"),
    "ssd_wear.bytes_per_day": Metric("SSD writes a day", "TB", 1e-12, -1),
    "ssd_wear.dwpd": Metric("SSD writes", "DWPD", 1, -1),
    "ssd_wear.lifetime_years": Metric("SSD life", "years", 1, 1),
    "skipped_saves": Metric("skipped saves", "saves", 1, -1),
    "overflow_turns": Metric("overflowing turns", "turns", 1, -1),
}
