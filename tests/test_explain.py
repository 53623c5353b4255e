"""`kvplan explain`: its arithmetic by hand, against the simulator, and what it warns of."""

import json
from dataclasses import replace

import numpy as np
import pytest
from typer.testing import CliRunner

from kvplan.hwmodels import pipeline_s
from kvplan.sim import config
from kvplan.sim.analytic.explain import explain
from kvplan.sim.analytic.queueing import Server
from kvplan.sim.build_workload import build_workload
from kvplan.sim.cli.app import app
from kvplan.sim.deployment import resolve
from kvplan.sim.simulation import simulate
from kvplan.validate.checks import explained as against


def explained(*overrides, preset=None, workload=None):
    loaded = config.load(preset, ["workload.sessions=300", "warmup_turns=0", *overrides])
    workload = workload or build_workload(loaded)
    return explain(loaded, resolve(loaded, workload), workload)


def test_sizes_by_hand(workload):
    found = explained(workload=workload([[(100, 200), (300, 400)], [(500, 500)]], arrivals=[0.0, 10.0]))
    kv = 2 * 40 * 5120 * 2
    assert found["model"]["kv_bytes_per_token"] == kv == 819_200
    assert found["turn"]["session_bytes"] == 1000 * kv
    assert found["turn"]["history_tokens"] == 100 and found["turn"]["prompt_tokens"] == 300
    assert found["tiers"]["dram"]["sessions"] == pytest.approx(128e9 / (1000 * kv))
    assert found["tiers"]["dram"]["sessions_at_full_window"] == pytest.approx(128e9 / (4096 * kv))
    assert found["windows"]["prefetch_jobs"] == pytest.approx(0.9 * 128e9 / (1000 * kv))
    assert found["windows"]["eviction_jobs"] == pytest.approx(0.9 * (128e9 + 10e12) / (1000 * kv))
    assert found["rate"] == {"sessions_per_s": 0.1, "turns_per_s": pytest.approx(0.2), "steady_turns_per_s": pytest.approx(0.15),
                             "span_s": 10.0, "turns_span_s": 10.0}  # fmt: skip
    weights = found["model"]["weight_bytes"]
    assert found["hbm"]["kv_bytes"] == int(2 * 80 * 2**30 * 0.9 - weights)
    assert found["hbm"]["read_buffer_bytes"] == 1000 * kv * 15 // 40  # of the longest context that comes, not of the window


def test_windows_count_every_tier_below_what_fetches_fill():
    own = "{name: cxl, size: 1TB, read: 50GB/s, write: 50GB/s, latency: 2us, price: 0USD/GB/h}"
    found = explained(f"store.tiers=[dram, {own}]", "store.ssd=0GB")
    windows, tiers = found["windows"], found["tiers"]
    assert windows["prefetch_jobs"] == pytest.approx(0.9 * tiers["dram"]["sessions"])
    assert windows["eviction_jobs"] == pytest.approx(0.9 * (tiers["dram"]["sessions"] + tiers["cxl"]["sessions"]))


def test_sample_points_are_the_engines_times():
    loaded = config.load()
    deployment = resolve(loaded)
    for point in explained()["points"]:
        new, history = point["prompt_tokens"], point["history_tokens"]
        compute, load = deployment.steps.prefill(new, history), history * deployment.kv_bytes / deployment.host.read_bytes_per_s
        load += deployment.steps.layers * deployment.host.latency_s
        assert point["recompute_s"] == deployment.steps.prefill(new + history)
        assert point["with_dram_unbuffered_s"] == pipeline_s(40, compute / 40, load / 40)
        assert point["with_dram_s"] == pipeline_s(40, compute / 40, load / 40, 15)
        assert point["s_buf_bytes"] == pytest.approx(max(0.0, (load - compute) * deployment.host.read_bytes_per_s))
        enough = min(point["s_buf_layers"] + 1, 40)
        assert pipeline_s(40, compute / 40, load / 40, enough) == pytest.approx(compute, rel=0.06)
        slow = history * deployment.kv_bytes / point["break_even_bytes_per_s"]
        assert slow + compute == pytest.approx(point["recompute_s"])


def test_no_link_breaks_even_where_a_history_costs_no_time():
    """Each step waits for the host's second, which the GPUs' work hides in: there is nothing to save."""
    host = ["deployment.host_step_s=1", "deployment.host_work=hidden", "workload.sessions=5"]
    assert [point["break_even_bytes_per_s"] for point in explained(*host)["points"]] == [None] * 4
    result = CliRunner().invoke(app, ["explain", *(part for one in host for part in ("--set", one))])
    assert result.exit_code == 0 and "Loading never beats recomputing" in result.stdout


