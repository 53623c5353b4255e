"""KV of fewer bits: in HBM, in a tier, and on the links between them."""

from typing import ClassVar

import numpy as np
import pytest

from kvplan.hwmodels import catalogue, kvsize
from kvplan.sim import config
from kvplan.sim.analytic.explain import explain
from kvplan.sim.build_workload import build_workload
from kvplan.sim.cli.trace import describe
from kvplan.sim.config import ConfigError
from kvplan.sim.deployment import resolve
from kvplan.sim.planner.flags import Sizes, warnings
from kvplan.sim.planner.scenario import inputs
from kvplan.sim.policies.base import Write
from kvplan.sim.simulation import simulate
from kvplan.validate.checks import agreement

KV, FP8, NVFP4 = 819_200, 409_600, 230_400
"""Bytes per token of LLaMA-2-13B."""
PLAIN = ("store.load=always", "store.eviction=lru", "store.prefetch=none", "store.write_buffer=0GB", "warmup_turns=0")


def run(table, *overrides):
    settings = config.load(None, [*PLAIN, *overrides])
    return simulate(settings, table), resolve(settings, table)


@pytest.mark.parametrize(
    ("model", "bf16", "fp8", "nvfp4"),
    [
        ("llama-2-13b", KV, FP8, NVFP4),
        ("llama-3.1-70b", 327_680, 163_840, 92_160),
        ("deepseek-v3", 70_272, 35_136, 19_764),
    ],
)
def test_bytes_of_a_token_by_dtype(model, bf16, fp8, nvfp4):
    entry = catalogue.load("model", model)
    found = [kvsize.kv_bytes_per_token(kvsize.in_dtype(entry, dtype)) for dtype in (None, "bf16", "fp8", "nvfp4")]
    assert found == [bf16, bf16, fp8, nvfp4]


def test_two_turns_from_a_narrow_tier(workload):
    """1000 prompt and 50 answer, then 100 and 30 on a history of 1050, which is loaded; at the end all 1180 tokens have been saved."""
    table = workload([[(1000, 50), (100, 30)], [(1, 1)]], arrivals=[0, 99], gap_s=10.0)
    result, deployment = run(table, "store.kv_dtype=fp8", "deployment.link_efficiency=0.25")
    summary, layers = result.summary, deployment.steps.layers
    assert result.columns["cached_tokens"].tolist() == [0, 1050, 0]
    assert summary["links"]["host_to_device"]["bytes"] == summary["tiers"]["dram"]["read_bytes"] == 1050 * FP8
    assert 1180 * FP8 <= summary["links"]["device_to_host"]["bytes"] == summary["tiers"]["dram"]["written_bytes"] <= 1182 * FP8
    assert 1180 * FP8 <= summary["tiers"]["dram"]["peak_bytes"] == result.series["dram_bytes"].max() <= 1182 * FP8
    load_s = 1050 * FP8 / layers / deployment.host.read_bytes_per_s + deployment.host.latency_s
    compute_s = deployment.steps.prefill(100, 1050)
    assert load_s > compute_s / layers, "else there is nothing to wait for"
    waited = result.columns["admitted_s"][1] - result.columns["arrival_s"][1]
    assert waited == 0, "an empty server: no layer was loaded before the job started"
    assert result.columns["stall_s"][1] == pytest.approx(layers * load_s + compute_s / layers - compute_s)


def test_a_demotion_goes_in_the_dtype_of_the_tier_below(workload):
    table = workload([[(1000, 50)], [(1000, 50)], [(1, 1)]], arrivals=[0, 20, 99])
    narrow = ["store.kv_dtype={dram: fp8, ssd: nvfp4}", "store.dram=700MB", "store.ssd=1TB", "store.host_buffer=0.5"]
    summary = run(table, *narrow)[0].summary
    assert 2100 * FP8 <= summary["links"]["device_to_host"]["bytes"] <= 2102 * FP8
    assert summary["links"]["ssd_write"]["bytes"] == summary["tiers"]["ssd"]["written_bytes"] == 2100 * NVFP4
    assert summary["tiers"]["dram"]["capacity_bytes"] == 700_000_000


