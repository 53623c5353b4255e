"""The first screen of `kvplan simulate`: differences with intervals, a default that does not lose, and runs that cannot be trusted."""

import json
import math
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from typer.testing import CliRunner

from kvplan.sim import config
from kvplan.sim.build_workload import build_workload
from kvplan.sim.cli.app import app
from kvplan.sim.metrics.intervals import intervals
from kvplan.sim.metrics.steadiness import Span, load_warnings, tier_warnings
from kvplan.sim.report import table
from kvplan.sim.report.compare_words import change
from kvplan.sim.simulation import simulate
from kvplan.sim.sweep.against import recomputation
from kvplan.sim.sweep.pool import pool
from kvplan.sim.sweep.runs import replicated
from kvplan.sim.sweep.stats import Ratio

SEEDS = (1, 2, 3)
PLACES = {
    "as it is": (),
    "small DRAM": ("store.dram=16GB",),
    "SSD alone": ("store.dram=0GB",),
    "busy": ("workload.arrival.rate_per_s=0.25",),
    "70B": ("model=llama-2-70b", "hardware=h100-80g-x8", "deployment.gpus=8", "prices=rent-2026"),
    "short prompts": (
        "workload.kind=synthetic",
        "workload.prompt_tokens={distribution: lognormal, median: 20, sigma: 0.5}",
        "workload.output_tokens={distribution: lognormal, median: 60, sigma: 0.5}",
    ),
}


@pytest.mark.parametrize("place", PLACES)
def test_the_defaults_make_a_store_no_worse_than_none(place):
    """Mean TTFT, prefill and its tail, over the seeds; within 2 %, for a store takes a little HBM and the seeds are few."""
    ratios: dict[tuple[str, str], float] = {}
    for seed in SEEDS:
        settings = config.load(None, ["workload.sessions=200", f"seed={seed}", *PLACES[place]])
        workload = build_workload(settings)
        ours, theirs = simulate(settings, workload).summary, simulate(settings.recompute(), workload).summary
        for key in (("ttft_s", "mean"), ("ttft_s", "p95"), ("prefill_s", "mean"), ("prefill_s", "p95")):
            one, other = (summary[key[0]][key[1]] for summary in (ours, theirs))
            ratios[key] = ratios.get(key, 0.0) + math.log(one / other) / len(SEEDS)
    assert max(ratios.values()) <= math.log(1.02), ratios


def test_the_papers_presets_alone_load_always_beside_engines_that_do():
    loads = {name: config.load(name) for name in config.presets()}
    always = {name: loaded.engine for name, loaded in loads.items() if loaded.store.load == "always"}
    assert {name for name, engine in always.items() if engine == "cachedattention"} == {"paper-13b", "paper-65b", "paper-70b"}


# --- differences ------------------------------------------------------------------------------------------------------------------


def simulated(*arguments: str) -> dict:
    """The summary that the command prints."""
    result = CliRunner().invoke(app, ["simulate", "--set", "workload.sessions=40", *arguments, "--json"])
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_a_difference_is_the_mean_log_ratio_over_paired_seeds():
    difference = simulated("--replications", "3")["recompute"]["difference"]
    assert difference["replications"] == len(set(difference["seeds"])) == 3
    logs, tails = [], []
    for seed in difference["seeds"]:
        settings = config.load(None, ["workload.sessions=40", f"seed={seed}"])
        one, other = (simulate(each).summary["ttft_s"]["p95"] for each in (settings, settings.recompute()))
        logs.append(math.log(one / other))
        tails.append(one)
    found = difference["ratio"]["ttft_s.p95"]
    half = 4.302653 * np.std(logs, ddof=1) / math.sqrt(3)  # Student's t with 2 degrees of freedom
    assert found["factor"] == pytest.approx(math.exp(np.mean(logs)))
    assert (found["low"], found["high"]) == pytest.approx((math.exp(np.mean(logs) - half), math.exp(np.mean(logs) + half)))
    assert difference["range"]["ttft_s.p95"]["this_run"] == [min(tails), max(tails)]


def test_a_trace_is_replayed_itself_and_then_drawn_from(tmp_path):
    turns = "".join(f"{session},{20 * session + 200 * turn},{300 + 10 * session},{50}\n" for session in range(12) for turn in range(3))
    (tmp_path / "t.csv").write_text("session,arrival_s,prompt_tokens,output_tokens\n" + turns)
    chosen = ("--trace", str(tmp_path / "t.csv"), "--replications", "2")
    summary = simulated(*chosen)
    assert summary["turns"] == 36 and summary["recompute"]["difference"]["replications"] == 2
    settings = config.load(None, [f"workload.trace={tmp_path / 't.csv'}"])
    again = replicated(settings, 1, 12)
    assert summary["recompute"]["difference"]["range"]["ttft_s.mean"]["recompute"] == sorted(
        simulate(each.recompute()).summary["ttft_s"]["mean"] for each in (settings, again)
    )