def test_the_demand_is_what_the_simulator_measures_at_full_batches(small):
    """Prefill and loading do not depend on the batch, so they must agree below saturation; decoding is at full batches here."""
    settings = small("workload.sessions=400")
    result = simulate(settings)
    resources = explained("workload.sessions=400")["demand"]["resources"]
    turns = result.workload.turns
    h2d = result.summary["links"]["host_to_device"]
    assert resources["host to GPU"]["seconds_per_turn"] * turns == pytest.approx(h2d["busy_share"] * result.summary["makespan_s"], rel=0.1)
    recompute = simulate(settings.recompute()).summary["gpu"]
    decode = explained("workload.sessions=400")["demand"]["decode_s"]
    prefill = resources["GPU, recomputing"]["seconds_per_turn"] - decode
    assert prefill * turns == pytest.approx(recompute["prefill_s"], rel=0.1)
    assert decode * turns < recompute["decode_s"]  # below saturation batches are not full


def test_without_tiers_it_is_recomputation():
    found = explained("store.dram=0GB", "store.ssd=0GB")
    assert found["tiers"] == {} and found["served"]["lost"] == 1
    assert found["demand"]["first"] == "GPU, recomputing" and found["cost_usd_per_h"]["storage"] == 0


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["store.ssd=64GB"], "ssd (64 GB) is smaller than dram (128 GB)"),
        (["workload.arrival.rate_per_s=5", "workload.sessions=2000"], "overloaded: GPU"),
        (["workload.arrival.rate_per_s=5"], "were they to keep arriving"),
        (["store.ttl_s=3600"], "too short for its TTL"),
        (["store.read_buffer_layers=0"], "host link cannot keep up"),
        (["store.dram=20GB"], "running jobs alone pin"),
        ([], "loading from SSD"),
        (["batching=some.module:Chunked"], "batching=some.module:Chunked is not run here"),
        (["store.write=some.module:Never"], "the write policy some.module:Never is not run here"),
    ],
)
def test_warnings(overrides, words):
    assert any(words in warning for warning in explained(*overrides)["warnings"])


def test_warnings_are_not_always_there():
    found = explained("store.read_buffer_layers=40", "deployment.window_tokens=4096", "workload.max_tokens=3000", "store.ttl_s=60")
    assert not [warning for warning in found["warnings"] if "SSD" not in warning]


# --- against the simulator --------------------------------------------------------------------------------------------------------

CONSTANT = [
    "workload.kind=synthetic",
    *(
        f"workload.{name}={{distribution: constant, value: {value}}}"
        for name, value in (("turns", 10), ("prompt_tokens", 350), ("output_tokens", 30))
    ),
    "workload.max_tokens=100000",
    "model=llama-2-7b",
    "deployment.gpus=4",
    "store.eviction=lru",
]


def test_sessions_that_outlast_their_starts(workload):
    """100 sessions within 99 s, each with ten turns 1,000 s apart: 0.1 turns/s, and 10 a second only if sessions kept arriving."""
    rate = explained(workload=workload([[(9, 9)] * 10] * 100, arrivals=range(100), gap_s=1000.0))["rate"]
    assert rate["turns_per_s"] == pytest.approx(0.11, rel=0.1) and rate["steady_turns_per_s"] == pytest.approx(10.0)


def test_sessions_that_were_under_way_do_not_begin():
    """A cut out of a stream in which one session a second begins, and half go on for minutes."""
    stream = [
        "workload.steady=true",
        "workload.arrival.rate_per_s=1",
        "workload.think_time={distribution: lognormal, median_s: 60, sigma: 2}",
    ]
    rate = explained(*stream)["rate"]
    assert rate["sessions_per_s"] == pytest.approx(299 / rate["span_s"]) == pytest.approx(1.0, rel=0.1)


def test_what_expires_serves_nothing(small):
    for ttl, least, most in ((1, 0.0, 0.02), (1e6, 0.95, 1.0)):
        assert least <= 1 - explained(f"store.ttl_s={ttl}")["served"]["lost"] <= most


def test_each_replica_has_tiers_of_its_own(workload):
    """Eight sessions take turns; one replica of two holds four of them, which fit where eight do not."""
    turns = workload([[(500, 500), (100, 100)]] * 8, arrivals=range(8), gap_s=100.0)
    room = f"store.dram={5.5 * 1000 * 819_200 / 0.9:.0f}B"
    assert explained(room, workload=turns)["served"]["dram"] == 0
    assert explained(room, "deployment.replicas=2", workload=turns)["served"]["dram"] == 1


