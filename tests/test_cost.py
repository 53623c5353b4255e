"""What a run wears out and costs, by hand."""

import pytest

from kvplan.hwmodels import catalogue, schema, strictyaml
from kvplan.sim import config
from kvplan.sim.analytic.explain import explain
from kvplan.sim.build_workload import build_workload
from kvplan.sim.config import ConfigError
from kvplan.sim.deployment import rated_writes, resolve
from kvplan.sim.simulation import simulate

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
    one, two = (resolve(config.load(None, [*H100, "store.ssd=1TB", f"store.ssd_drives={count}"])) for count in (1, 2))
    for way in ("read_bytes_per_s", "write_bytes_per_s"):
        assert getattr(two.drive_links, way) == 2 * getattr(one.drive_links, way)
    assert rated_writes(two) == 2 * rated_writes(one) == pytest.approx(2 * 3.84e12 / 86_400)


def test_drives_that_replicas_on_the_same_node_share_are_said():
    """One GPU of eight has an eighth of the drives, or as many as its tier needs; all GPUs have all, and no SSD wears none."""
    for overrides, share in (
        (["store.ssd=1TB"], 1),
        (["store.ssd=5TB"], 2),
        (["store.ssd=5TB", "deployment.gpus=4"], 4),
        (["store.ssd=1TB", "store.ssd_drives=1"], None),
        (["store.ssd=1TB", "deployment.gpus=8"], None),
        (["store.ssd=0GB"], None),
    ):
        node = ["model=llama-3.1-8b", "hardware=h100-80g-x8", "prices=rent-2026", "deployment.gpus=1", "workload.sessions=5", *overrides]
        said = [each for each in simulate(config.load(None, node)).summary["warnings"] if "store.ssd_drives=" in each]
        assert len(said) == (share is not None) and all(f"store.ssd_drives={share} is its share" in each for each in said)


def test_a_tier_larger_than_the_drives_asked_for_is_an_error_that_says_how_many_it_needs():
    with pytest.raises(ConfigError, match=r"store\.ssd is 12TB, but store\.ssd_drives is 2, of 3\.84 TB each \(nvme-tlc\): it needs 4"):
        resolve(config.load(None, [*H100, "store.ssd=12TB", "store.ssd_drives=2"]))


def test_the_papers_node_holds_its_10_tb_under_5_gb_per_s():
    deployment = resolve(config.load("paper-13b"))
    assert (deployment.drives, deployment.drive_bytes, deployment.drive_links.read_bytes_per_s) == (1, 10**13, 4.5e9)


# --- cost -------------------------------------------------------------------------------------------------------------------------


def a_run(workload, *overrides):
    """Three turns on two replicas of two A100s, the first idle while the second answers, and back."""
    table = workload([[(1000, 500), (200, 100)], [(800, 300)]], arrivals=[0.0, 40.0], gap_s=60.0)
    return simulate(config.load(None, ["deployment.replicas=2", "store.dram=100GB", "store.ssd=2TB", *overrides]), table).summary


def test_a_run_to_the_cent(workload):
    """2 replicas x 2 A100s at 5 $/h, 100 GB x 0.0088 $/GB/h and 2,000 GB x 0.000082 $/GB/h each. Source: CachedAttention section 4.4."""
    run = a_run(workload)
    hours, busy_h, cost = run["makespan_s"] / 3600, run["gpu"]["busy_h"], run["cost_usd"]
    assert run["gpu"]["gpus"] == 4 and 0 < run["gpu"]["busy_s"] < run["makespan_s"]
    assert cost["gpu"] == cost["gpu_provisioned"] == pytest.approx(4 * 5 * hours)
    assert cost["gpu_busy"] == pytest.approx(5 * busy_h) and cost["gpu_busy"] < cost["gpu"]
    assert (cost["dram"], cost["ssd"]) == pytest.approx((2 * 100 * 0.0088 * hours, 2 * 2000 * 0.000082 * hours))
    assert cost["total"] == pytest.approx(hours * (20 + 1.76 + 0.328))
    assert cost["per_million_output_tokens"] == pytest.approx(cost["total"] / 900 * 1e6)
    assert cost["per_million_input_tokens"] == pytest.approx(cost["total"] / (1000 + 200 + 1500 + 800) * 1e6)
    assert cost["gpu_hours"] == "provisioned"


