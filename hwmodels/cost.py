"""Dollars of a run from a price list.

GPU time is charged by the busy GPU-hour, as the paper charges it: an idle GPU is taken to serve something else. DRAM and SSD are
charged for their configured capacity over the whole span, because they hold KV all the time. `gpu_provisioned` is what the GPUs
cost when they are paid for the whole span, busy or not. A purchase price counts as price / lifetime (`kvplan.hwmodels.schema.Price`).
Source: CachedAttention (USENIX ATC 2024) section 4.4.
"""

from kvplan.hwmodels.schema import Prices


def run_cost_usd(
    prices: Prices,
    gpu: str,
    gpus: int,
    busy_s: float,
    span_s: float,
    dram_bytes: int,
    ssd_bytes: int,
    output_tokens: int,
    input_tokens: int,
) -> dict[str, float]:
    """Cost by resource, in US dollars, and per million tokens.

    `gpu` is a GPU that the list prices (KeyError otherwise), `gpus` the number of them that are busy together, `busy_s` the seconds
    for which they were, `span_s` the seconds for which `dram_bytes` and `ssd_bytes` were provided.

    >>> from hwmodels import catalogue
    >>> paper = catalogue.load("prices", "paper-2024")
    >>> hour = run_cost_usd(paper, "a100-80g", 4, 3600, 3600, 128 * 10**9, 10_240 * 10**9, 10**6, 10**6)
    >>> round(hour["gpu"], 2), round(hour["dram"] + hour["ssd"], 3)
    (20.0, 1.966)
    """
    gpu_usd_per_s = prices.gpus[gpu].value
    busy = gpus * busy_s * gpu_usd_per_s
    dram = dram_bytes * span_s * prices.dram.value
    ssd = ssd_bytes * span_s * prices.ssd.value
    total = busy + dram + ssd
    return {
        "gpu": busy,
        "dram": dram,
        "ssd": ssd,
        "total": total,
        "gpu_provisioned": gpus * span_s * gpu_usd_per_s,
        "per_million_output_tokens": total / output_tokens * 1e6 if output_tokens else 0.0,
        "per_million_input_tokens": total / input_tokens * 1e6 if input_tokens else 0.0,
    }