def test_the_gpu_waits_for_loads(small):
    overrides = [
        *CONSTANT,
        "store.dram=4TB",
        "store.ssd=0GB",
        "store.prefetch=none",
        "workload.arrival.rate_per_s=1",
        "workload.sessions=300",
    ]
    found, result = explained(*overrides), simulate(small(*overrides))
    gpu = result.summary["gpu"]
    expected = (gpu["prefill_s"] + gpu["load_stall_s"]) / result.workload.turns
    demand = found["demand"]
    assert gpu["load_stall_s"] > gpu["prefill_s"]
    assert demand["resources"]["GPU"]["seconds_per_turn"] - demand["decode_s"] == pytest.approx(expected, rel=0.15)


def test_saves_that_the_ssd_cannot_take_hold_nobody_up():
    found = explained(
        *CONSTANT, "workload.turns.value=1", "workload.prompt_tokens.value=1500", "store.dram=8GB", "workload.arrival.rate_per_s=7"
    )
    assert found["demand"]["resources"]["SSD write"]["utilization"] > 1 and found["demand"]["first"] == "GPU"
    assert any("no queue grows" in warning for warning in found["warnings"])
    assert not any("overloaded" in warning for warning in found["warnings"])


def test_what_hbm_does_not_hold_is_loaded():
    with_hbm, without = (explained(*hbm)["demand"]["resources"]["host to GPU"]["seconds_per_turn"] for hbm in (["store.hbm=8GB"], []))
    assert 0.5 * without < with_hbm < without


@pytest.mark.parametrize(("overrides", "within"), [([], 0.15), (["store.write=through"], 0.15), (["store.ssd_write=whole"], 0.3)])
def test_the_ssd_is_written_what_the_simulator_writes(small, overrides, within):
    overrides = ["store.eviction=lru", "store.prefetch=none", "store.dram=20GB", "workload.sessions=600", "deployment.window_tokens=2048",
                 "workload.arrival.rate_per_s=0.1", *overrides]  # fmt: skip
    found, result = explained(*overrides), simulate(small(*overrides))
    write = found["demand"]["resources"]["SSD write"]["seconds_per_turn"] * resolve(small(*overrides)).drive_links.write_bytes_per_s
    assert write * result.workload.turns == pytest.approx(result.summary["tiers"]["ssd"]["written_bytes"], rel=within)


@pytest.mark.parametrize("preset", [name for name in config.presets() if config.load(name).workload.clients is None])
def test_every_preset_is_explained(preset):
    result = CliRunner().invoke(app, ["explain", preset, "--set", "workload.sessions=100", "--set", "warmup_turns=0"])
    assert result.exit_code == 0 and "saturates first" in result.stdout
    found = json.loads(
        CliRunner().invoke(app, ["explain", preset, "--set", "workload.sessions=100", "--set", "warmup_turns=0", "--json"]).stdout
    )
    assert set(found) >= {"model", "hbm", "tiers", "points", "windows", "served", "rate", "demand", "cost_usd_per_h", "warnings"}


LRU = ["store.eviction=lru", "store.prefetch=none", "store.load=always", "store.ssd=0GB"]


def history_served(result, index=0):
    columns = result.columns
    return columns["cached_tokens"][columns["tier"] == index].sum() / columns["history_tokens"].sum()


@pytest.mark.parametrize("seed", range(12))
def test_random_settings_agree_with_the_simulator_or_the_reason_is_given(seed):
    one = against.explained_case(against.settings(seed, sessions=120))
    assert not [one.words(name) for name in one.unexplained]


def test_a_figure_that_is_off_is_noticed():
    one = against.explained_case(against.settings(0, sessions=30))
    one = replace(one, said=dict(one.found), reasons=[])
    assert not one.off
    assert replace(one, said=one.said | {"GPU busy": one.found["GPU busy"] * 1.2}).unexplained == ["GPU busy"]
    moved = {"served from hbm": one.found["served from hbm"] + 0.04}
    assert replace(one, said=one.said | moved).unexplained == ["served from hbm"]


@pytest.mark.parametrize("overrides", [["store.host_buffer=0.1"], ["store.host_buffer=0.5"], ["deployment.truncation_ratio=1.0"]])
def test_the_last_tier_can_be_filled_and_sessions_are_as_long_as_truncation_leaves_them(small, overrides):
    overrides = [*LRU, "store.dram=25GB", "workload.sessions=600", *overrides]
    assert explained(*overrides)["served"]["dram"] == pytest.approx(history_served(simulate(small(*overrides))), abs=0.02)


