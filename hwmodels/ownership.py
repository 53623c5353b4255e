"""What a second of something costs that is bought: an annuity over its life, and for GPUs the power and the place of their server.

    purchase · CRF(i, n) / (year · availability)                        CRF(i, n) = i (1 + i)^n / ((1 + i)^n − 1), 1/n at i = 0
    + watts · (hosting + share · PUE · price of electricity) / availability      of GPUs, with the server around them

A rent contains all of it, and costs what it costs. Left out: the price of the server around the parts, resale, taxes, staff; power of
DRAM and drives is in that of the server.

Source: capital recovery factor as in PyPSA's costs (annuity); Barroso, Hölzle and Ranganathan, "The Datacenter as a Computer", chapter 6.
"""

from dataclasses import dataclass

from kvplan.hwmodels.schema import YEAR_S, Gpu, Price, Prices


def annuity(interest: float, years: float) -> float:
    """Capital recovery factor: what a dollar costs a year, paid back in equal parts over its life.

    >>> annuity(0.0, 4)
    0.25
    >>> round(annuity(0.08, 4), 5)
    0.30192
    """
    if interest == 0:
        return 1 / years
    growth = (1 + interest) ** years
    return interest * growth / (growth - 1)


@dataclass(frozen=True)
class Terms:
    """On which things are bought and run. The defaults are a straight line and nothing else, as price lists without terms mean it."""

    interest: float = 0.0
    """A year."""
    electricity: float = 0.0
    """Dollars per joule."""
    pue: float = 1.0
    power_share: float = 1.0
    hosting: float = 0.0
    """Dollars per second and watt of the server's greatest power."""
    availability: float = 1.0
    watts: float = 0.0
    """Of one GPU at most, with its share of the server."""


def terms(prices: Prices, gpu: Gpu, **settings: float | None) -> Terms:
    """Those of a price list, but for what `settings` say: interest, electricity, pue, availability."""
    listed = {name: getattr(prices, name) for name in ("interest", "electricity", "pue", "power_share", "hosting", "availability")}
    found = {name: row.value for name, row in listed.items() if row is not None}
    around = 1.0 if prices.server_power is None else prices.server_power.value
    watts = 0.0 if gpu.power is None else gpu.power.value * around
    return Terms(**{**found, **{name: value for name, value in settings.items() if value is not None}}, watts=watts)


def capital_usd_per_s(price: Price, on: Terms, years: float | None = None) -> float:
    """What a unit costs a second; a purchase lasts for its lifetime, or for `years` where those are fewer.

    >>> from kvplan.hwmodels import catalogue
    >>> ssd = catalogue.load("prices", "buy-2026").ssd
    >>> round(capital_usd_per_s(ssd, Terms(interest=0.08)) * 1e12 * YEAR_S, 2)    # 200 $/TB over 5 years, 0.25046 of it a year
    50.09
    """
    if price.purchase is None or price.lifetime is None:
        return price.value
    lasts = price.lifetime.value if years is None else min(years, price.lifetime.value)
    return price.purchase * annuity(on.interest, lasts) / YEAR_S / on.availability


def gpu_usd_per_s(price: Price, on: Terms) -> float:
    """The same of a GPU, with power and place where it is bought."""
    if price.purchase is None:
        return price.value
    running = on.watts * (on.hosting + on.power_share * on.pue * on.electricity)
    return capital_usd_per_s(price, on) + running / on.availability
