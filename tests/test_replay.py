"""Traces in the simulator: loops, edited contexts, windows, and rescaled or resampled workloads."""

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvplan.sim import config
from kvplan.sim.build_workload import build_workload
from kvplan.sim.rng import stream
from kvplan.sim.simulation import simulate
from kvplan.traces import TraceError, rescale
from kvplan.traces.workload import untimed

MOONCAKE = """{"timestamp": 0, "input_length": 600, "output_length": 30, "hash_ids": [1, 2]}
{"timestamp": 100, "input_length": 700, "output_length": 30, "hash_ids": [5, 6]}
{"timestamp": 9000, "input_length": 800, "output_length": 50, "hash_ids": [1, 3]}
"""


def put(tmp_path, text, name="trace.jsonl"):
    path = tmp_path / name
    path.write_text(text)
    return path


def loaded(path, *overrides):
    return config.load(None, [f"workload.trace='{path}'", *overrides])


def test_a_timed_trace_is_replayed_open_unless_asked_otherwise(tmp_path):
    path = put(tmp_path, MOONCAKE)
    recorded, closed = build_workload(loaded(path)), build_workload(loaded(path, "workload.loop=closed"))
    assert recorded.open_loop and not closed.open_loop
    result = simulate(loaded(path), recorded)
    assert result.columns["arrival_s"].tolist() == [0, 9, 0.1]
    assert simulate(loaded(path), closed).columns["arrival_s"][1] > 9
    assert result.summary["provenance"]["loop"] == "open"


def test_a_trace_without_times_cannot_be_replayed_open(tmp_path):
    path = put(tmp_path, '{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}\n')
    with pytest.raises(TraceError, match="replay it closed"):
        build_workload(loaded(path, "workload.loop=open"))
    assert build_workload(loaded(path)).origin["drawn"] == "arrivals"


def test_think_times_of_a_trace_are_kept(tmp_path):
    path = put(
        tmp_path,
        '{"session_id": "a", "turns": [{"input_length": 9, "output_length": 5}, {"input_length": 9, "delay": 7000, "output_length": 5}]}',
    )
    table = build_workload(loaded(path))
    assert table.gap_s.tolist() == [0, 7] and table.origin["drawn"] == "arrivals"


def test_think_times_that_are_missing_are_drawn_and_the_others_kept(tmp_path):
    turns = [
        {"input_length": 9, "output_length": 5},
        {"input_length": 9, "output_length": 5},
        {"input_length": 9, "delay": 7000, "output_length": 5},
    ]
    path = put(tmp_path, json.dumps({"session_id": "a", "turns": turns}))
    table = build_workload(loaded(path, "workload.think_time={distribution: constant, value_s: 3}"))
    assert table.gap_s.tolist() == [0, 3, 7] and table.origin["drawn"] == "arrivals and 1 of 2 think times"


def test_recorded_times_stand_for_missing_think_times(tmp_path):
    text = "session,prompt_tokens,output_tokens,arrival_s,gap_s\na,5,5,0,\na,5,5,50,40\na,5,5,80,\n"
    table = build_workload(loaded(put(tmp_path, text, "t.csv")))
    assert table.gap_s.tolist() == [0, 40, 30] and "for 1 of 2 turns: answers included" in table.origin["think_times"]


def test_a_rate_needs_times(tmp_path):
    path = put(tmp_path, '{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}\n')
    with pytest.raises(TraceError, match="no times to rescale"):
        build_workload(loaded(path, "workload.rescale.rate=2"), timed=False)
    assert build_workload(loaded(path, "workload.rescale.rate=2")).arrivals_known


def test_an_answer_longer_than_the_window_is_refused_or_left_out(tmp_path):
    path = put(tmp_path, MOONCAKE.replace('"output_length": 50', '"output_length": 4096'))
    with pytest.raises(TraceError, match=r"record 3 .*answer of 4,096 tokens does not fit .* window of llama-2-13b, 4,096"):
        build_workload(loaded(path))
    table = build_workload(loaded(path, "workload.skip_bad=true"))
    assert table.sessions == 1 and table.origin["left_out"] == {"sessions_with_an_answer_longer_than_the_window": 1}
    assert build_workload(loaded(path), any_length=True).sessions == 2


# --- edited contexts --------------------------------------------------------------------------------------------------------------


def test_an_edited_context_hits_what_it_kept(workload):
    table = replace(workload([[(1000, 200), (50, 10)]], gap_s=5.0), dropped_tokens=np.array([0, 300]))
    assert table.history_tokens.tolist() == [0, 900] and table.session_tokens.tolist() == [1200]
    columns = simulate(config.load(), table).columns
    assert columns["history_tokens"].tolist() == [0, 900] and columns["cached_tokens"].tolist() == [0, 900]
    everything = replace(table, dropped_tokens=np.array([0, 1200]))
    assert simulate(config.load(), everything).columns["cached_tokens"].tolist() == [0, 0]