def test_with_embedded_positions_truncation_leaves_nothing(small):
    overrides = [*LRU, "store.dram=128GB", "workload.sessions=300", "store.positions=embedded"]
    said = explained(*overrides)["served"]["dram"]
    assert said == pytest.approx(history_served(simulate(small(*overrides))), abs=0.02) and said < 0.9


def test_what_is_not_written_down_is_not_below(small):
    """Only sessions that came back are written: the second turn of those that left DRAM finds nothing."""
    overrides = [*LRU, "store.dram=100GB", "store.ssd=2TB", "workload.sessions=900", "store.write=second-hit"]
    said, result = explained(*overrides)["served"], simulate(small(*overrides))
    assert said["ssd"] == pytest.approx(history_served(result, 1), abs=0.03)
    assert said["lost"] > 0.005 and explained(*overrides, "store.write=back")["served"]["lost"] == 0


def test_tiers_that_hold_the_same_share_room(small):
    """Copies of all that DRAM holds take as much of a small SSD: the two hold no more than the SSD does."""
    overrides = [*LRU, "store.dram=40GB", "store.ssd=50GB", "workload.sessions=600", "store.write=through"]
    lost = 1 - sum(history_served(simulate(small(*overrides)), tier) for tier in (0, 1))
    assert explained(*overrides)["served"]["lost"] == pytest.approx(lost, abs=0.04)
    assert explained(*overrides, "store.ssd_write=whole", "store.write=back")["served"]["lost"] < 0.7 * lost


def test_how_busy_the_gpus_are_where_the_answer_is_plain():
    one_at_a_time = Server(alone_s=0.3, steps=10, step_s=lambda jobs: 0.02 + 0 * jobs, most=1)
    assert one_at_a_time.most_per_s == pytest.approx(2) and one_at_a_time.busy(np.array([0.0, 1.0])) == pytest.approx([0, 0.5])
    nobody_waits = Server(alone_s=0.0, steps=10, step_s=lambda jobs: 0.1 + 0 * jobs, most=1000)
    assert nobody_waits.busy(np.array([2.0])) == pytest.approx(1 - np.exp(-2)) and nobody_waits.jobs(2.0) == pytest.approx(2)
    assert nobody_waits.running(2.0) == pytest.approx(2 / (1 - np.exp(-2)))


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["store.eviction=fifo"], "store.eviction=fifo"),
        (["store.prefetch=lookahead", "store.ssd=1TB"], "nothing is fetched ahead"),
        (["store.load=cake"], "store.load=cake"),
        (["store.ssd=1TB", "store.ttl_s=60"], "what expires"),
        (["store.ssd=1TB", "store.write=within-rating"], "within-rating"),
        (["store.ssd=1TB", "store.host_buffer=0"], "keeps less free"),
        (["store.dram=10GB"], "holds 3 of the largest sessions"),
        (["store.dram=128GB", "workload.arrival.rate_per_s=3"], "at the busiest time"),
        (["workload.sessions=20"], "chance"),
    ],
)
def test_what_the_arithmetic_leaves_out_is_said(overrides, words):
    calm = [*LRU, "store.dram=100GB", "workload.sessions=600"]
    assert not explained(*calm)["limits"]
    assert any(words in limit["words"] for limit in explained(*calm, *overrides)["limits"])


def test_the_ratio_of_truncation_counts_wherever_sizes_are_told(small):
    from kvplan.sim.sweep.curve import capacity
    from kvplan.traces.describe import describe

    half, all_of_it = small("workload.sessions=200"), small("workload.sessions=200", "deployment.truncation_ratio=1.0")
    table, deployment = build_workload(half), resolve(half)
    assert capacity(all_of_it, deployment, table).held_bytes < capacity(half, deployment, table).held_bytes
    described = [describe(table, 819_200, 4096, ratio=ratio)["kv"]["session_mean_bytes"] for ratio in (0.5, 1.0)]
    assert described[1] < described[0]
    commands = [CliRunner().invoke(app, ["trace", "describe", "--json", "--set", "workload.sessions=200", "--set", setting]).stdout
                for setting in ("deployment.truncation_ratio=0.5", "deployment.truncation_ratio=1.0")]  # fmt: skip
    assert [json.loads(text)["kv"]["session_mean_bytes"] for text in commands] == described