def test_what_is_not_drawn_at_random_has_one_replication_and_no_interval(tmp_path):
    """Of one recorded session every draw is the same."""
    (tmp_path / "t.csv").write_text("session,arrival_s,prompt_tokens,output_tokens\n0,0,900,50\n0,30,100,50\n0,60,100,50\n")
    result = CliRunner().invoke(app, ["simulate", "--trace", str(tmp_path / "t.csv")])
    assert "Nothing is drawn at random" in result.stdout and "±" not in result.stdout


def test_processes_change_nothing():
    result = simulate(config.load(None, ["workload.sessions=20"]))
    with pool(2) as processes:
        assert recomputation(result, 3, pool=processes) == recomputation(result, 3)


def test_what_cannot_be_told_from_no_change_is_said_to_be_so():
    ratios = {
        "ttft_s.p95": {"factor": 1.1, "low": 0.8, "high": 1.5, "p": 0.5},
        "cost_usd.total": {"factor": 1.2, "low": 1.1, "high": 1.3, "p": 0.001},
        "gpu.busy_h": {"factor": 1.0, "low": 1.0, "high": 1.0, "p": 1.0},
    }
    summary = simulated("--replications", "2")
    summary["recompute"]["difference"]["ratio"] = ratios
    cells = {row[0]: row[-1] for row in table.rows(summary)}
    assert cells["TTFT p95"] == "+10% ± 35, unclear" and cells["total cost"] == "+20% ± 10" and cells["GPU hours, busy"] == "none"
    said = " ".join(table.words(summary, summary["recompute"]))
    assert "TTFT p95 10% ± 35 more (unclear), cost 20% ± 10 more, busy GPU hours none" in said


def test_without_recomputation_there_is_one_run(monkeypatch):
    ran = []
    monkeypatch.setattr("kvplan.sim.cli.simulate.simulate", lambda *given, **named: ran.append(given) or simulate(*given, **named))
    assert "recompute" not in simulated("--no-baseline") and len(ran) == 1


def test_percentiles_have_intervals_by_bootstrap_over_sessions():
    """Of independent sessions of one turn each they cover what they should: about 95 % of the samples."""
    rng = np.random.default_rng(5)
    covered = 0
    for seed in range(60):
        ttft = rng.exponential(1.0, 400)
        columns = {"session": np.arange(400), "order": np.arange(400), "arrival_s": np.zeros(400), "first_token_s": ttft,
                   "admitted_s": np.zeros(400), "done_s": ttft, "output_tokens": np.ones(400, int)}  # fmt: skip
        found = intervals(SimpleNamespace(config=config.load(None, [f"seed={seed}"]), columns=columns))
        low, high = found["ttft_s"]["p95"]
        covered += low <= -math.log(0.05) <= high
        assert found["tpot_s"] is None and low <= np.percentile(ttft, 95) <= high
    assert 52 <= covered <= 60


# --- the table --------------------------------------------------------------------------------------------------------------------


def test_tiers_that_there_are_have_a_row_and_replicas_are_said():
    result = CliRunner().invoke(
        app,
        ["simulate", "--no-baseline", "--set", "workload.sessions=40", "--set", "store.hbm=10GB", "--set", "deployment.replicas=2",
         "--set", "store.dram=0GB", "--set", "store.ssd=100GB"],
    )  # fmt: skip
    assert "from HBM" in result.stdout and "from SSD" in result.stdout and "from DRAM" not in result.stdout
    assert "of 200 GB (2 replicas together)" in result.stdout


@pytest.mark.parametrize("parts", [(0.945, 0.045, 0.01), (1 / 3, 1 / 3, 1 / 3), (0.925, 0.025, 0.025, 0.025), (0.996, 0.004)])
def test_percentages_of_a_whole_add_to_a_hundred(parts):
    named = {str(number): part for number, part in enumerate(parts)}
    found = table.whole_percents(named, 1.0)
    assert sum(found.values()) == 100 and all(abs(found[name] - 100 * part) < 1 for name, part in named.items())


# --- runs that cannot be judged ---------------------------------------------------------------------------------------------------


def one_server(load: float, turns: int, seed: int) -> Span:
    """Of a queue with Poisson arrivals and a service of 1 s (Lindley's recursion); every session has one turn."""
    arrival = np.cumsum(np.random.default_rng(seed).exponential(1 / load, turns))
    done = np.empty(turns)
    free = 0.0
    for turn, came in enumerate(arrival):
        done[turn] = free = max(came, free) + 1.0
    return Span(0.0, float(arrival[-1]), arrival, done - 1.0, done, arrival, done, 1)


@pytest.mark.parametrize(("load", "fewest", "most"), [(0.5, 0, 0), (0.8, 0, 1), (0.9, 0, 2), (1.1, 38, 40), (1.3, 40, 40)])
def test_a_queue_that_grows_is_told_from_one_that_is_long(load, fewest, most):
    warned = [load_warnings(one_server(load, 2000, seed)) for seed in range(40)]
    assert fewest <= sum(map(bool, warned)) <= most
    assert all("overloaded: the queue grew all the time" in found[0] for found in warned if found)