def test_a_fetch_and_a_load_come_in_the_dtype_of_their_tier(workload):
    table = workload([[(1000, 50), (100, 10)], [(1, 1)]], arrivals=[0, 99], gap_s=10.0)
    summary = run(table, "store.kv_dtype={ssd: nvfp4}", "store.dram=0GB", "store.ssd=1TB")[0].summary
    for link in ("ssd_read", "host_to_device"):
        assert summary["links"][link]["bytes"] == 1050 * NVFP4
    assert 1160 * NVFP4 <= summary["links"]["device_to_host"]["bytes"] <= 1162 * NVFP4
    assert summary["ssd_wear"]["bytes_per_day"] * summary["makespan_s"] / 86_400 == pytest.approx(summary["tiers"]["ssd"]["written_bytes"])


@pytest.mark.parametrize(
    "more",
    [
        (),
        ("store.save=sync", "store.ssd_write=whole"),
        ("store.prefetch=lookahead",),
        ("store.write=second-hit",),
    ],
)
def test_half_the_bytes_over_links_half_as_fast_is_the_same_run(more):
    """A theorem, to the last bit: all is halved that has bytes of KV in it, but in HBM."""
    few = ["workload.sessions=60", "workload.arrival.rate_per_s=1", "store.load=always", *more]
    wide = config.load(None, [*few, "store.dram=12GB", "store.ssd=40GB"])
    tight = ["store.dram=6GB", "store.ssd=20GB", "deployment.link_efficiency=0.5", "store.write_buffer=0.5GB", "store.piece=32MiB"]
    narrow = config.load(None, [*few, *tight, "store.kv_dtype=fp8"])
    one, other = simulate(wide), simulate(narrow)
    assert one.summary["hit_rate"]["ssd"] > 0.05 and one.summary["tiers"]["ssd"]["written_bytes"] > 0
    assert one.events == other.events
    for name, values in one.columns.items():
        np.testing.assert_array_equal(values, other.columns[name], name)
    assert other.summary["ssd_wear"]["dwpd"] == pytest.approx(one.summary["ssd_wear"]["dwpd"] / 2)
    assert other.summary["cost_usd"]["dram"] == pytest.approx(one.summary["cost_usd"]["dram"] / 2)
    for tier, figures in one.summary["tiers"].items():
        assert {name: value / 2 for name, value in figures.items()} == pytest.approx(other.summary["tiers"][tier])


class Counting(Write):
    """Writes what it is asked about, and counts it."""

    NAME = "counting"
    asked: ClassVar[list[int]] = []
    written: ClassVar[list[int]] = []

    def copies(self, session, uses):
        return False

    def demotes(self, session, uses, size, now_s):
        self.asked.append(size)
        return True

    def wrote(self, size, now_s):
        self.written.append(size)


def test_a_write_policy_is_told_of_bytes_in_the_dtype_of_the_tier_below(workload):
    table = workload([[(1000, 50)], [(1000, 50)], [(1, 1)]], arrivals=[0, 20, 99])
    narrow = ["store.kv_dtype={dram: fp8, ssd: nvfp4}", "store.dram=700MB", "store.ssd=1TB", "store.host_buffer=0.5"]
    Counting.asked.clear()
    Counting.written.clear()
    run(table, *narrow, "store.write=test_kv_dtype:Counting")
    assert Counting.written == [1050 * NVFP4] * 2 and set(Counting.asked) == {1050 * NVFP4}


@pytest.mark.parametrize("seed", [1, 5])
def test_engine_and_reference_agree_on_two_dtypes(seed):
    loaded, table = agreement.random_case("DRAM and SSD, prefetching", seed)
    narrow = config.load(loaded, ["store.kv_dtype={dram: fp8, ssd: nvfp4}"])
    assert agreement.compare(narrow, table)[0] == []


