"""Dollars of a run from a price list.

GPUs are provisioned: they are paid for the whole span, busy or not. Paid by the busy hour, as CachedAttention counts, an idle GPU is taken
to serve something else in no time; that holds for rents by the second at most, never for a purchase. DRAM and SSD are charged for their
capacity over the whole span, because they hold KV all the time, less what comes with rented GPUs. A purchase counts as its annuity, with
power and place (`kvplan.hwmodels.ownership`).
Source: CachedAttention (USENIX ATC 2024) section 4.4.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Literal

from kvplan.hwmodels.ownership import Terms, capital_usd_per_s, gpu_usd_per_s
from kvplan.hwmodels.schema import Prices, Quantity

Paid = Literal["provisioned", "busy"]
"""The hours for which GPUs are paid."""
STRAIGHT_LINE = Terms()
"""Purchases without interest, power and place."""


def included_bytes(prices: Prices, gpu: str, gpus: int) -> tuple[int, int]:
    """Bytes of DRAM, and of SSD, that come with so many rented GPUs."""

    def included(shares: Mapping[str, Quantity]) -> int:
        return round(gpus * shares[gpu].value) if gpu in shares else 0

    return included(prices.included_dram), included(prices.included_ssd)


def usd_per_s(prices: Prices, gpu: str, gpus: int, dram_bytes: int, ssd_bytes: int, on: Terms = STRAIGHT_LINE) -> dict[str, float]:
    """What a second of provisioned GPUs costs, and of the DRAM and SSD beyond what comes with them. KeyError for a GPU without a price."""
    with_dram, with_ssd = included_bytes(prices, gpu, gpus)
    return {
        "gpu": gpus * gpu_usd_per_s(prices.gpus[gpu], on),
        "dram": max(0, dram_bytes - with_dram) * capital_usd_per_s(prices.dram, on),
        "ssd": max(0, ssd_bytes - with_ssd) * capital_usd_per_s(prices.ssd, on),
    }


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
    paid: Paid = "provisioned",
    on: Terms = STRAIGHT_LINE,
    others_usd_per_s: Mapping[str, float] = MappingProxyType({}),
) -> dict[str, Any]:
    """Cost by resource, in US dollars, and per million tokens; None per million answered when nothing was.

    `gpu` is a GPU that the list prices (KeyError otherwise), `gpus` the number of them, `busy_s` the seconds for which each was busy in
    the mean, `span_s` the seconds for which `dram_bytes` and `ssd_bytes` were provided. `gpu_provisioned` and `gpu_busy` are GPU time by
    either measure, and `gpu` the one that is `paid`. `others_usd_per_s`: rents of what no price list has, by name.

    >>> from hwmodels import catalogue
    >>> paper = catalogue.load("prices", "paper-2024")
    >>> hour = run_cost_usd(paper, "a100-80g", 4, 1800, 3600, 128 * 10**9, 10_240 * 10**9, 10**6, 10**6)
    >>> round(hour["gpu"], 2), round(hour["gpu_busy"], 2), round(hour["dram"] + hour["ssd"], 3)
    (20.0, 10.0, 1.966)
    """
    rates = usd_per_s(prices, gpu, gpus, dram_bytes, ssd_bytes, on)
    with_dram, with_ssd = included_bytes(prices, gpu, gpus)
    gpu_usd = {"provisioned": rates["gpu"] * span_s, "busy": rates["gpu"] * busy_s}
    dram, ssd = rates["dram"] * span_s, rates["ssd"] * span_s
    others = {name: rate * span_s for name, rate in others_usd_per_s.items()}
    total = gpu_usd[paid] + dram + ssd + sum(others.values())
    return {
        "gpu": gpu_usd[paid],
        "dram": dram,
        "ssd": ssd,
        **others,
        "total": total,
        "gpu_provisioned": gpu_usd["provisioned"],
        "gpu_busy": gpu_usd["busy"],
        "gpu_hours": paid,
        "included_dram_bytes": with_dram,
        "included_ssd_bytes": with_ssd,
        "per_million_output_tokens": total / output_tokens * 1e6 if output_tokens else None,
        "per_million_input_tokens": total / input_tokens * 1e6 if input_tokens else 0.0,
    }