def without_queues(came_s: np.ndarray, takes_s: np.ndarray) -> Span:
    """Of turns that are served at once; every session has one."""
    return Span(0.0, float(came_s[-1]), came_s, came_s, came_s + takes_s, came_s, came_s + takes_s, 1)


def test_a_start_with_empty_stores_is_told_from_a_load_that_falls():
    steady, fading = np.linspace(0, 1000, 3000), 1000 * np.linspace(0, 1, 3000) ** 2
    slow_at_first = 2 + 20 * np.exp(-steady / 300)
    (said,) = load_warnings(without_queues(steady, slow_at_first))
    assert "not steady: the turns in the server fell all the time" in said and "warmup_turns" in said
    assert load_warnings(without_queues(fading, np.full(3000, 5.0))) == []
    assert load_warnings(without_queues(steady, np.full(3000, 5.0))) == []


def load_said(*overrides: str) -> tuple[str, str]:
    """What is said of the load: of the run, and of recomputation."""
    settings = config.load(None, overrides)
    ours, theirs = (simulate(each).summary["warnings"] for each in (settings, settings.recompute()))
    return tuple(" ".join(line for line in lines if "window" not in line) for lines in (ours, theirs))


def test_an_overload_is_seen_with_any_batch():
    for slots in (24, 256):
        chosen = ("workload.sessions=600", "workload.arrival.rate_per_s=2", "workload.think_time.median_s=1")
        ours, theirs = load_said(*chosen, f"deployment.max_batch={slots}")
        assert "overloaded" in ours and "overloaded" in theirs


def test_a_server_that_slows_down_as_its_batch_grows_is_seen_before_turns_wait():
    chosen = ("model=llama-3.1-70b", "hardware=h100-80g-x8", "deployment.gpus=8", "deployment.max_batch=256", "prices=rent-2026")
    ours, theirs = load_said(*chosen, "workload.arrival.rate_per_s=1", "workload.sessions=2500")
    assert "not steady: the turns in the server grew all the time" in theirs and "not steady" not in ours and "overloaded" not in ours


def test_a_run_whose_sessions_outlast_their_arrivals_is_too_short():
    assert "too short to be steady: sessions arrive for" in load_said("workload.sessions=60")[0]
    short_lives = ("workload.sessions=600", "workload.think_time.median_s=3", "store.ssd=0GB")
    assert load_said(*short_lives) == ("", "")


def test_tiers_that_never_fill_or_fill_late_do_not_tell_their_size():
    times = np.arange(101.0)
    rising, settled = 10 * times, np.minimum(10 * times, 200.0)
    assert (
        "never filled (1 kB of 2 kB, and rising): this run cannot judge its size" in tier_warnings("SSD", 2000, 1800, 0.0, times, rising)[0]
    )
    assert "full in the last 28% of the run only" in tier_warnings("SSD", 900, 800, 0.0, times, rising)[0]
    assert tier_warnings("SSD", 400, 400, 0.0, times, rising) == []
    assert tier_warnings("SSD", 2000, 1800, 0.0, times, settled) == [], "more room would not be used"


def test_the_default_says_that_its_ssd_is_not_tried():
    found = " ".join(simulate(config.load()).summary["warnings"])
    assert "SSD never filled" in found and "DRAM" not in found
    assert not any(word in found for word in ("overloaded", "steady"))


def test_what_explain_warns_of_and_a_store_that_loses_are_said_beside_the_result():
    slow = simulated("--set", "store.dram=0GB", "--set", "store.load=always", "--replications", "3")["warnings"]
    assert any("loading from SSD" in line and "set store.load=faster" in line for line in slow)
    assert any("is worse with this store than with none" in line for line in slow)
    fast = simulated("--set", "store.ssd=0GB", "--replications", "3")["warnings"]
    assert not any("loading from SSD" in line or "worse" in line for line in fast)


def test_what_is_the_same_of_both_runs_is_said_once():
    ours = {"warnings": ["overloaded: to 5 turns", "cut to it: 7", "SSD never filled"]}
    theirs = {"warnings": ["overloaded: to 9 turns", "cut to it: 7", "not steady: it grew"]}
    said = ["overloaded: to 5 turns (recomputing too)", "cut to it: 7", "SSD never filled", "recomputation: not steady: it grew"]
    assert table.warnings(ours, theirs) == said and table.warnings(ours, None) == ours["warnings"]


def test_what_the_manual_says_of_the_default_without_its_ssd(as_users_run):
    difference = recomputation(simulate(config.load(None, ["store.ssd=0GB"])))["difference"]["ratio"]
    tail, cost = (change(Ratio(**difference[key])) for key in ("ttft_s.p95", "cost_usd.total"))
    said = " ".join((Path(__file__).resolve().parents[1] / "docs" / "glance.md").read_text(encoding="utf-8").split())
    assert f"TTFT p95 changes by {tail} and cost by {cost}" in said
