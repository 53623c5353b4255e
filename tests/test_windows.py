"""Layers that keep a window or a state: bytes of sessions and jobs, what a store keeps of them, what steps take, and when a hit is none."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvplan.hwmodels import catalogue, kvsize
from kvplan.hwmodels.footprint import Checkpoint, Footprint, attended, kept_as
from kvplan.hwmodels.steptime import StepTime, Window
from kvplan.sim import config
from kvplan.sim.analytic.explain import explain
from kvplan.sim.build_workload import build_workload
from kvplan.sim.cli.trace import describe
from kvplan.sim.config import ConfigError
from kvplan.sim.deployment import resolve
from kvplan.sim.simulation import simulate
from kvplan.sim.store.kept import PROPORTIONAL
from kvplan.traces.workload import untimed
from kvplan.validate.checks import agreement

TOKEN = 409_600
"""Bytes of a token in the layers of HALF that keep all tokens, and as many in those that keep a window."""
WINDOW = 100
HALF = {
    "model_type": "gemma2",
    "num_hidden_layers": 40,
    "hidden_size": 5120,
    "num_attention_heads": 40,
    "num_key_value_heads": 40,
    "head_dim": 128,
    "intermediate_size": 9000,
    "vocab_size": 32_000,
    "max_position_embeddings": 4096,
    "sliding_window": WINDOW,
    "torch_dtype": "float16",
}
"""LLaMA-2-13B with a window in every second layer."""
HYBRID = {
    "model_type": "qwen3_next",
    "num_hidden_layers": 40,
    "hidden_size": 5120,
    "intermediate_size": 5120,
    "num_attention_heads": 40,
    "num_key_value_heads": 40,
    "head_dim": 128,
    "vocab_size": 32_000,
    "max_position_embeddings": 4096,
    "full_attention_interval": 2,
    "linear_conv_kernel_dim": 4,
    "linear_key_head_dim": 128,
    "linear_value_head_dim": 128,
    "linear_num_key_heads": 16,
    "linear_num_value_heads": 32,
    "num_experts": 16,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 512,
    "shared_expert_intermediate_size": 512,
}
"""20 layers that keep all tokens, and 20 of gated delta networks."""
STATE = 20 * (3 * (2 * 16 * 128 + 32 * 128) * 2 + 32 * 128 * 128 * 4)
PLAIN = ("store.load=always", "store.eviction=lru", "store.prefetch=none", "warmup_turns=0", "store.ssd=0GB")


@pytest.fixture
def half(tmp_path):
    """The setting that names the model."""
    (tmp_path / "config.json").write_text(json.dumps(HALF))
    return f"model={tmp_path / 'config.json'}"


@pytest.fixture
def hybrid(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(HYBRID))
    return f"model={tmp_path / 'config.json'}"


def bytes_of(tokens):
    return TOKEN * (tokens + min(tokens, WINDOW))


# --- bytes ------------------------------------------------------------------------------------------------------------------------

FOOTPRINTS = st.builds(
    kept_as,
    st.integers(1, 10**6),
    st.dictionaries(st.integers(1, 5000), st.integers(1, 10**6), max_size=3).map(lambda found: tuple(sorted(found.items()))),
    st.sampled_from([0, 0, 10**7]),
)
TOKENS = st.integers(0, 200_000)


@given(FOOTPRINTS, TOKENS, TOKENS)
def test_tokens_and_bytes_are_each_others_inverse(footprint, one, other):
    assert footprint.tokens_in(footprint.of(one)) == one
    assert footprint.tokens_in(footprint.of(one) + footprint.per_token - 1) == one
    assert (footprint.of(one) < footprint.of(other)) == (one < other)
    fewer, more = sorted((one, other))
    grown = footprint.grown(footprint.of(fewer), footprint.of(more))
    assert footprint.of(more) - footprint.of(fewer) <= grown == footprint.of(more - fewer), "windows that move on are written again"


@given(FOOTPRINTS, TOKENS, TOKENS, TOKENS)
def test_what_remains_of_a_session(footprint, tokens, cut, stop):
    whole = footprint.of(tokens)
    left = max(0, tokens - cut) if not (cut and footprint.state) else 0
    assert footprint.rest(whole, footprint.of(cut), None) == footprint.of(left), "the oldest went, the windows stay"
    ends_sooner = footprint.rest(whole, 0, footprint.of(stop))
    lies_in_windows = not footprint.state and (not footprint.windows or tokens <= footprint.windows[0][0])
    assert ends_sooner == (whole if stop >= tokens else footprint.of(stop) if lies_in_windows else 0)


@given(st.integers(1, 10**6), st.integers(0, 10**9), st.integers(0, 10**9))
def test_without_windows_all_is_linear(rate, one, other):
    footprint = Footprint(rate)
    assert (footprint.of(one), footprint.tokens_in(one), footprint.among(one, 7.5)) == (rate * one, one // rate, one // rate)
    for kept in (footprint, PROPORTIONAL):
        assert kept.grown(one, other) == other - one
        assert kept.rest(one, other, None) == max(0, one - other) and kept.rest(one, 0, other) == min(one, other)


@given(FOOTPRINTS, st.lists(TOKENS, min_size=1, max_size=5))
def test_arrays_are_taken_alike(footprint, tokens):
    assert footprint.of(np.array(tokens)).tolist() == [footprint.of(each) for each in tokens]


@given(TOKENS, st.integers(1, 300), st.integers(1, 400))
def test_pairs_of_a_window_are_their_sum(before, steps, window):
    found = attended(before + steps, window) - attended(before, window)
    assert found == sum(min(position, window) for position in range(before + 1, before + steps + 1))
    footprint = Checkpoint(1, ((window, 3),))
    assert footprint.window_reads(before, steps) == 3 * found


@pytest.mark.parametrize("model", ["gemma-2-9b", "gemma-2-27b", "mistral-7b", "llama-3.1-8b", "deepseek-v3"])
@pytest.mark.parametrize("tokens", [1, 100, 4095, 4096, 4097, 8192])
def test_footprints_are_the_sums_over_layers(model, tokens):
    entry = catalogue.load("model", model)
    for keeps in ("windowed", "every-token"):
        assert kvsize.footprint(entry, keeps).of(tokens) == kvsize.kv_bytes(entry, tokens, keeps)
    assert kvsize.hbm_footprint(entry, 1).of(tokens) == kvsize.kv_bytes(entry, tokens)


def test_jobs_in_hbm_keep_windows_whatever_the_store_does(half):
    windowed, every = (resolve(config.load(None, [half, *more])) for more in ([], ["store.windows=every-token"]))
    assert windowed.stored(1000) == windowed.in_hbm(1000) == bytes_of(1000) == every.in_hbm(1000)
    assert every.stored(1000) == 2 * TOKEN * 1000 and windowed.steps == every.steps


# --- steps ------------------------------------------------------------------------------------------------------------------------

STEPS = StepTime(2, 1e-3, 1e-5, 1e-9, 1e-8, 1e-8, windows=(Window(100, 2e-9, 3e-8),), per_window_byte=1e-12)


def test_prefill_attends_to_windows_by_hand():
    pairs = sum(min(position, 100) for position in range(251, 261))
    plain = StepTime(2, 1e-3, 1e-5, 1e-9, 1e-8, 1e-8)
    assert STEPS.prefill(10, 250) == pytest.approx(plain.prefill(10, 250) + 2e-9 * pairs + 3e-8 * 100)
    assert STEPS.step([(10, 250)], 3, 900, 7000) == pytest.approx(STEPS.prefill(10, 250) + 3e-5 + 9e-6 + 7e-9)


def test_runs_of_steps_with_windows_have_a_closed_form():
    steps = [STEPS.decode(3, 900 + 3 * step, 1, 10**9) for step in range(50)]
    assert STEPS.decode(3, 900, 50, 10**9) == pytest.approx(sum(steps))
    assert STEPS.steps_until(3, 900, sum(steps), 10**9) in (50, 51)
    assert STEPS.times(2.0).decode(3, 900, 5, 10**9) == pytest.approx(2 * STEPS.decode(3, 900, 5, 10**9))
    assert STEPS.times(2.0).prefill(10, 250) == pytest.approx(2 * STEPS.prefill(10, 250))


# --- a run by hand ----------------------------------------------------------------------------------------------------------------

TWO_TURNS = [[(1000, 50), (100, 30)], [(1, 1)]]
"""A session that goes on, and one that comes when all is done."""


def run(half, table, *overrides):
    return simulate(config.load(None, [half, *PLAIN, *overrides]), table).summary


def test_two_turns_with_a_window(half, workload):
    table = workload(TWO_TURNS, arrivals=[0, 99], gap_s=10.0)
    summary = run(half, table, "store.read_buffer_layers=0")
    assert summary["links"]["host_to_device"]["bytes"] == bytes_of(1050) == TOKEN * 1150
    last = bytes_of(1)
    saved = bytes_of(1050) + bytes_of(130)  # 130 tokens more, of which the window keeps 100
    assert saved <= summary["links"]["device_to_host"]["bytes"] == summary["tiers"]["dram"]["written_bytes"] <= saved + 2 * last
    assert bytes_of(1180) <= summary["tiers"]["dram"]["peak_bytes"] <= bytes_of(1180) + 2 * last
    every = run(half, table, "store.windows=every-token")
    assert every["links"]["host_to_device"]["bytes"] == 2 * TOKEN * 1050
    assert 2 * TOKEN * 1180 <= every["tiers"]["dram"]["written_bytes"] <= 2 * TOKEN * 1182


def test_saving_at_once_copies_a_window_twice(half, workload):
    """After the prefill its own, after the answer what that put in its place."""
    summary = run(half, workload([[(1000, 50)], [(1, 1)]], arrivals=[0, 99]), "store.save=sync")
    copied = bytes_of(1000) + bytes_of(50)
    assert copied <= summary["links"]["device_to_host"]["bytes"] <= copied + 3 * bytes_of(1)


@pytest.mark.parametrize(("kept", "first", "found"), [(1050, 1000, 1050), (1000, 1000, 0), (40, 40, 40), (60, 40, 60)])
def test_a_history_that_is_edited_has_no_window(half, kept, first, found):
    """Unless all of the session lies within it: 40 and 50 tokens do."""
    table = untimed([0, 0], [first, 10], [50, 10]).with_times(np.zeros(1), np.full(2, 10.0))
    table = table.__class__(**{**vars(table), "dropped_tokens": np.array([0, first + 50 - kept])})
    result = simulate(config.load(None, [half, *PLAIN]), table)
    assert result.columns["cached_tokens"].tolist() == [0, found]


def test_a_history_that_loses_its_oldest_tokens_keeps_its_window(half, workload):
    table = workload([[(1000, 50), (100, 30)]], gap_s=10.0)
    result = simulate(config.load(None, [half, *PLAIN, "deployment.window_tokens=1100"]), table)
    assert result.columns["cached_tokens"].tolist() == [0, 525] and result.columns["history_tokens"].tolist() == [0, 525]
    assert result.summary["links"]["host_to_device"]["bytes"] == bytes_of(525)


def test_a_fetch_that_is_broken_off_brings_nothing(half):
    few = ["workload.sessions=80", "workload.arrival.rate_per_s=3", "store.dram=4GB", "store.ssd=60GB", "store.load=always"]
    found = {}
    for keeps in ("windowed", "every-token"):
        result = simulate(config.load(None, [half, *few, "store.prefetch=best-effort", f"store.windows={keeps}"]))
        short = result.columns["cached_tokens"] < result.columns["history_tokens"]
        found[keeps] = int((short & (result.columns["cached_tokens"] > 0)).sum())
    assert found["every-token"] > found["windowed"]


@pytest.mark.parametrize("family", ["DRAM and SSD; more", "DRAM and SSD, prefetching; clients", "DRAM and SSD; connectors"])
def test_engine_and_reference_agree_on_windows(half, family):
    happened = 0
    for seed in range(6):
        loaded, table = agreement.random_case(family, seed)
        found, seen = agreement.compare(config.load(loaded, [half]), table)
        assert found == [], seed
        happened += seen["turns that drop history"]
    assert happened


def test_engine_and_reference_agree_on_older_copies_that_outlive_a_newer_one(half):
    """In SSD, when an edit leaves the copy in DRAM without its windows."""
    loaded, table = agreement.random_case("DRAM and SSD; more", 55)
    found, seen = agreement.compare(config.load(loaded, [half]), table)
    assert found == [] and seen["older copies that outlive a newer one"]


# --- states -----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "per_token", "state"),
    [("qwen3-next-80b-a3b", 24_576, 77_266_944), ("qwen3.5-35b-a3b", 20_480, 64_389_120), ("nemotron-3-nano-30b-a3b", 6_144, None)],
)
def test_a_hybrid_is_simulated(model, per_token, state):
    entry = catalogue.load("model", model)
    found = kvsize.footprint(entry, "windowed")
    assert found.per_token == per_token and found.state == kvsize.kv_bytes(entry, 0) == (state or found.state) > 0
    assert found.of(0) == 0 and [found.of(tokens) for tokens in (1, 9000)] == [kvsize.kv_bytes(entry, tokens) for tokens in (1, 9000)]


def test_two_turns_with_a_state(hybrid, workload):
    """Each save writes the state anew, in the place of the one before; a load brings one; each step of a job reads and writes its own."""
    result = simulate(config.load(None, [hybrid, *PLAIN, "store.read_buffer_layers=0"]), workload(TWO_TURNS, arrivals=[0, 99], gap_s=10.0))
    links = result.summary["links"]
    assert links["host_to_device"]["bytes"] == TOKEN * 1050 + STATE
    least = TOKEN * 1180 + 2 * STATE
    assert least <= links["device_to_host"]["bytes"] == result.summary["tiers"]["dram"]["written_bytes"] <= least + 2 * TOKEN + STATE
    deployment = resolve(config.load(None, [hybrid]))
    assert deployment.window_bytes(np.array([1050]), np.array([30])) == 2 * STATE
    assert deployment.in_hbm(1050) == TOKEN * 1050 + STATE


@pytest.mark.parametrize("setting", ["deployment.window_tokens=1100", "seed=2"])
def test_a_state_is_lost_with_its_history(hybrid, setting):
    """When the oldest tokens are cut off, and when the newest are edited away; else it is found."""
    table = untimed([0, 0], [1000, 100], [50, 30]).with_times(np.zeros(1), np.full(2, 10.0))
    for dropped, lost in ((0, setting != "seed=2"), (1, True)):
        one = table.__class__(**{**vars(table), "dropped_tokens": np.array([0, dropped])})
        result = simulate(config.load(None, [hybrid, *PLAIN, setting]), one)
        assert (result.columns["cached_tokens"][1] == 0) == lost


def test_engine_and_reference_agree_on_states(hybrid):
    for seed in range(6):
        loaded, table = agreement.random_case("DRAM and SSD, prefetching; more", seed)
        assert agreement.compare(config.load(loaded, [hybrid, "store.kv_dtype=null"]), table)[0] == [], seed


def test_states_have_a_precision_of_their_own(hybrid):
    with pytest.raises(ConfigError, match="keeps states"):
        resolve(config.load(None, [hybrid, "store.kv_dtype=fp8"]))
    narrow = resolve(config.load(None, [hybrid, "deployment.kv_dtype=fp8"]))
    assert narrow.stored(1000) == TOKEN // 2 * 1000 + STATE


# --- what is said, and what is refused --------------------------------------------------------------------------------------------


def test_a_model_of_windows_alone_keeps_every_token():
    deployment = resolve(config.load(None, ["model=mistral-7b", "deployment.gpus=1"]))
    assert not deployment.kv.windows and deployment.hbm_kv.per_token == 0
    with pytest.raises(ConfigError, match="every layer of mistral-7b has a window"):
        resolve(config.load(None, ["model=mistral-7b", "store.windows=windowed"]))


H100 = ("hardware=h100-80g-x8", "prices=rent-2026")


def test_hbm_of_even_copies_takes_so_many():
    deployment = resolve(config.load(None, ["model=gemma-2-9b", *H100, "store.hbm=1GB"]))
    assert deployment.tiers[0].copies == deployment.in_hbm(8000) / deployment.stored(8000)


def test_hbm_of_uneven_copies_counts_itself_or_is_refused():
    """Two KV heads over eight ranks are held four times, states once: HBM takes no fixed share of what DRAM takes."""
    hybrid = ["model=qwen3-next-80b-a3b", *H100]
    alone = resolve(config.load(None, [*hybrid, "store.hbm=1GB", "store.dram=0GB", "store.ssd=0GB"]))
    assert alone.kv == alone.hbm_kv and (alone.tiers[0].copies, alone.tiers[0].size) == (1.0, 10**9)
    assert alone.kv.per_token == 4 * 24_576 and alone.kv.state == 77_266_944
    with pytest.raises(ConfigError, match="ranks hold more copies"):
        resolve(config.load(None, [*hybrid, "store.hbm=1GB"]))
    assert resolve(config.load(None, hybrid)).kv.per_token == 24_576


def test_results_say_what_a_store_keeps_for_nothing(half):
    few = ["workload.sessions=3"]
    windowed, every = (simulate(config.load(None, [half, *few, *more])).summary["warnings"] for more in ([], ["store.windows=every-token"]))
    assert not any("attend to" in line for line in windowed)
    assert any("20 of 40 layers attend to 100 tokens at most; the store keeps" in line for line in every)


def test_explain_counts_windows(half):
    loaded = config.load(None, [half, "workload.sessions=100"])
    table = build_workload(loaded)
    found = explain(loaded, resolve(loaded, table), table)
    model = found["model"]
    assert (model["kv_bytes_per_token"], model["kv_bytes_of_windows"]) == (TOKEN, TOKEN * WINDOW)
    assert model["kv_bytes_at_full_window"] == bytes_of(4096)
    last = table.first_turn[1:] - 1
    context = np.minimum(table.history_tokens + table.prompt_tokens + table.output_tokens, 4096)[last]
    assert found["turn"]["session_bytes"] <= TOKEN * (context + np.minimum(context, WINDOW)).mean()
    assert found["hbm"]["jobs_at_full_window"] == pytest.approx(min(24, found["hbm"]["kv_bytes"] / bytes_of(4096)), rel=1e-3)


def test_describe_counts_what_a_store_keeps(half, capsys):
    said = {}
    for keeps in ("windowed", "every-token"):
        describe([half, "workload.sessions=30", f"store.windows={keeps}"], 3600.0, True, None)
        said[keeps] = json.loads(capsys.readouterr().out)
    kv = said["windowed"]["kv"]
    assert (kv["bytes_per_token"], kv["bytes_of_windows"]) == (TOKEN, TOKEN * WINDOW) and "left_out" not in kv
    assert said["windowed"]["ttl"]["ccps_bytes"] == bytes_of(4096) and said["every-token"]["ttl"]["ccps_bytes"] == 2 * TOKEN * 4096
    assert "20 of 40 layers attend to 100 tokens" in said["every-token"]["kv"]["left_out"][0]
    assert said["windowed"]["reuse"]["distance_bytes"]["max"] < said["every-token"]["reuse"]["distance_bytes"]["max"]
