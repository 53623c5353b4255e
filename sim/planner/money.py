"""What a plan costs per session and token, what keeping KV costs, when drives wear out, and from where on a store pays.

Tokens of input are those of a prompt with its history, as in a run's `cost_usd`. A month has 730 hours, a year twelve of them. Left out:
discounts for long terms, prices that change within the horizon, and what an idle hour is worth to somebody else.
"""

import math
from dataclasses import dataclass

import numpy as np

from kvplan.hwmodels.cost import included_bytes
from kvplan.hwmodels.ownership import capital_usd_per_s, gpu_usd_per_s
from kvplan.sim.config import Config
from kvplan.sim.deployment import Deployment
from kvplan.traces import Workload
from kvplan.traces.context import contexts

HOURS_A_MONTH = 730.0
MONTH_S = 3600 * HOURS_A_MONTH
_MOST_STEPS = 100_000
PUBLIC_CACHE_PRICES = {
    "cached_input_share": [0.02, 0.1],
    "storage_usd_per_mtok_h": [1.0, 4.5],
    "source": "price lists of API vendors, mid-2026: cached input at 10 % of the price of input at three large vendors, 2 % at another;"
    " storage, where it is charged, 1.00 USD per million tokens and hour for a small model, 4.50 for a large one",
}
"""What others charge for the same, to compare with; nothing is worked out from it."""


@dataclass(frozen=True)
class Demand:
    """What the whole service is asked for, in the mean."""

    sessions_per_s: float
    turns_per_session: float
    input_tokens_per_session: float
    """With history, after truncation."""
    output_tokens_per_session: float
    reuse: float
    """Share of the input tokens that are history: the hit rate of a store that keeps everything."""
    prefill_s_per_history_token: float
    """GPU time of one replica that a cached token of history saves."""


def demand(config: Config, deployment: Deployment, population: Workload, sessions_per_s: float) -> Demand:
    """Of a population of whole sessions."""
    history, prompt, output = contexts(population, deployment.window, config.deployment.truncation_ratio)
    tokens = float((history + prompt).sum())
    pairs = zip(prompt.tolist(), history.tolist(), strict=True)
    saved = sum(deployment.steps.prefill(new + old) - deployment.steps.prefill(new, old) for new, old in pairs)
    return Demand(
        sessions_per_s,
        population.turns / population.sessions,
        tokens / population.sessions,
        float(output.sum()) / population.sessions,
        float(history.sum()) / tokens,
        saved / float(history.sum()) if history.any() else 0.0,
    )


def unit_costs(usd_per_month: float, asked: Demand, horizon_years: float) -> dict[str, float | None]:
    """What a cost per month is over the horizon, per session, and per million tokens (all of it by the tokens of one kind); None where
    there are no answers.

    >>> asked = Demand(2.0, 5.0, 10_000.0, 500.0, 0.8, 1e-5)
    >>> {name: round(value, 4) for name, value in unit_costs(52_560.0, asked, 3.0).items()}
    {'over_horizon': 1892160.0, 'per_session': 0.01, 'per_million_input_tokens': 1.0, 'per_million_output_tokens': 20.0}
    """
    session = usd_per_month / MONTH_S / asked.sessions_per_s
    return {
        "over_horizon": usd_per_month * 12 * horizon_years,
        "per_session": session,
        "per_million_input_tokens": session / asked.input_tokens_per_session * 1e6,
        "per_million_output_tokens": session / asked.output_tokens_per_session * 1e6 if asked.output_tokens_per_session else None,
    }


@dataclass(frozen=True)
class Wear:
    """What writing does to the drives of one replica."""

    written_bytes_per_day: float
    """With write amplification."""
    rated_bytes_per_day: float
    """DWPD times the size of the node's drives."""
    years: float | None
    """To the rated bytes of the warranty; None when nothing is written."""
    bought: bool
    """A landlord replaces the others."""
    horizon_years: float

    @property
    def too_short(self) -> bool:
        """Bought drives wear out before their warranty or the horizon ends."""
        return self.bought and self.years is not None and self.years < self.horizon_years

    @property
    def replacements(self) -> int:
        """Times that the drives are bought anew within the horizon, because of writes."""
        return math.ceil(self.horizon_years / self.years) - 1 if self.years is not None and self.too_short else 0


