"""Money, recomputed by hand: owned and rented, wear, retention, break-even."""

import pytest

from kvplan.hwmodels import catalogue
from kvplan.hwmodels.cost import run_cost_usd, usd_per_s
from kvplan.hwmodels.ownership import Terms, annuity, terms
from kvplan.sim import config
from kvplan.sim.deployment import resolve
from kvplan.sim.planner.money import Wear, paying_hits, wear_usd_per_s

HOUR, MONTH = 3600, 730 * 3600


@pytest.mark.parametrize(("interest", "years"), [(0.0, 3), (0.08, 4), (0.2, 1)])
def test_an_annuity_pays_its_debt_back(interest, years):
    debt = 1.0
    for _ in range(years):
        debt = debt * (1 + interest) - annuity(interest, years)
    assert debt == pytest.approx(0, abs=1e-12)


def test_hits_from_which_a_store_pays():
    """It saves $40 of GPUs for $10 where it hits 60 points more; of one that hits fewer nothing goes by hits."""
    assert paying_hits((0.2, 0.8), 100.0, 60.0, 10.0) == pytest.approx(0.35)
    assert paying_hits((0.8, 0.7), 100.0, 60.0, 10.0) is None


def test_an_owned_server_by_hand_to_the_cent():
    """Eight H100s with 1 TB of DRAM and 8 TB of NVMe, bought, for a month."""
    prices, gpu = catalogue.load("prices", "buy-2026"), catalogue.load("gpu", "h100-80g")
    rates = usd_per_s(prices, "h100-80g", 8, 10**12, 8 * 10**12, terms(prices, gpu))
    crf3 = 0.08 * 1.08**3 / (1.08**3 - 1)
    crf4 = 0.08 * 1.08**4 / (1.08**4 - 1)
    crf5 = 0.08 * 1.08**5 / (1.08**5 - 1)
    hours_up = 8760 * 0.98
    power_kw = 0.7 * 1.82
    capital = 27_000 * crf4 / hours_up
    running = (power_kw * 0.7 * 1.3 * 0.09 + power_kw * 184 / 730) / 0.98
    assert round(rates["gpu"] * MONTH, 2) == round(8 * 730 * (capital + running), 2) == 8080.87
    assert round(rates["dram"] * MONTH, 2) == round(18.8 * 1000 * crf3 / hours_up * 730, 2)
    assert round(rates["ssd"] * MONTH, 2) == round(0.2 * 8000 * crf5 / hours_up * 730, 2)


def test_drives_that_wear_out_are_paid_back_sooner_all_of_the_nodes():
    """A tier of 1 TB on 8 drives of 3.84 TB, without interest: 0.2 $/GB in one year instead of five."""
    deployment = resolve(
        config.load("default", ["prices=buy-2026", "hardware=h100-80g-x8", "store.ssd=1TB", "cost.interest=0", "cost.availability=1"])
    )
    more = wear_usd_per_s(deployment, Wear(1.0, 1.0, 1.0, True, 3.0))
    assert more * 8760 * HOUR == pytest.approx(8 * 3840 * 0.2 * (1 - 1 / 5))
    assert wear_usd_per_s(deployment, Wear(1.0, 1.0, 4.0, True, 3.0)) == 0 == wear_usd_per_s(deployment, None)
    assert wear_usd_per_s(deployment, Wear(1.0, 1.0, 1.0, False, 3.0)) == 0, "the landlord's"


def test_settings_replace_the_lists_terms_and_a_rent_knows_none():
    bought = ["prices=buy-2026", "hardware=h100-80g-x8"]
    listed, set_ = (resolve(config.load("default", [*bought, *more])).terms for more in ([], ["cost.interest=0", "cost.usd_per_kwh=0.2"]))
    assert (listed.interest, set_.interest, set_.pue) == (0.08, 0.0, 1.3)
    assert set_.electricity == pytest.approx(0.2 / 3.6e6)
    rent = catalogue.load("prices", "rent-2026")
    dear = Terms(interest=0.5, electricity=1.0, watts=1e4, hosting=1.0)
    assert usd_per_s(rent, "h100-80g", 8, 0, 0, dear) == usd_per_s(rent, "h100-80g", 8, 0, 0)


def test_a_run_pays_what_an_owner_pays():
    prices, gpu = catalogue.load("prices", "buy-2026"), catalogue.load("gpu", "h100-80g")
    on = terms(prices, gpu)
    run = run_cost_usd(prices, "h100-80g", 8, 10, HOUR, 10**12, 0, 1000, 1000, on=on)
    assert run["gpu"] == pytest.approx(usd_per_s(prices, "h100-80g", 8, 0, 0, on)["gpu"] * HOUR)
    assert run["gpu"] > run_cost_usd(prices, "h100-80g", 8, 10, HOUR, 10**12, 0, 1000, 1000)["gpu"]
