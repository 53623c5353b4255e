"""CachedAttention's end-to-end runs beside the published figures; about a minute.

Baselines: RE, LRU and FIFO stores without prefetching, and OF (embedded positions). Every published figure is from arXiv 2403.19708v3.
"""

from kvplan.sim import config
from kvplan.sim.build_workload import build_workload
from kvplan.sim.metrics.schema import Summary
from kvplan.sim.simulation import simulate
from kvplan.validate.show import show

MODELS = ("13b", "65b", "70b")
PUBLISHED = {
    "hit rate, all turns, %": (86, 71, 89),
    "TTFT without queueing, change %": (-85, -61, -87),
    "prefill throughput, x": (6.8, 2.6, 7.8),
    "GPU time, x": (4.0, 1.9, 3.3),
    "cost, change %": (-70, -43, -66),
    "storage share of cost, %": (16.4, 9.0, 9.0),
    "hit rate lost without decoupling, points": (17.6, 41.5, 18.1),
    "hit rate LRU, all turns, %": (58, None, None),
    "hit rate FIFO, all turns, %": (48, None, None),
    "hits from DRAM, look-ahead, %": (99.6, None, None),
    "hits from DRAM, LRU, %": (0.5, None, None),
    "hits from DRAM, FIFO, %": (0.5, None, None),
    "GPU time LRU / look-ahead, x": (2.7, None, None),
}
_RUNS = {
    "look-ahead": [],
    "LRU": ["store.eviction=lru", "store.prefetch=none"],
    "FIFO": ["store.eviction=fifo", "store.prefetch=none"],
    "OF": ["store.positions=embedded"],
    "RE": ["store.dram=0GB", "store.ssd=0GB"],
}


def summaries(model: str, *overrides: str) -> dict[str, Summary]:
    """Name of the run -> summary, all on one workload."""
    workload = build_workload(config.load(f"paper-{model}", overrides))
    return {name: simulate(config.load(f"paper-{model}", [*extra, *overrides]), workload).summary for name, extra in _RUNS.items()}


def figures(found: dict[str, Summary]) -> dict[str, float]:
    """The quantities of `PUBLISHED` from the runs of one model."""
    ours, re, lru, fifo, of = (found[name] for name in ("look-ahead", "RE", "LRU", "FIFO", "OF"))

    def in_dram(summary):
        rates = summary["hit_rate"]
        return 100 * rates["dram"] / rates["resumed"]

    cost = ours["cost_usd"]
    return {
        "hit rate, all turns, %": 100 * ours["hit_rate"]["turns"],
        "TTFT without queueing, change %": 100 * (ours["prefill_s"]["mean"] / re["prefill_s"]["mean"] - 1),
        "prefill throughput, x": ours["prefill_tokens_per_s"] / re["prefill_tokens_per_s"],
        "GPU time, x": re["gpu"]["busy_s"] / ours["gpu"]["busy_s"],
        "cost, change %": 100 * (cost["total"] / re["cost_usd"]["total"] - 1),
        "storage share of cost, %": 100 * (cost["dram"] + cost["ssd"]) / cost["total"],
        "hit rate lost without decoupling, points": 100 * (ours["hit_rate"]["turns"] - of["hit_rate"]["turns"]),
        "hit rate LRU, all turns, %": 100 * lru["hit_rate"]["turns"],
        "hit rate FIFO, all turns, %": 100 * fifo["hit_rate"]["turns"],
        "hits from DRAM, look-ahead, %": in_dram(ours),
        "hits from DRAM, LRU, %": in_dram(lru),
        "hits from DRAM, FIFO, %": in_dram(fifo),
        "GPU time LRU / look-ahead, x": lru["gpu"]["busy_s"] / ours["gpu"]["busy_s"],
        "hit rate, resumed turns, %": 100 * ours["hit_rate"]["resumed"],
        "  LRU": 100 * lru["hit_rate"]["resumed"],
        "  FIFO": 100 * fifo["hit_rate"]["resumed"],
        "first turns among the measured, %": 100 * (1 - ours["resumed_turns"] / ours["turns"]),
        "saves skipped, % of turns": 100 * ours["skipped_saves"] / ours["turns"],
        "decode share of RE's GPU time, %": 100 * re["gpu"]["decode_s"] / re["gpu"]["busy_s"],
        "SSD read busy, %": 100 * ours["links"]["ssd_read"]["busy_share"],
        "SSD write busy, %": 100 * ours["links"]["ssd_write"]["busy_share"],
    }


def run() -> None:
    """Prints the table."""
    found = [figures(summaries(model)) for model in MODELS]
    cells = []
    for name in found[0]:
        row = [name]
        for index in range(len(MODELS)):
            published = PUBLISHED.get(name, (None,) * len(MODELS))[index]
            row += ["" if published is None else f"{published:g}", f"{found[index][name]:.3g}"]
        cells.append(row)
    columns = ["CachedAttention against RE", *(f"{model} {who}" for model in MODELS for who in ("paper", "kvplan"))]
    show("Presets paper-13b, paper-65b, paper-70b", columns, cells)
