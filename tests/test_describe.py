"""`kvplan trace`: reuse distances against brute force, the description, and the commands."""

import json
import os
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from kvplan import traces
from kvplan.sim import config
from kvplan.sim.build_workload import build_workload
from kvplan.sim.cli.app import app
from kvplan.sim.report.trace import description, words
from kvplan.traces.context import contexts
from kvplan.traces.describe import describe
from kvplan.traces.reuse import Accesses, accesses, active, stack_distances


def run(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def _accesses(sessions, sizes, times=None):
    sessions = np.array(sessions)
    times = np.arange(len(sessions), dtype=float) if times is None else np.array(times)
    return Accesses(sessions, times, np.zeros(len(sessions)), np.zeros(len(sessions), int), np.array(sizes))


def test_stack_distances_by_hand():
    seen = _accesses([0, 1, 0, 2, 1, 0, 0], [5, 3, 7, 1, 4, 8, 9])
    #         0: new  1: new  0: 5+3   2: new  1: 3+7+1  0: 7+1+4  0: itself
    assert stack_distances(seen).tolist() == [-1, -1, 8, -1, 11, 12, 8]


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(1, 50)), min_size=1, max_size=60), st.integers(1, 200))
def test_stack_distances_are_what_an_lru_store_needs(turns, capacity):
    """Independent: a stack of sessions, most recent first, searched from the top."""
    seen = _accesses(*zip(*turns, strict=True))
    stack: list[tuple[int, int]] = []
    expected = []
    for session, size in turns:
        place = next((i for i, (other, _) in enumerate(stack) if other == session), None)
        expected.append(-1 if place is None else sum(held for _, held in stack[: place + 1]))
        if place is not None:
            del stack[place]
        stack.insert(0, (session, size))
    assert stack_distances(seen).tolist() == expected


@given(
    st.lists(st.tuples(st.integers(0, 5), st.integers(1, 9), st.floats(0, 100)), min_size=1, max_size=40),
    st.floats(0.5, 60),
)
def test_active_sessions_against_a_scan(turns, span):
    turns = sorted(turns, key=lambda turn: turn[2])
    sessions, sizes, times = zip(*turns, strict=True)
    most = held = 0
    for now in range(len(turns)):
        alive = {session: size for session, size, time in turns[: now + 1] if time + span >= times[now]}
        most, held = max(most, len(alive)), max(held, sum(alive.values()))
    assert active(_accesses(sessions, sizes, times), span) == (most, held)


@pytest.fixture
def generated():
    return build_workload(config.load(None, ["workload.sessions=400"]))


def test_the_description_adds_up(generated):
    found = describe(generated, 819_200, 4096, ttl_s=600)
    assert found["turns"] == generated.turns and found["resumed_turns"] == generated.turns - 400
    assert found["history_share"] == pytest.approx(
        generated.history_tokens.sum() / (generated.history_tokens.sum() + generated.prompt_tokens.sum())
    )
    assert sum(item["share"] for item in found["gap_histogram"]) == pytest.approx(1)
    curve = found["lru_curve"]
    assert curve[-1]["turn_hit_rate"] == pytest.approx(found["resumed_turns"] / found["turns"])
    assert curve[-1]["history_hit_rate"] == pytest.approx(1)
    assert all(a["capacity_bytes"] <= b["capacity_bytes"] for a, b in pairwise(curve))
    assert found["ttl"]["ccput_bytes"] == found["ttl"]["dsput"] * 4096 * 819_200
    assert found["ttl"]["held_bytes"] <= found["kv"]["all_bytes"]
    shares, prompts = found["reuse"]["token_hit_rate"], sum(contexts(generated, 4096)[:2])
    assert shares["max"] == pytest.approx(contexts(generated, 4096)[0].sum() / prompts.sum())
    assert 0 < shares["p10"] < shares["p50"] < shares["p90"] < shares["max"] < 1
    json.dumps(found, allow_nan=False)


def test_the_clockless_curve_is_what_the_simulator_does_with_a_roomy_machine(small):
    """The same turns through the engine, LRU in DRAM alone, almost no load: hits within what answers take in time."""
    settings = small("workload.sessions=150", "store.ssd=0GB", "store.dram=20GB", "store.eviction=lru", "store.prefetch=none",
                     "store.host_buffer=0", "workload.arrival.rate_per_s=0.02", "deployment.window_tokens=4096")  # fmt: skip
    table = build_workload(settings)
    seen = accesses(table, 819_200, 4096)
    distances = stack_distances(seen)
    clockless = np.mean((distances >= 0) & (distances <= 20e9))
    from kvplan.sim.simulation import simulate

    simulated = simulate(settings, table).summary["hit_rate"]["turns"]
    assert 0.2 < clockless < 0.85 < np.mean(distances >= 0) + 0.05
    assert simulated == pytest.approx(clockless, abs=0.04)


def test_words_say_whether_caching_can_pay(generated):
    found = describe(generated, 819_200, 4096)
    text = " ".join(words(found, "m"))
    assert "caching can pay" in text and "Half of the reuse comes within" in text and "DSpUT" in text
    single = generated.select(np.arange(3))
    alone = (
        describe(single.select(np.flatnonzero(np.diff(single.first_turn) == 1)[:1]), 819_200, 4096)
        if 1 in np.diff(single.first_turn)
        else None
    )
    if alone:
        assert "no store of sessions can hit" in " ".join(words(alone, "m")).lower()


