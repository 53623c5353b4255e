"""A load test's client: runs by hand, what it promises whatever its settings, and what is said of it."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from kvplan.sim import config
from kvplan.sim.build_workload import build_workload
from kvplan.sim.cli.app import app
from kvplan.sim.deployment import resolve
from kvplan.sim.metrics import steadiness
from kvplan.sim.metrics.byturn import by_turn
from kvplan.sim.settings import unused
from kvplan.sim.simulation import simulate
from kvplan.traces import origin
from kvplan.traces.workload import untimed

BARE = ("warmup_turns=0", "store.dram=0GB", "store.ssd=0GB")
THREE = untimed([0, 0, 1, 1, 2], [100, 200, 300, 50, 400], [1] * 5)
"""Sessions A, B and C; answers of one token, so that a turn is a prefill, and the server is a queue."""
TIMES = ("ready_s", "arrival_s", "admitted_s", "done_s")


def run(table, *clients, others=()):
    loaded = config.load(None, [*BARE, *others, *(f"workload.clients.{setting}" for setting in clients)])
    return simulate(loaded, table), resolve(loaded, table).steps.prefill


def rows(result, turn: int) -> list[float]:
    return [float(result.columns[name][turn]) for name in TIMES]


# --- by hand ----------------------------------------------------------------------------------------------------------------------


def test_two_may_be_outstanding_of_three_sessions():
    result, prefill = run(THREE, "outstanding=2")
    a = prefill(100)
    b = a + prefill(300)
    c = b + prefill(400)
    d = c + prefill(301)  # A's second turn, recomputed
    e = d + prefill(351)
    assert rows(result, 0) == [0, 0, 0, a] and rows(result, 2) == [0, 0, a, b]
    assert rows(result, 4) == [0, a, b, c], "C is sent when A has its answer, before A's second turn"
    assert rows(result, 1) == [a, b, c, d] and rows(result, 3) == [b, c, d, e]
    summary = result.summary
    assert summary["ttft_s"]["mean"] == pytest.approx(np.mean([a, b, c - a, d - b, e - c])), "from when it is sent"
    assert summary["queue_s"]["mean"] == pytest.approx(np.mean([0, a, b - a, c - b, d - c]))
    assert summary["client_wait_s"]["mean"] == pytest.approx(np.mean([0, 0, a, b - a, c - b]))


def test_rounds():
    result, prefill = run(THREE, "outstanding=1", "barrier=true")
    first = np.cumsum([prefill(100), prefill(300), prefill(400)]).tolist()
    assert [rows(result, turn)[-1] for turn in (0, 2, 4)] == pytest.approx(first)
    end = rows(result, 4)[-1]
    assert [rows(result, turn)[0] for turn in (1, 3)] == [end, end] and rows(result, 3)[1] == rows(result, 1)[-1]


def test_a_pause_after_a_round_is_from_its_last_answer():
    result, _ = run(THREE, "outstanding=1", "barrier=true", "pause_s=10")
    assert [rows(result, turn)[0] for turn in (1, 3)] == [rows(result, 4)[-1] + 10] * 2


def test_a_pause_is_from_the_sessions_own_answer():
    result, _ = run(THREE, "pause_s=10")
    for turn in (0, 2):
        assert rows(result, turn + 1)[:2] == [rows(result, turn)[-1] + 10] * 2


def test_a_pace():
    result, _ = run(THREE, "rate_per_s=4")
    assert np.sort(result.columns["arrival_s"]).tolist() == [0, 0.25, 0.5, 0.75, 1.0]
    assert [rows(result, turn)[1] for turn in (0, 2, 4)] == [0, 0.25, 0.5], "first come, first sent"
    assert rows(result, 1)[1] == 0.75, "ready since its answer, and sent when the pace allows"


def test_active_sessions():
    result, _ = run(THREE, "active=1")
    assert np.argsort(result.columns["arrival_s"]).tolist() == [0, 1, 2, 3, 4], "one session after the other"
    assert result.summary["client_wait_s"]["max"] == 0 and rows(result, 4)[0] == rows(result, 3)[-1]


def test_all_at_once_is_what_arrivals_at_one_instant_are():
    table = untimed([0, 0, 0, 1, 1, 2], [900, 50, 60, 30, 700, 20], [30, 1, 9, 12, 40, 7])
    clients = simulate(config.load(None, ["workload.clients={}"]), table)
    alone = simulate(config.load(None), table.with_times(np.zeros(3), np.zeros(6)))
    for name, column in alone.columns.items():
        assert np.array_equal(column, clients.columns[name]), name


def test_one_client_sends_to_all_replicas():
    table = untimed(np.arange(6), [500] * 6, [20] * 6)
    result, _ = run(table, "outstanding=3", others=["deployment.replicas=2"])
    _, level = steadiness.outstanding(result.columns["arrival_s"], result.columns["done_s"])
    assert level.max() == 3 and {0, 1} == set(result.series["replica"].tolist())


def test_random_order_is_drawn_from_the_seed_and_is_even():
    table = untimed(np.arange(400), [10] * 400, [1] * 400)

    def order(seed: int) -> np.ndarray:
        sent_s = run(table, "outstanding=1", "order=random", others=[f"seed={seed}"])[0].columns["arrival_s"]
        return np.argsort(sent_s, kind="stable")

    assert np.array_equal(order(1), order(1)) and not np.array_equal(order(1), order(2))
    places = np.mean([np.argsort(order(seed)) for seed in range(20)], axis=0)
    assert abs(np.corrcoef(np.arange(400), places)[0, 1]) < 0.15
    assert order(1)[0] != 0


# --- whatever the settings --------------------------------------------------------------------------------------------------------


@settings(max_examples=60)
@given(st.data())
def test_the_guards_hold(data):
    """They look at the order, the pace, the rounds, and at how many turns are outstanding and sessions open (`guards.check_client`)."""
    turns = data.draw(st.lists(st.integers(1, 5), min_size=1, max_size=8))
    count = sum(turns)
    lengths = st.lists(st.integers(1, 900), min_size=count, max_size=count)
    table = untimed(np.repeat(np.arange(len(turns)), turns), data.draw(lengths), data.draw(lengths))
    barrier = data.draw(st.booleans())
    chosen = {
        "outstanding": data.draw(st.sampled_from([None, 1, 2, 5])),
        "active": None if barrier else data.draw(st.sampled_from([None, 1, 3])),
        "order": data.draw(st.sampled_from(["fifo", "random"])),
        "barrier": barrier,
        "rate_per_s": data.draw(st.sampled_from([None, 0.5, 20.0])),
        "pause_s": data.draw(st.sampled_from([0.0, 0.3, 7.0])),
    }
    replicas = data.draw(st.integers(1, 3))
    loaded = config.load(None, {"workload.clients": chosen, "deployment.replicas": replicas, "deployment.max_batch": 2})
    result = simulate(loaded, table)
    assert np.isfinite(result.columns["done_s"]).all()


# --- what is said -----------------------------------------------------------------------------------------------------------------


def kvplan(*arguments: str):
    return CliRunner().invoke(app, list(arguments))


SMALL = ("--set", "workload.sessions=30", "--set", "workload.clients.outstanding=4")


def test_what_a_run_prints():
    printed = kvplan("simulate", *SMALL, "--replications", "2")
    assert printed.exit_code == 0
    assert "(closed population of 4)" in printed.stdout and "loop" not in printed.stdout.splitlines()[0]
    assert "turn, from 0" in printed.stdout and "in the client on average" in printed.stdout
    assert "turn, from 0" not in kvplan("simulate", "--set", "workload.sessions=30", "--no-baseline").stdout


def test_a_summary_has_rows_by_turn_and_the_wait_of_both_runs():
    summary = json.loads(kvplan("simulate", *SMALL, "--json").stdout)
    assert summary["provenance"]["loop"] == summary["recompute"]["provenance"]["loop"] == "closed population of 4"
    for found in (summary, summary["recompute"]):
        assert sum(row["turns"] for row in found["by_turn"]) == found["turns"] and found["client_wait_s"]["mean"] > 0
        mean = sum(row["turns"] * row["ttft_s"]["mean"] for row in found["by_turn"]) / found["turns"]
        assert mean == pytest.approx(found["ttft_s"]["mean"])
    assert [row["turn"] for row in summary["by_turn"]] == list(range(len(summary["by_turn"])))
    assert summary["by_turn"][0]["hit_rate"] == {"turns": 0, "tokens": 0}
    assert {"workload.arrival", "workload.think_time"} <= set(summary["unused_settings"])
    assert "by_turn" in json.loads(kvplan("simulate", "--set", "workload.sessions=30", "--json", "--no-baseline").stdout)


def test_rows_by_turn_end_with_all_that_come_later():
    turn = np.append(np.arange(40), [0, 35])
    found = by_turn(turn, np.arange(42.0), np.where(turn, 1, 0), np.append(np.full(41, 4), 12))
    assert [row["turn"] for row in found] == list(range(33)) and [row["and_later"] for row in found] == [False] * 32 + [True]
    assert found[0] == {
        "turn": 0,
        "and_later": False,
        "turns": 2,
        "ttft_s": {"mean": 20, "p50": 20, "p95": pytest.approx(38)},
        "hit_rate": {"turns": 0, "tokens": 0},
    }
    assert found[-1]["turns"] == 9 and found[-1]["hit_rate"] == {"turns": 1, "tokens": 9 / 44}


def test_a_test_whose_sessions_run_out_is_said_to_be_short():
    table = untimed([0, 0, 1, 1, 1, 1, 1, 1, 1], [500] * 9, [50] * 9)
    assert any("sessions had run out" in warning for warning in run(table, "outstanding=2")[0].summary["warnings"])
    even = untimed(np.arange(20), [500] * 20, [50] * 20)
    assert not any("run out" in warning or "overloaded" in warning for warning in run(even, "outstanding=2")[0].summary["warnings"])
    assert any("20 sessions, each with one" in warning for warning in run(even, "outstanding=21")[0].summary["warnings"])


def test_times_of_a_trace_are_not_used_and_that_is_said(tmp_path):
    (tmp_path / "t.csv").write_text("session,prompt_tokens,output_tokens,arrival_s\n0,10,20,5\n0,10,20,500\n1,30,5,90\n")
    loaded = config.load(None, [f"workload.trace={tmp_path / 't.csv'}", "workload.clients.pause_s=3"])
    table = build_workload(loaded)
    assert table.arrival_s[[0, 2]].tolist() == [0, 0] and table.gap_s[1] == 3 and not table.open_loop
    assert {"workload.arrival", "workload.think_time", "workload.loop", "workload.rescale.rate"} <= set(unused(loaded, table))
    assert any("times of the source are not used" in note for note in origin.notes(table.origin))
    assert simulate(loaded).columns["arrival_s"].max() < 10


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["outstanding=0"], "workload.clients.outstanding: Input should be greater than or equal to 1"),
        (["outstanding=2.5"], "workload.clients.outstanding"),
        (["order=lifo"], "workload.clients.order: Input should be 'fifo' or 'random'"),
        (["rate_per_s=0"], "workload.clients.rate_per_s"),
        (["pause_s=-1"], "workload.clients.pause_s"),
        (["concurrency=4"], "unknown path 'workload.clients.concurrency'"),
        (["barrier=true", "active=2"], "take one of them"),
    ],
)
def test_bad_settings_are_refused(arguments, words):
    result = kvplan("simulate", *(part for setting in arguments for part in ("--set", f"workload.clients.{setting}")))
    assert result.exit_code == 2 and words in result.stderr and not result.stdout


@pytest.mark.parametrize("setting", ["steady=true", "loop=open", "rescale.rate=2", "rescale.think=3"])
def test_settings_of_when_sessions_come_are_refused_beside_clients(setting):
    result = kvplan("simulate", "--set", "workload.clients.outstanding=2", "--set", f"workload.{setting}")
    assert result.exit_code == 2 and f"{setting.partition('=')[0]} would say nothing" in result.stderr


@pytest.mark.parametrize(
    "command",
    [
        ["explain"],
        ["plan", "default", "--ttft-p95", "1s"],
        ["simulate", "--equal-service"],
        ["trace", "generate", "t.parquet"],
        ["trace", "describe", "t.csv"],
    ],
)
def test_what_needs_times_is_refused(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "t.csv").write_text("session,prompt_tokens,output_tokens\n0,10,20\n")
    result = kvplan(*command, *SMALL)
    assert result.exit_code == 2 and "workload.clients=null" in result.stderr and not result.stdout
    assert not (tmp_path / "t.parquet").exists()


def test_a_curve_has_no_clockless_line_and_says_why():
    sizes = ("--sizes", "2GB,4GB", "--policies", "lru", "--replications", "1", "--jobs", "1", "--set", "store.ssd=0GB")
    found = json.loads(kvplan("curve", *SMALL, *sizes, "--json").stdout)
    assert found["clockless"] == [] and any("no clockless LRU" in note for note in found["notes"])
    assert "no clockless LRU" in kvplan("curve", *SMALL, *sizes).stdout


def test_what_is_not_drawn_is_not_replicated():
    from kvplan.sim.sweep.runs import same_runs

    for order, same in (("fifo", True), ("random", False)):
        assert same_runs(config.load(None, [f"workload.clients.order={order}"]), THREE, THREE) is same


def test_settings_are_listed_and_can_be_varied():
    assert "workload.clients.outstanding" in kvplan("list", "settings").stdout
    vary = ["--vary", "workload.clients.outstanding=1,8", "--replications", "1", "--jobs", "1", "--set", "workload.sessions=30"]
    found = json.loads(kvplan("compare", *vary, "--metric", "makespan_s", "--json").stdout)
    assert len(found["variants"]) == 2 and not found["failures"]


# --- published tests --------------------------------------------------------------------------------------------------------------

BENCHMARKS = Path(__file__).resolve().parents[1] / "docs" / "benchmarks.md"
STORES = (
    ["store.hbm=15GB", "store.dram=0GB", "store.ssd=0GB"],
    ["store.dram=42GB", "store.ssd=0GB"],
    ["store.ssd=0GB"],
    [],
)
"""Of Mooncake's table, in its order: GPU, +L2, +pool, +SSD."""


def test_every_preset_of_a_load_test_is_explained_in_the_docs():
    for name in config.presets():
        clients = config.load(name).workload.clients
        assert (clients is not None) == name.startswith("bench-") == (f"kvplan simulate {name}\n" in BENCHMARKS.read_text(encoding="utf-8"))


@pytest.mark.parametrize("store", range(len(STORES)))
def test_mooncakes_rounds_are_what_the_docs_say(store):
    row = [line for line in BENCHMARKS.read_text(encoding="utf-8").splitlines() if line.startswith("| kvplan |")][store]
    summary = simulate(config.load("bench-mooncake-ssd", STORES[store])).summary
    hits = [f"{100 * found['hit_rate']['tokens']:.0f}" for found in summary["by_turn"][1:]]
    figures = [f"{summary['ttft_s']['mean']:.1f} s", f"{summary['context_tokens'] / summary['makespan_s']:,.0f}"]
    assert row.strip("| ").split(" | ")[1:] == hits + figures