def test_the_papers_measure_pays_by_the_busy_hour(workload):
    provisioned, busy = a_run(workload)["cost_usd"], a_run(workload, "cost.gpu_hours=busy")["cost_usd"]
    assert busy["gpu"] == busy["gpu_busy"] == provisioned["gpu_busy"] and busy["gpu_hours"] == "busy"
    assert (busy["dram"], busy["ssd"], busy["gpu_provisioned"]) == (provisioned["dram"], provisioned["ssd"], provisioned["gpu_provisioned"])
    assert {config.load(name).cost.gpu_hours for name in config.presets() if name.startswith("paper")} == {"busy"}


def test_purchases_are_paid_idle_or_not():
    with pytest.raises(ConfigError, match=r"cost\.gpu_hours is busy, but buy-2026 has prices of purchases.*cost\.gpu_hours=provisioned"):
        resolve(config.load("paper-13b", ["prices=buy-2026"]))
    assert resolve(config.load("paper-13b", ["prices=buy-2026", "cost.gpu_hours=provisioned"])).prices.name == "buy-2026"


def test_what_a_rented_shape_contains_costs_nothing_more(workload):
    """Four of the A100s of an AWS p4de.24xlarge: 4/8 of 1,152 GiB and of 8 TB."""
    inside = a_run(workload, "prices=rent-2026")
    assert (inside["cost_usd"]["dram"], inside["cost_usd"]["ssd"]) == (0, 0)
    assert (inside["cost_usd"]["included_dram_bytes"], inside["cost_usd"]["included_ssd_bytes"]) == (576 * 2**30, 4 * 10**12)
    assert inside["cost_usd"]["total"] == inside["cost_usd"]["gpu"] == pytest.approx(4 * 1.9 * inside["makespan_s"] / 3600)
    assert not any("rented" in warning for warning in inside["warnings"])


def test_what_is_beyond_a_rented_shape_costs_the_lists_price_and_is_said(workload):
    beyond = a_run(workload, "prices=rent-2026", "store.dram=388GiB", "store.ssd=2500GB")
    hours, cost = beyond["makespan_s"] / 3600, beyond["cost_usd"]
    assert (cost["dram"], cost["ssd"]) == pytest.approx((2 * 100 * 0.0034 * hours, 2 * 500 * 0.000098 * hours))
    said = [warning for warning in beyond["warnings"] if "rented" in warning]
    assert [warning.split(" is more than the ")[0] for warning in said] == ["store.dram (417 GB)", "store.ssd (2.5 TB)"]


def test_nothing_comes_with_what_is_bought_or_has_no_price():
    rent = catalogue.KINDS["prices"][1] / "rent-2026.yaml"
    for gpu, row, reason in (("h100-80g", "buy-2026", "which is bought"), ("gtx-1080", "rent-2026", "which has no price")):
        data = strictyaml.load(rent.with_name(f"{row}.yaml"))
        data["included_dram"] = {gpu: {"value": 1, "unit": "GiB", "source": "test"}}
        with pytest.raises(ValueError, match=reason):
            schema.Prices.model_validate(data)


def test_explaining_a_rent_counts_what_it_contains():
    loaded = config.load(None, ["prices=rent-2026", "workload.sessions=100", "store.ssd=2TB"])
    table = build_workload(loaded)
    hour = explain(loaded, resolve(loaded, table), table)["cost_usd_per_h"]
    assert (hour["gpus"], hour["storage"]) == (pytest.approx(2 * 1.9), 0)
