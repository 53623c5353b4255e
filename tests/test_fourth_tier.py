"""A fourth tier between DRAM and SSD needs a configuration, and no file of the project."""

import numpy as np
import pytest

from kvplan.sim import config
from kvplan.sim.config import ConfigError
from kvplan.sim.deployment import resolve
from kvplan.sim.metrics.rows import Rows
from kvplan.sim.report import table
from kvplan.sim.simulation import simulate

DRIVES = resolve(config.load(None)).drive_links
SMALL = {"workload.sessions": 150, "workload.arrival.rate_per_s": 1, "warmup_turns": 0, "store.eviction": "lru", "store.dram": "10GB"}


def cxl(size, speedup=1):
    """A tier that is the node's drives in all but its name, or so many times as fast."""
    read, write = (f"{speedup * each!r}B/s" for each in (DRIVES.read_bytes_per_s, DRIVES.write_bytes_per_s))
    return {"name": "cxl", "size": size, "read": read, "write": write, "latency": f"{DRIVES.latency_s!r}s", "price": "0.001USD/GB/h"}


def run(tiers, **store):
    return simulate(config.load(None, {**SMALL, "store.tiers": tiers, **{f"store.{key}": value for key, value in store.items()}}))


def test_names_say_nothing():
    """The drives by another name are the same run, turn for turn, over links of that name."""
    ours, theirs = run(["dram", cxl("60GB")], ssd="0GB"), run(["dram", "ssd"], ssd="60GB")
    for name, column in theirs.columns.items():
        assert np.array_equal(ours.columns[name], column, equal_nan=column.dtype.kind == "f"), name
    mine, other = ours.summary, theirs.summary
    assert mine["hit_rate"]["cxl"] == other["hit_rate"]["ssd"] > 0 and mine["hit_rate"]["ssd"] == 0
    assert mine["tiers"]["cxl"] == other["tiers"]["ssd"]
    for way in ("read", "write"):
        assert mine["links"][f"cxl_{way}"] == other["links"][f"ssd_{way}"] and not mine["links"][f"ssd_{way}"]["bytes"]


def test_a_fourth_tier_takes_what_dram_writes_down_and_serves_it():
    """DRAM's bytes come into the new tier, those of the new tier into the SSD, and each is read over its own link."""
    summary = run(["hbm", "dram", cxl("20GB", 10), "ssd"], ssd="60GB").summary
    links, tiers, hits = summary["links"], summary["tiers"], summary["hit_rate"]
    assert list(tiers) == ["dram", "cxl", "ssd"] and all(hits[name] > 0 for name in tiers)
    assert hits["resumed"] == pytest.approx(sum(hits[name] for name in tiers))
    assert links["cxl_write"]["bytes"] > links["ssd_write"]["bytes"] == tiers["ssd"]["written_bytes"] > 0
    assert links["cxl_read"]["bytes"] > 0 and links["ssd_read"]["bytes"] == tiers["ssd"]["read_bytes"] > 0
    cost = summary["cost_usd"]
    assert cost["cxl"] == pytest.approx(20 * 0.001 * summary["makespan_s"] / 3600)
    assert cost["total"] == pytest.approx(sum(cost[part] for part in ("gpu", *tiers)))
    assert table._paid(summary) == "GPUs, DRAM, CXL and SSD are paid for the whole run"


@pytest.mark.parametrize(
    ("tiers", "message"),
    [
        (["dram", {"name": "cxl", "size": "1GB"}, "ssd"], "tier cxl lacks read, write, latency, price"),
        (["dram", {"name": "ssd", "size": "1GB"}], "ssd takes no size here"),
        (["dram", "ssd", "ssd"], "tiers has ssd more than once"),
        (["dram", "hbm", "ssd"], "hbm comes first"),
        (["dram"], "tiers leaves out ssd: name it, or set store.ssd=0GB"),
        (["dram", cxl("1GB") | {"read": "30GB"}, "ssd"], "unit 'GB' is not one of B/s"),
    ],
)
def test_a_list_of_tiers_that_means_nothing_is_refused(tiers, message):
    with pytest.raises(ConfigError, match=message):
        config.load(None, {"store.tiers": tiers})


@pytest.mark.parametrize("column", [name for name in Rows(1).columns if name.endswith("_tokens")])
def test_no_tier_is_called_as_a_column_of_tokens(column):
    """Blocks have a column for each tier: `cxl_tokens`."""
    with pytest.raises(ConfigError, match="results say something else by that name"):
        config.load(None, {"store.tiers": ["dram", cxl("1GB") | {"name": column.removesuffix("_tokens")}, "ssd"]})