def wear(config: Config, deployment: Deployment, written_bytes_per_day: float) -> Wear | None:
    """Of drives that are written so much; None without an SSD tier.

    Source: rated bytes = DWPD · capacity · days of the warranty (JEDEC JESD218).
    """
    if not deployment.keeps_on_drives:
        return None
    written = written_bytes_per_day * config.cost.write_amplification
    rated = deployment.ssd.rated_dwpd.value * deployment.drive_bytes
    years = rated * deployment.ssd.warranty.value / written if written else None
    return Wear(written, rated, years, deployment.prices.ssd.purchase is not None, config.cost.horizon_years)


def wear_usd_per_s(deployment: Deployment, worn: Wear | None) -> float:
    """What it costs more that the node's drives, all of them, are paid back until they wear out and not over their lifetime."""
    if worn is None or not worn.too_short:
        return 0.0
    price, on = deployment.prices.ssd, deployment.terms
    return deployment.drive_bytes * (capital_usd_per_s(price, on, worn.years) - capital_usd_per_s(price, on))


def keeping(deployment: Deployment, asked: Demand) -> dict[str, float | None]:
    """Dollars to keep a million tokens of KV, in sessions of a full window, for an hour in DRAM and on SSD at the list's price (inside a
    rented shape it costs nothing more), to compute them again, and the hours after which keeping has cost as much as computing: the
    break-even TTL."""
    mtok = 1e6 * deployment.stored(deployment.window) / deployment.window
    hour = {
        name: 3600 * deployment.copies.get(name, 1.0) * mtok * capital_usd_per_s(price, deployment.terms)
        for name, price in (("dram", deployment.prices.dram), ("ssd", deployment.prices.ssd))
    }
    gpu = deployment.gpus * gpu_usd_per_s(deployment.prices.gpus[deployment.gpu.name], deployment.terms)
    again = 1e6 * asked.prefill_s_per_history_token * gpu
    with_dram, with_ssd = included_bytes(deployment.prices, deployment.gpu.name, deployment.gpus)
    return {
        "dram_usd_per_mtok_h": hour["dram"],
        "ssd_usd_per_mtok_h": hour["ssd"],
        "recompute_usd_per_mtok": again,
        "dram_break_even_h": again / hour["dram"] if hour["dram"] else None,
        "ssd_break_even_h": again / hour["ssd"] if hour["ssd"] else None,
        "included_dram_bytes": with_dram,
        "included_ssd_bytes": with_ssd,
    }


def paying_load(with_store: tuple[float, float], without: tuple[float, float]) -> float | None:
    """The load, in sessions/s, from which on whole replicas with a store cost less than without; None when they never do. Both are
    (sessions/s that a replica bears, dollars of a replica). Replicas are counted at loads just above those at which one more is needed.

    >>> paying_load((2.0, 11.0), (1.0, 10.0))
    1.0
    >>> paying_load((2.0, 25.0), (1.0, 10.0)) is None
    True
    """
    (bears, usd), (bears_bare, usd_bare) = with_store, without
    gain = usd_bare / bears_bare - usd / bears
    if gain <= 0:
        return None
    surely = usd / gain  # there even one replica too many costs less than the GPUs saved
    if surely / min(bears, bears_bare) > _MOST_STEPS:
        return surely
    loads = np.unique(np.concatenate([np.arange(0, surely + 2 * each, each) for each in (bears, bears_bare)]))
    costs = [(np.floor(loads / each * (1 + 1e-12)) + 1) * price for each, price in (with_store, without)]
    short = np.flatnonzero((costs[0] >= costs[1])[loads <= surely])
    return float(loads[short[-1] + 1]) if short.size else 0.0


def paying_hits(hits: tuple[float, float], usd_without: float, usd_gpus: float, usd_store: float) -> float | None:
    """The token hit rate from which a store pays, when the GPUs that it saves are in proportion to its hits beyond those without it:
    `hits` are (without, with). None when it saves none, or hits no more.

    >>> round(paying_hits((0.2, 0.8), 100.0, 60.0, 10.0), 3)
    0.35
    >>> paying_hits((0.8, 0.7), 100.0, 60.0, 10.0) is None  # more replicas without it have more HBM
    True
    """
    saved = usd_without - usd_gpus
    return hits[0] + (hits[1] - hits[0]) * usd_store / saved if saved > 0 and hits[1] > hits[0] else None