def test_a_tier_that_was_empty_until_the_end_holds_no_less_than_nothing():
    """Both answers end with the last step, when their KV is saved: rounding had left -1e-6."""
    table = untimed((0, 1), (1, 203), (106, 106)).with_times(np.sort(stream(92, "t").random(2) * 60), np.full(2, 2.0))
    assert simulate(config.load(), table).summary["tiers"]["dram"]["mean_bytes"] == 0.0


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_edited_contexts_keep_every_invariant(data):
    """Under guards: whatever is dropped, in whatever tiers, hits serve exactly what was saved and still wanted."""
    count = data.draw(st.integers(2, 12))
    rows = [
        (s, *data.draw(st.tuples(st.integers(1, 3000), st.integers(1, 800))))
        for s in range(count)
        for _ in range(data.draw(st.integers(1, 5)))
    ]
    session, prompt, output = zip(*rows, strict=True)
    table = untimed(session, prompt, output).with_times(
        np.sort(stream(data.draw(st.integers(0, 99)), "t").random(count) * 60), np.full(len(rows), 2.0)
    )
    dropped, context = [], 0
    for turn, first in enumerate(table.is_first):
        dropped.append(0 if first else data.draw(st.integers(0, context)))
        context = (0 if first else context - dropped[-1]) + prompt[turn] + output[turn]
    table = replace(table, dropped_tokens=np.array(dropped))
    stores = (
        ["store.dram=8GB", "store.ssd=30GB"],
        ["store.ssd_write=whole"],
        ["store.positions=embedded"],
        ["store.hbm=9GB", "store.dram=9GB"],
        [],
    )
    chosen = data.draw(st.sampled_from(stores))
    columns = simulate(config.load(None, chosen), table).columns
    assert np.all(columns["cached_tokens"] <= columns["history_tokens"])
    assert np.all(columns["history_tokens"] <= np.maximum(table.history_tokens, 0))


def test_what_is_dropped_must_have_been_there(workload):
    with pytest.raises(TraceError, match="dropped_tokens"):
        replace(workload([[(10, 10), (5, 5)]]), dropped_tokens=np.array([0, 21]))


# --- rescaled and resampled -------------------------------------------------------------------------------------------------------


@pytest.fixture
def open_trace():
    """100 sessions of one to three turns over 1,000 s, at recorded times."""
    rng = stream(5, "test")
    turns = rng.integers(1, 4, 100)
    session = np.repeat(np.arange(100), turns)
    starts = np.sort(rng.random(100)) * 1000
    within = np.arange(len(session)) - (np.cumsum(turns) - turns)[session]
    table = untimed(session, rng.integers(10, 90, len(session)), rng.integers(10, 90, len(session)))
    return replace(table, arrival_s=starts[session] + 7.0 * within, open_loop=True)


def gaps(table):
    return np.diff(table.arrival_s)[~table.is_first[1:]]


def test_a_faster_rate_moves_sessions_and_not_their_turns(open_trace):
    fast = rescale.scaled_rate(open_trace, 4)
    first = open_trace.is_first
    assert np.allclose(fast.arrival_s[first], open_trace.arrival_s[first] / 4) and np.allclose(gaps(fast), 7)


def test_more_sessions_in_the_same_time(open_trace):
    more = rescale.scaled_sessions(open_trace, 3, stream(1, "x"))
    starts = more.arrival_s[more.is_first]
    assert more.sessions == 300 and np.allclose(gaps(more), 7)
    assert starts.max() < 1020 and abs(np.median(starts) - np.median(open_trace.arrival_s)) < 100
    fewer = rescale.scaled_sessions(open_trace, 0.25, stream(1, "x"))
    assert fewer.sessions == 25 and set(fewer.prompt_tokens) <= set(open_trace.prompt_tokens)