@pytest.mark.parametrize("name", traces.known_formats())
def test_every_format_can_be_described_and_converted(tmp_path, name):
    path = tmp_path / "example"
    path.write_text(traces.known_formats()[name].EXAMPLE)
    shown = run("trace", "describe", path)
    assert shown.exit_code == 0 and "prefill work is history" in shown.stdout
    data = json.loads(run("trace", "describe", path, "--json").stdout)
    assert data["origin"]["format"] == name
    assert description(data, "m")
    out = tmp_path / "out.parquet"
    assert run("trace", "convert", path, out).exit_code == 0
    assert traces.read_trace(out).turns == data["turns"]


def test_generate_writes_what_simulate_would_replay(tmp_path):
    out = tmp_path / "day.csv"
    result = run("trace", "generate", out, "--set", "workload.sessions=30")
    assert result.exit_code == 0 and "30 sessions, closed loop" in result.stderr
    table, direct = traces.read_trace(out), build_workload(config.load(None, ["workload.sessions=30"]))
    assert np.array_equal(table.gap_s, direct.gap_s) and np.array_equal(table.prompt_tokens, direct.prompt_tokens)
    assert np.allclose(table.arrival_s[table.is_first], direct.arrival_s[direct.is_first] - direct.arrival_s[0])


def test_a_picture_is_drawn(tmp_path):
    picture = tmp_path / "d.png"
    assert run("trace", "describe", "--set", "workload.sessions=200", "--figure", picture).exit_code == 0
    assert picture.read_bytes().startswith(b"\x89PNG")


BAD = "session,prompt_tokens,output_tokens,gap_s\na,9,9,\na,9,9,-4\n"


@pytest.mark.parametrize("command", [["explain", "--trace"], ["explain", "--json", "--trace"], ["trace", "describe"], ["trace", "convert"]])
def test_what_was_left_out_is_said(tmp_path, command):
    path = tmp_path / "bad.csv"
    path.write_text(BAD)
    out = [str(tmp_path / "out.csv")] if command[-1] == "convert" else []
    result = CliRunner().invoke(app, [*command, str(path), *out, "--skip-bad"])
    assert result.exit_code == 0 and "bad" in result.output and "record 2" in result.output.replace("\n", " ")


def test_converting_obeys_the_settings_or_refuses(tmp_path):
    log, out = tmp_path / "log.csv", tmp_path / "out.csv"
    log.write_text(traces.known_formats()["burstgpt"].EXAMPLE)
    assert run("trace", "convert", log, out, "--set", "workload.loop=open").exit_code == 0
    assert traces.read_trace(out).open_loop
    log.write_text(BAD.replace("-4", "4"))
    refused = run("trace", "convert", log, out, "--set", "workload.rescale.rate=2")
    assert refused.exit_code == 2 and "no times to rescale" in refused.stderr


@pytest.mark.parametrize(
    "arguments", [["convert", "t.csv", "t.csv"], ["convert", ".", "new.csv"], ["describe", "p.png", "--figure", "p.png"]]
)
def test_a_trace_is_not_written_over(tmp_path, monkeypatch, arguments):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "t.csv").write_text(BAD)
    result = run("trace", *arguments)
    assert result.exit_code == 2 and "which is read" in result.stderr
    assert (tmp_path / "t.csv").read_text() == BAD and not (tmp_path / "new.csv").exists()


def test_the_suffix_is_checked_before_anything_is_read(tmp_path):
    result = run("trace", "convert", "/nothing", tmp_path / "x.txt")
    assert result.exit_code == 2 and result.stderr == f"kvplan: {tmp_path / 'x.txt'}: kvplan writes .parquet and .csv\n"


def test_sessions_per_hour_of_a_trace_of_ages():
    table = build_workload(config.load(None, ["workload.sessions=20", "workload.rescale.rate=1e-6"]))
    hours = describe(table, 1000, 4096)["sessions_per_hour"]
    assert hours["max"] >= 1 and hours["mean"] < 1


@pytest.mark.parametrize(
    ("arguments", "words_"),
    [
        (["describe", ""], "workload.trace"),
        (["describe", "--set", "workload.rescale.rate=1e-300"], "workload.rescale.rate"),
        (["describe", "/nothing"], "cannot read"),
        (["describe", "--format", "sharegpt"], "go with --trace"),
        (["describe", "--model", "gpt-9"], "unknown model"),
        (["describe", "--set", "workload.sessions=5", "--figure", "/proc/x/y.png"], "cannot write"),
        (["describe", "--ttl-s", "0"], "ttl-s"),
        (["convert", "/nothing", "/tmp/x.csv"], "cannot read"),
        (["generate", "/tmp/x.json", "--set", "workload.sessions=5"], "writes .parquet and .csv"),
        (["generate", "/tmp/x.csv", "papr-13b"], "did you mean"),
    ],
)
def test_bad_usage_gets_one_message(arguments, words_):
    result = run("trace", *arguments)
    assert result.exit_code == 2 and words_ in result.stderr and "Traceback" not in result.stderr and not result.stdout


def test_a_table_is_not_written_over_what_is_no_file(tmp_path):
    os.mkfifo(pipe := tmp_path / "pipe")
    result = run("trace", "generate", str(pipe))
    assert result.exit_code == 2 and "not a plain file" in result.stderr and pipe.is_fifo()