def test_hbm_has_the_dtype_of_the_deployment():
    plain, narrow = (resolve(config.load("chat-2026", more)) for more in ([], ["deployment.kv_dtype=fp8"]))
    assert (narrow.kv_bytes, narrow.in_hbm(1)) == (plain.kv_bytes // 2, plain.in_hbm(1) // 2)
    assert narrow.steps.per_context == pytest.approx(plain.steps.per_context / 2)
    assert narrow.tiers == tuple(plain.tiers), "which keep it as it comes"
    below = resolve(config.load("chat-2026", ["deployment.kv_dtype=fp8", "store.ssd=1TB", "store.kv_dtype={ssd: nvfp4}"]))
    assert [tier.kv_dtype for tier in below.tiers] == [""] * (len(below.tiers) - 1) + ["nvfp4"]
    assert below.tiers[-1].copies == 9 / 16


def test_a_tier_not_named_keeps_what_is_above_it():
    deployment = resolve(config.load(None, ["store.kv_dtype={dram: fp8}"]))
    assert [(tier.kv_dtype, tier.copies, tier.size) for tier in deployment.tiers] == [("fp8", 0.5, 128 * 10**9), ("fp8", 0.5, 10**13)]
    assert deployment.room == 2 * (128 * 10**9 + 10**13) and sum(deployment.sizes.values()) == 128 * 10**9 + 10**13


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        (["store.kv_dtype=fp4"], "'fp4' is not one of bf16, fp8, nvfp4"),
        (["store.kv_dtype={hbm: fp8}"], "set deployment.kv_dtype"),
        (["store.kv_dtype={cxl: fp8}"], "names cxl, but the tiers are dram, ssd"),
        (["store.kv_dtype={dram: fp8, ssd: bf16}"], "ssd would keep bf16"),
        (["deployment.kv_dtype=fp8", "store.kv_dtype=bf16"], "409600 in HBM"),
        (["deployment.kv_dtype=int8"], "bf16"),
    ],
)
def test_what_cannot_be_is_refused(settings, says):
    with pytest.raises(ConfigError, match=says):
        resolve(config.load(None, settings))


def test_explain_and_every_result_say_it():
    loaded = config.load(None, ["workload.sessions=50", "store.kv_dtype={ssd: nvfp4}"])
    plain = config.load(None, ["workload.sessions=50"])
    table = build_workload(plain)
    found, plain = (explain(each, resolve(each, table), table) for each in (loaded, plain))
    assert [(tier["kv_dtype"], tier["kv_bytes_per_token"]) for tier in found["tiers"].values()] == [("", KV), ("nvfp4", NVFP4)]
    assert found["tiers"]["ssd"]["sessions"] == pytest.approx(plain["tiers"]["ssd"]["sessions"] * 32 / 9)
    assert any("SSD nvfp4 (230,400 B)" in warning for warning in found["warnings"])
    assert found["points"][0]["load_dram_s"] == plain["points"][0]["load_dram_s"]
    latency = resolve(loaded).drive_links.latency_s
    assert found["points"][0]["load_ssd_s"] - latency == pytest.approx((plain["points"][0]["load_ssd_s"] - latency) * 9 / 32)


def test_recomputation_keeps_no_dtype_of_a_tier_that_it_lacks():
    cxl = "{name: cxl, size: 512GB, read: 30GB/s, write: 30GB/s, latency: 2us, price: 0.001USD/GB/h}"
    loaded = config.load(None, [f"store.tiers=[dram, {cxl}, ssd]", "store.kv_dtype={cxl: fp8}"])
    assert [tier.kv_dtype for tier in resolve(loaded).tiers] == ["", "fp8", "fp8"]
    config.load(loaded.recompute(), ["seed=2"])


def test_plans_ask_for_fp8_and_flags_say_it():
    names = {end.name for pair in inputs(config.load("chat-2026")) for end in pair if end is not None}
    assert "KV dtype" in names
    narrow = config.load("chat-2026", ["deployment.kv_dtype=fp8", "store.ssd=1TB", "store.kv_dtype={ssd: nvfp4}"])
    assert "KV dtype" not in {end.name for pair in inputs(narrow) for end in pair if end is not None}
    said = " ".join(warnings(Sizes.of(resolve(narrow))))
    assert "KV has 8 bits an element" in said and "SSD is planned with KV in nvfp4" in said


def test_describe_says_it(capsys):
    describe(["workload.sessions=30", "deployment.kv_dtype=fp8", "store.kv_dtype={ssd: nvfp4}"], 3600.0, False, None)
    assert "(409,600 B per token of llama-2-13b, 230,400 B as nvfp4 in SSD)" in " ".join(capsys.readouterr().out.split())
