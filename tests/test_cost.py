"""What a run wears out and costs, by hand."""

import pytest

from kvplan.sim import config
from kvplan.sim.config import ConfigError
from kvplan.sim.engine.plant import plant, rated_writes
from kvplan.sim.engine.run import simulate

H100 = ("model=llama-3.1-8b", "hardware=h100-80g-x1", "deployment.gpus=1", "prices=rent-2026")

# --- wear -------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("size", "drives"), [("300GB", 1), ("1TB", 1), ("3.84TB", 1), ("7680GB", 2), ("7.7TB", 3)])
def test_wear_is_that_of_the_drives(size, drives):
    """Drives of 3.84 TB, 1 DWPD and 5 years, whatever part of them the tier is. Source: Samsung PM9A3 datasheet."""
    small = ("workload.sessions=60", "workload.arrival.rate_per_s=1", "store.dram=4GB")
    result = simulate(config.load(None, [*H100, *small, f"store.ssd={size}"])).summary
    wear, per_day = result["ssd_wear"], result["tiers"]["ssd"]["written_bytes"] / result["makespan_s"] * 86_400
    assert per_day > 0 and wear["bytes_per_day"] == pytest.approx(per_day)
    assert (wear["drives"], wear["drive_bytes"]) == (drives, drives * 3.84e12)
    assert wear["dwpd"] == pytest.approx(per_day / (drives * 3.84e12))
    assert wear["lifetime_years"] == pytest.approx(5 * 3.84e12 * drives / per_day)
    assert any("comes with 1 x nvme-tlc" in warning for warning in result["warnings"]) == (drives > 1)


def test_drives_beyond_those_of_the_node_bring_their_bandwidth_and_endurance():
    one, two = (plant(config.load(None, [*H100, "store.ssd=1TB", f"store.ssd_drives={count}"])) for count in (1, 2))
    assert (two.ssd_read_bytes_per_s, two.ssd_write_bytes_per_s) == (2 * one.ssd_read_bytes_per_s, 2 * one.ssd_write_bytes_per_s)
    assert rated_writes(two) == 2 * rated_writes(one) == pytest.approx(2 * 3.84e12 / 86_400)


def test_a_tier_larger_than_the_drives_asked_for_is_an_error_that_says_how_many_it_needs():
    with pytest.raises(ConfigError, match=r"store\.ssd is 12TB, but store\.ssd_drives is 2, of 3\.84 TB each \(nvme-tlc\): it needs 4"):
        plant(config.load(None, [*H100, "store.ssd=12TB", "store.ssd_drives=2"]))


def test_the_papers_node_holds_its_10_tb_under_5_gb_per_s():
    built = plant(config.load("paper-13b"))
    assert (built.drives, built.drive_bytes, built.ssd_read_bytes_per_s) == (1, 10**13, 4.5e9)
