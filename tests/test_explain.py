"""`kvplan explain`: its arithmetic by hand, against the simulator, and what it warns of."""

import json

import pytest
from typer.testing import CliRunner

from hwmodels import pipeline_s
from sim import config
from sim.cli.app import app
from sim.engine.plant import plant
from sim.engine.run import simulate
from sim.engine.workload import build_workload
from sim.explain import explain


def explained(*overrides, preset=None, workload=None):
    loaded = config.load(preset, ["workload.sessions=300", "warmup_turns=0", *overrides])
    return explain(loaded, plant(loaded), workload or build_workload(loaded))


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
    assert found["rate"] == {"sessions_per_s": 0.1, "turns_per_s": pytest.approx(0.15), "span_s": 10.0}
    weights = found["model"]["weight_bytes"]
    assert found["hbm"]["kv_bytes"] == int(2 * 80 * 2**30 * 0.9 - weights - 4096 * kv * 15 // 40 - 10**9)


def test_sample_points_are_the_engines_times():
    loaded = config.load()
    built = plant(loaded)
    for point in explained()["points"]:
        new, history = point["prompt_tokens"], point["history_tokens"]
        compute, load = built.steps.prefill(new, history), history * built.kv_bytes / built.host_to_device_bytes_per_s
        load += built.steps.layers * built.host_link_latency_s
        assert point["recompute_s"] == built.steps.prefill(new + history)
        assert point["with_dram_unbuffered_s"] == pipeline_s(40, compute / 40, load / 40)
        assert point["with_dram_s"] == pipeline_s(40, compute / 40, load / 40, 15)
        assert point["s_buf_bytes"] == pytest.approx(max(0.0, (load - compute) * built.host_to_device_bytes_per_s))
        enough = min(point["s_buf_layers"] + 1, 40)
        assert pipeline_s(40, compute / 40, load / 40, enough) == pytest.approx(compute, rel=0.06)
        slow = history * built.kv_bytes / point["break_even_bytes_per_s"]
        assert slow + compute == pytest.approx(point["recompute_s"])


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
        (["workload.arrival.rate_per_s=5"], "overloaded: GPU"),
        (["store.ttl_s=3600"], "too short for its TTL"),
        (["store.read_buffer_layers=0"], "host link cannot keep up"),
        (["store.dram=20GB"], "running jobs alone pin"),
        ([], "loading from SSD"),
    ],
)
def test_warnings(overrides, words):
    assert any(words in warning for warning in explained(*overrides)["warnings"])


def test_warnings_are_not_always_there():
    found = explained("store.read_buffer_layers=40", "deployment.window_tokens=4096", "workload.max_tokens=3000", "store.ttl_s=60")
    assert not [warning for warning in found["warnings"] if "SSD" not in warning]


@pytest.mark.parametrize("preset", config.presets())
def test_every_preset_is_explained(preset):
    result = CliRunner().invoke(app, ["explain", preset, "--set", "workload.sessions=100", "--set", "warmup_turns=0"])
    assert result.exit_code == 0 and "saturates first" in result.stdout
    found = json.loads(CliRunner().invoke(app, ["explain", preset, "--set", "workload.sessions=100", "--set", "warmup_turns=0", "--json"]).stdout)
    assert set(found) >= {"model", "hbm", "tiers", "points", "windows", "served", "rate", "demand", "cost_usd_per_h", "warnings"}