def test_longer_contexts(open_trace):
    long = rescale.scaled_context(open_trace, 1.5)
    assert np.allclose(long.prompt_tokens, open_trace.prompt_tokens * 1.5, atol=0.51)
    edited = replace(open_trace, dropped_tokens=np.where(open_trace.is_first, 0, open_trace.history_tokens // 2))
    again = rescale.scaled_context(edited, 2)
    assert np.allclose(again.history_tokens, edited.history_tokens * 2, atol=2)


def test_resampling_makes_a_run_longer_and_keeps_what_sessions_are(open_trace):
    long = rescale.resampled(open_trace, 5000, stream(1, "x"))
    assert long.sessions == 5000 and np.allclose(gaps(long), 7)
    assert np.diff(long.first_turn).mean() == pytest.approx(np.diff(open_trace.first_turn).mean(), abs=0.05)
    starts = long.arrival_s[long.is_first]
    assert np.all(np.diff(starts) >= 0) and starts[-1] == pytest.approx(50 * 1000, rel=0.03)


def test_rescaling_by_configuration_is_in_the_provenance(small):
    table = build_workload(small("workload.rescale.sessions=2", "workload.rescale.context=1.5", "workload.rescale.rate=3"))
    assert table.sessions == 120 and table.origin["rescaled"] == {"sessions": 2.0, "context": 1.5, "rate": 3.0}
    assert build_workload(small("workload.rescale.resample=500")).sessions == 500


def test_nothing_is_left_of_too_few_sessions(open_trace):
    with pytest.raises(TraceError, match="leaves none"):
        rescale.scaled_sessions(open_trace, 1e-4, stream(1, "x"))
    with pytest.raises(TraceError, match="message of"):
        rescale.scaled_context(open_trace, 1e8)


def test_selected_sessions_take_everything_along(open_trace):
    from kvplan.traces.workload import Blocks

    first = np.arange(open_trace.turns + 1) * 2
    table = replace(
        open_trace,
        tenant=np.array([f"t{i}" for i in range(100)]),
        blocks=Blocks(16, first, np.arange(first[-1])),
        record=np.arange(open_trace.turns),
    )
    picked = table.select(np.array([7, 3, 7]))
    rows = np.concatenate([np.arange(*table.first_turn[s : s + 2]) for s in (7, 3, 7)])
    assert picked.record.tolist() == rows.tolist() and picked.tenant.tolist() == ["t7", "t3", "t7"]
    ids = np.stack([2 * rows, 2 * rows + 1], 1).ravel()
    once = len(ids) - 2 * len(range(*table.first_turn[7:9]))
    assert picked.blocks.ids[:once].tolist() == ids[:once].tolist()
    assert not np.isin(picked.blocks.ids[once:], ids).any(), "the second time it is another session, with blocks of its own"
    assert picked.session.max() == 2


# --- generators, by configuration -------------------------------------------------------------------------------------------------

GENERATED = {
    "gamma": ["workload.arrival.process=gamma", "workload.arrival.cv=3"],
    "diurnal": ["workload.arrival.process=diurnal", "workload.arrival.amplitude=0.8", "workload.arrival.period_s=3600"],
    "curve": ["workload.arrival={process: curve, points: [[0, 0.1], [300, 2], [600, 0.1]]}"],
    "agentic gaps": ["workload.think_time={distribution: empirical, table: agentic-gaps}"],
    "exponential": ["workload.think_time={distribution: exponential, mean_s: 9}"],
    "synthetic": [
        "workload.kind=synthetic",
        "workload.turns={distribution: constant, value: 3}",
        "workload.prompt_tokens={distribution: constant, value: 70}",
    ],
    "quantiles": ["workload.kind=synthetic", "workload.output_tokens={distribution: empirical, points: [[0, 10], [0.5, 100], [1, 900]]}"],
    "system prompt": ["workload.system_prompt_tokens=500"],
    "tenants": ["workload.tenants={free: 3, pro: 1}"],
}


@pytest.mark.parametrize("name", GENERATED)
def test_generators_by_configuration(small, name, tmp_path):
    settings_ = small(*GENERATED[name])
    result = simulate(settings_)
    assert result.summary["sessions"] == 60 and result.summary["provenance"]["loop"] == "closed"
    assert config.validated(settings_.resolved()) == settings_
    with pytest.raises(config.ConfigError):
        small("workload.kind=synthetic", "workload.turns={distribution: empirical, points: [[0, 1], [1, 0]]}")


def test_what_is_asked_for_is_generated(small):
    synthetic = build_workload(small(*GENERATED["synthetic"]))
    assert np.all(np.diff(synthetic.first_turn) == 3) and np.all(synthetic.prompt_tokens == 70)
    plain, longer = build_workload(small()), build_workload(small("workload.system_prompt_tokens=500"))
    assert np.array_equal(longer.prompt_tokens - plain.prompt_tokens, np.where(plain.is_first, 500, 0))
    assert set(build_workload(small(*GENERATED["tenants"])).tenant) == {"free", "pro"}


def test_arrivals_of_another_trace_are_replayed(small, tmp_path):
    log = put(
        tmp_path, "TIMESTAMP,ContextTokens,GeneratedTokens\n" + "".join(f"2023-11-16 18:15:{s:02d},9,9\n" for s in (1, 4, 5)), "azure.csv"
    )
    table = build_workload(small(f"workload.arrival={{process: replayed, trace: '{log}'}}", "workload.sessions=5"))
    assert table.arrival_s[table.is_first].tolist() == [0, 3, 4, 6, 9]
    untimed_log = put(tmp_path, '{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}\n')
    with pytest.raises(TraceError):
        build_workload(small(f"workload.arrival={{process: replayed, trace: '{untimed_log}'}}"))
