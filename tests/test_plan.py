"""The planner: objectives with intervals, bisection, bounds, and a whole small plan against brute force."""

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from kvplan.sim import config
from kvplan.sim.build_workload import build_workload
from kvplan.sim.cli.app import app
from kvplan.sim.config import ConfigError, Slo
from kvplan.sim.deployment import resolve
from kvplan.sim.planner import bounds, confirmed, doubt, headroom, probe, surely
from kvplan.sim.planner.confirmed import RUNS
from kvplan.sim.planner.filling import Filling
from kvplan.sim.planner.objective import Objective, Sample, judge, objectives, sample
from kvplan.sim.planner.plan import plan
from kvplan.sim.planner.probe import Probe, Seen, look
from kvplan.sim.planner.question import Question, options
from kvplan.sim.planner.search import fewest
from kvplan.sim.simulation import simulate
from kvplan.sim.sweep.axes import Axis
from kvplan.sim.sweep.pool import Pool, pool
from kvplan.traces import TraceError
from kvplan.traces.reuse import accesses

P95 = Objective("ttft", "p95", 0.5)


def columns(ttft, session=None, output=10):
    count = len(ttft)
    return {
        "arrival_s": np.arange(count, dtype=float),
        "first_token_s": np.arange(count) + np.asarray(ttft, float),
        "done_s": np.arange(count) + np.asarray(ttft, float) + 1.0,
        "output_tokens": np.full(count, output),
        "prompt_tokens": np.full(count, 60),
        "history_tokens": np.full(count, 40),
        "cached_tokens": np.full(count, 30),
        "session": np.arange(count) if session is None else np.asarray(session),
    }


# --- objectives -------------------------------------------------------------------------------------------------------------------


def test_objectives_of_a_configuration():
    found = objectives(Slo(ttft_p95_s=0.5, tpot_mean_s=0.05, hit_rate=0.6))
    assert [str(each) for each in found] == [
        "TTFT p95 within 500 ms",
        "TPOT mean within 50 ms",
        "token hit rate of at least 60%",
    ]
    (good,) = objectives(Slo(ttft_p95_s=0.5, goodput_share=0.9))
    assert good.share == 0.9 and good.limits == (("ttft", 0.5),)
    with pytest.raises(ConfigError, match="goodput_share needs"):
        objectives(Slo(goodput_share=0.9))


def test_a_share_is_judged_by_its_interval():
    rng = np.random.default_rng(1)
    ttft = np.where(rng.random(4000) < 0.02, 1.0, 0.1)
    found = judge(P95, [sample(P95, columns(ttft), np.ones(4000, bool))])
    assert found.mean == pytest.approx((ttft <= 0.5).mean()) and found.meets is True and found.value == pytest.approx(0.1)
    assert 1.5 * 1.96 * np.sqrt(0.02 * 0.98 / 4000) > found.half_width > 1.96 * np.sqrt(0.02 * 0.98 / 4000) * 0.7
    near = np.where(np.arange(4000) % 20 == 0, 1.0, 0.1)
    assert judge(P95, [sample(P95, columns(near), np.ones(4000, bool))]).within
    late = np.where(rng.random(4000) < 0.10, 1.0, 0.1)
    assert judge(P95, [sample(P95, columns(late), np.ones(4000, bool))]).meets is False


def test_turns_of_one_session_are_one_observation_and_so_is_a_queue():
    """All turns of a session alike, sessions of 50 turns: the interval is about as wide as that of the 80 sessions alone."""
    rng = np.random.default_rng(2)
    session = np.tile(np.arange(80), 50)
    ttft = np.where((rng.random(80) < 0.05)[session], 1.0, 0.1)
    alike = judge(P95, [sample(P95, columns(ttft, session), np.ones(4000, bool))])
    share = 1 - alike.mean
    assert alike.half_width > 1.9 * np.sqrt(share * (1 - share) / 80) * 0.9
    queue = np.where((np.arange(4000) // 200) % 10 == 3, 1.0, 0.1)
    waits = judge(P95, [sample(P95, columns(queue), np.ones(4000, bool))])
    assert waits.half_width > 3 * 1.96 * np.sqrt(0.09 / 4000)


def test_means_and_hit_rates():
    mean = Objective("ttft", "mean", 0.5)
    assert judge(mean, [sample(mean, columns(np.full(100, 0.4)), np.ones(100, bool))]).meets is True
    assert judge(mean, [sample(mean, columns(np.full(100, 0.6)), np.ones(100, bool))]).meets is False
    hits = Objective("hit_rate", "mean", 0.25)
    found = judge(hits, [sample(hits, columns(np.full(100, 0.4)), np.ones(100, bool))])
    assert found.mean == pytest.approx(0.3) and found.meets is True


def test_only_measured_turns_count():
    ttft = np.concatenate([np.full(500, 9.0), np.full(500, 0.1)])
    assert judge(P95, [sample(P95, columns(ttft), np.arange(1000) >= 500)]).mean == 1.0


# --- search -----------------------------------------------------------------------------------------------------------------------


def seen(share: float, spread: float = 0.0) -> Seen:
    """A run in which this share of the turns is in time, in 20 batches around it."""
    swing = np.where(np.arange(20) % 2, spread, -spread)
    batches = np.stack([100 * (share + swing), np.full(20, 100.0)], axis=1)
    return Seen((Sample(batches, np.zeros((2, 2)), 2000, 0.1),), {})


def searched(share_at, start=1, least=1, limit=64, most=4):
    """The search's answer where `share_at(replicas, replication)` of the turns are in time."""
    search, looks = fewest((P95,), start, least, limit, most), []
    wanted = next(search)
    try:
        while True:
            looks += wanted
            wanted = search.send([share_at(*each) for each in wanted])
    except StopIteration as end:
        return end.value, looks


@given(st.integers(1, 60), st.integers(1, 60), st.integers(1, 60))
@settings(max_examples=60, deadline=None)
def test_bisection_finds_the_fewest(truth, start, least):
    found, looks = searched(lambda replicas, _: seen(0.99 if replicas >= truth else 0.5), start, least)
    assert found.replicas == max(truth, least) and not found.doubts
    assert len(looks) <= 24 and len(found.at(found.replicas).seen) >= 2
    if found.replicas > least:
        assert not found.at(found.replicas - 1).within and len(found.at(found.replicas - 1).seen) >= 1


@pytest.mark.parametrize(
    ("borne", "known", "between"),
    [
        (3.0, (1.0, 8.0), (2 * 2 ** (1 / 3), 2 * 2 ** (2 / 3))),
        (1.0, (1.0, None), (1.0, 2 ** (1 / 3))),
        (100.0, (1.0, None), (16.0, None)),
        (7.9, (1.0, 8.0), (4 * 2 ** (2 / 3), 8.0)),
    ],
)
def test_the_load_that_replicas_bear_is_cut_in_three_twice(borne, known, between):
    search = headroom.Bearing(None, (P95,), 10, known)
    wanted = search.begin()
    while wanted:
        wanted = search.go_on([seen(0.99 if 10 / replicas <= borne else 0.5) for replicas, _ in wanted])
    assert search.found == pytest.approx(between)


@pytest.mark.parametrize(
    ("varied", "message"),
    [
        ("deployment.replicas=1,2", "finds that itself"),
        ("slo.ttft_p95_s=1,2", "one target"),
        ("workload.arrival.rate_per_s=1,2", "one load"),
    ],
)
def test_what_replicas_are_counted_for_is_not_varied(varied, message):
    """Two replicas in each counted one gave half the GPUs."""
    result = CliRunner().invoke(app, ["plan", "default", "--ttft-p95", "1s", "--vary", varied])
    assert result.exit_code == 2 and message in result.output


def test_no_number_is_enough():
    found, _ = searched(lambda *_: seen(0.5), limit=20)
    assert found.replicas is None and "20 replicas" in found.reason


def test_replications_are_added_until_it_can_be_told_and_doubt_is_said():
    found, _ = searched(lambda replicas, _: seen({1: 0.5, 2: 0.951}.get(replicas, 0.99), 0.02), limit=8)
    assert found.replicas == 2 and len(found.at(2).seen) == 4
    assert found.doubts == ("2 may meet it or not",)


def test_a_lucky_first_run_is_not_the_answer():
    found, _ = searched(lambda replicas, replication: seen(0.99 if replicas >= 5 or (replicas == 3 and replication == 0) else 0.5))
    assert found.replicas in (4, 5) and found.at(found.replicas).within


def test_a_server_that_fills_up_does_not_meet_it():
    rising = Seen(seen(0.999).samples, {}, (), True)
    found, _ = searched(lambda replicas, _: rising if replicas < 4 else seen(0.99))
    assert found.replicas == 4


def fed(search, share_at):
    """What a search that goes on from an answer makes of it, and what it looked at."""
    wanted, looks = search.begin(), []
    while wanted:
        looks += wanted
        wanted = search.go_on([share_at(*each) for each in wanted])
    return search.found, looks


def surely_searched(found, share_at, most=3):
    return fed(surely.Surely(None, (P95,), found, 64, most), share_at)


def lucky(replicas, replication):
    """Ten replicas meet it in two runs, and not in the others; eleven do in all."""
    return seen(0.99 if replicas >= 11 or (replicas == 10 and replication < 2) else 0.9, 0.001)


def test_two_lucky_runs_are_not_the_answer():
    found, _ = searched(lucky)
    assert found.replicas == 10 and found.at(10).meets
    after, looks = fed(confirmed.Confirmed(None, (P95,), found, 64), lucky)
    assert after.replicas == 11 and not after.at(10).within and after.at(11).meets
    assert looks == [(10, each) for each in range(2, RUNS)] + [(11, each) for each in range(len(found.at(11).seen), RUNS)]
    assert fed(confirmed.Confirmed(None, (P95,), after, 64), None) == (after, [])


def test_the_percentile_of_several_runs_is_that_of_all_their_turns():
    """Three quiet runs and one that queued for a minute: a mean of four percentiles would be 15 s."""
    quiet, late = (Seen((), {}, ttft_s=tuple(np.linspace(0, most, 401))) for most in (0.2, 60.0))
    assert probe.ttft_p95_s([quiet] * 4) == pytest.approx(0.19, rel=1e-3)
    assert probe.ttft_p95_s([quiet] * 3 + [late]) == pytest.approx(48.0, rel=0.01) and probe.ttft_p95_s([]) is None


def test_what_no_runs_confirm_is_no_answer():
    found, _ = searched(lucky, limit=10)
    after, _ = fed(confirmed.Confirmed(None, (P95,), found, 10), lucky)
    assert after.replicas is None and "10 replicas" in after.reason


def test_many_runs_that_differ_leave_the_answer_in_doubt():
    """Half of the runs keep 99 % of the turns in time, half 92 %: 95.5 % in the mean, which their own batches are sure of."""
    share = lambda replicas, replication: seen(0.99 if replication % 2 else 0.92, 0.001)  # noqa: E731
    found, _ = searched(share, limit=5, most=2)
    after, _ = fed(confirmed.Confirmed(None, (P95,), found, 64), share)
    assert after.at(after.replicas).meets is None and after.at(after.replicas).judgements[0].half_width > 0.03


def test_an_unclear_answer_is_followed_up_to_where_it_is_sure():
    """Met by 10 and more, surely by 14 and more: 11, 12 and 14 are looked at, until none is unclear or three runs are done."""
    found, _ = searched(lambda count, _: seen(0.953 if count >= 10 else 0.90, 0.02), limit=10, most=2)
    assert found.replicas == 10 and found.at(10).meets is None
    after, looks = surely_searched(found, lambda count, _: seen(0.953, 0.02) if count < 14 else seen(0.99, 0.001))
    assert {replicas for replicas, _ in looks} == {11, 12, 14} and after.at(14).meets and after.replicas == 10
    assert [each for each in looks if each[0] == 14] == [(14, 0)]
    assert doubt.replicas(SimpleNamespace(replicas=10, found=after)) == doubt.Bracket(10, 10, 14)


def test_a_sure_answer_is_left_as_it_is():
    found, _ = searched(lambda count, _: seen(0.99 if count >= 10 else 0.90, 0.001))
    assert surely_searched(found, None) == (found, [])


def test_an_unlucky_run_does_not_cost_a_replica():
    """Nine replicas fail in their first two runs and meet it in the others: all together speak for them."""
    late = {(9, 0), (9, 1)}
    unlucky = lambda *run: seen(0.945 if run in late else 0.96 if run[0] >= 9 else 0.9, 0.02)  # noqa: E731
    found, _ = searched(unlucky, most=2)
    assert found.replicas == 10 and found.at(9).meets is None
    after, looks = fed(confirmed.Confirmed(None, (P95,), found, 64), unlucky)
    assert after.replicas == 9 and looks == [(9, each) for each in range(2, RUNS)]


# --- steady streams ---------------------------------------------------------------------------------------------------------------

STEADY = ["workload.steady=true", "workload.sessions=3000", "workload.arrival.rate_per_s=1"]
LONG = "workload.think_time={distribution: lognormal, median_s: 60, sigma: 2}"


def test_a_steady_stream_has_the_same_load_from_its_start_to_its_end():
    """Whole sessions make a load that rises and falls; a cut has as many turns in its first tenth as in its last."""
    counts = np.zeros(10, int)
    for seed in range(3):
        workload = build_workload(config.load(None, [*STEADY, LONG, f"seed={seed}"]))
        gaps = np.where(workload.is_first, 0.0, workload.gap_s)
        before = np.cumsum(gaps)
        starts = workload.first_turn[workload.session]
        at = before - before[starts] + workload.arrival_s[starts]
        counts += np.histogram(at, 10, (0, at.max()))[0]
        assert workload.origin["under_way_at_start"] > 100
    assert counts.min() > 0.87 * counts.mean() and counts.max() < 1.13 * counts.mean()


def test_what_was_said_before_the_start_comes_as_prompt():
    whole = build_workload(config.load(None, [*STEADY[1:], LONG]))
    cut = build_workload(config.load(None, [*STEADY, LONG]))
    window = resolve(config.load()).window
    total = cut.prompt_tokens + cut.output_tokens
    assert cut.prompt_tokens[cut.is_first].mean() > 3 * whole.prompt_tokens[whole.is_first].mean()
    assert (total[cut.is_first] <= max(window, int((whole.prompt_tokens + whole.output_tokens).max()))).all()


def test_edited_contexts_stay_edited_in_a_stream(tmp_path):
    rows = [
        f"{session},{100 + turn},50,{60 if turn == 2 else 0},{session * 9 if turn == 0 else ''},30"
        for session in range(40)
        for turn in range(5)
    ]
    (tmp_path / "t.csv").write_text("session,prompt_tokens,output_tokens,dropped_tokens,arrival_s,gap_s\n" + "\n".join(rows) + "\n")
    workload = build_workload(config.load(None, [f"workload.trace={tmp_path / 't.csv'}", "workload.steady=true"]))
    assert workload.origin["under_way_at_start"] > 5 and set(workload.dropped_tokens) == {0, 60}
    assert (workload.dropped_tokens[workload.is_first] == 0).all()


STORE = ["store.hbm=0GB", "store.dram=500GB", "store.ssd=1TB"]


@pytest.mark.parametrize("ttl_s", [None, 15.0])
def test_how_long_a_stream_takes_to_fill_a_store_by_hand(ttl_s, workload):
    """Sessions of two turns, the second 10 s after the first: each leaves the first context for up to 10 s, and the last for good."""
    asked = config.load(None, [*STORE, f"store.ttl_s={'null' if ttl_s is None else ttl_s}"])
    deployment = resolve(asked)
    first, last = (deployment.stored(tokens) for tokens in (1200, 2000))
    filling = Filling(asked, deployment, workload([[(1000, 200), (500, 300)]] * 3, gap_s=10.0))
    for seconds in (4.0, 10.0, 40.0):
        left = first * min(seconds, 10.0) + last * seconds
        assert filling.seconds(deployment.room / left) == pytest.approx(min(seconds, ttl_s or seconds))


def test_what_a_stream_leaves_in_that_time_is_the_room():
    """Contexts that were used last within it, at several moments of a stream drawn at random."""
    asked = config.load(None, [*STEADY, LONG, *STORE])
    stream, whole = build_workload(asked), build_workload(config.load(None, [*STEADY[1:], LONG]))
    deployment = resolve(asked)
    seconds = Filling(asked, deployment, whole).seconds(1.0)
    seen_by = accesses(stream, 1, deployment.window).sized(deployment.stored)
    found = []
    for end in np.linspace(seconds, seen_by.time_s[-1], 6):
        recent = np.flatnonzero((seen_by.time_s > end - seconds) & (seen_by.time_s <= end))
        _, newest = np.unique(seen_by.session[recent][::-1], return_index=True)
        found.append(seen_by.size[recent][::-1][newest].sum())
    assert seconds < seen_by.time_s[-1] / 2
    assert np.mean(found) == pytest.approx(deployment.room, rel=0.1)


def test_a_stream_needs_times():
    with pytest.raises(TraceError, match="all at once"):
        build_workload(config.load(None, ["workload.steady=true", "workload.sessions=1"]))


# --- bounds and probes ------------------------------------------------------------------------------------------------------------

SMALL = (
    "model=llama-3.1-8b",
    "hardware=h100-80g-x1",
    "prices=rent-2026",
    "deployment.max_batch=64",
    "workload.steady=true",
    "workload.arrival.rate_per_s=4",
    "workload.think_time.median_s=20",
    "slo.ttft_p95_s=0.25",
)


def test_the_bound_is_one():
    """No simulation of fewer replicas keeps up: the longer it runs, the longer turns wait."""
    question = Question("default", SMALL, 20.0)
    loaded = question.config(options(question)[0])
    workload = build_workload(loaded)
    busy = bounds.least_replicas(loaded, resolve(loaded), workload, 20.0) * bounds.BUSIEST
    waits = []
    for sessions in (800, 1600):
        load = [f"workload.arrival.rate_per_s={1.3 * 20.0 / busy}", f"workload.sessions={sessions}"]
        waits.append(simulate(config.load("default", [*SMALL, "store.dram=0GB", "store.ssd=0GB", *load])).summary["queue_s"]["mean"])
    assert waits[1] > 1.5 * waits[0] > 1.0


def test_a_hopeless_run_is_ended_and_a_good_one_is_measured():
    good = config.load("default", [*SMALL, "workload.arrival.rate_per_s=0.5", "workload.sessions=600"])
    found = look(Probe(good, (P95,), 1000))
    assert found.samples is not None and 800 < found.samples[0].batches[:, 1].sum() <= 1000 and found.figures["turns"] == 1000
    bad = config.load("default", [*SMALL, "store.dram=0GB", "store.ssd=0GB", "workload.arrival.rate_per_s=40", "workload.sessions=600"])
    assert look(Probe(bad, (P95,), 1000)).samples is None


@given(st.integers(0, 20), st.integers(1, 60), st.randoms(use_true_random=False))
@settings(max_examples=50, deadline=None)
def test_late_turns_are_counted_once(warmup, step, random):
    """As if all were counted anew each time."""
    turns, ended = 100, random.sample(range(100), 100)
    columns = {name: np.full(turns, np.nan) for name in ("arrival_s", "first_token_s", "done_s")} | {"order": np.zeros(turns, int)}
    columns["arrival_s"][:] = 0
    watch = probe._Watch((P95,), warmup, step * probe._LOOKS)
    watch._allowed = [10]
    for count, turn in enumerate(ended):
        columns["first_token_s"][turn] = columns["done_s"][turn] = random.choice((0.4, 0.6))
        columns["order"][turn] = count
        recorder = SimpleNamespace(columns=columns, completed=count + 1)
        after = [columns["first_token_s"][each] > 0.5 for each in ended[warmup : count + 1]]
        if count + 1 >= warmup + step and (count + 1 - warmup) % step == 0 and sum(after) > 10:
            with pytest.raises(probe._Hopeless):
                watch(recorder)
            return
        watch(recorder)


def test_quantiles_are_those_of_numpy():
    values = np.random.default_rng(3).lognormal(size=777)
    assert probe._quantiles(values) == pytest.approx(np.quantile(values, np.linspace(0, 1, 2001)), rel=1e-12)


def test_a_run_whose_warm_up_outlasts_the_arrivals_is_hopeless(monkeypatch):
    """So overloaded that no turn which counts came while sessions still arrived: nothing can be measured, and that is no failure."""
    monkeypatch.setattr(probe, "_last_arrival_s", lambda workload: -1.0)
    run = config.load("default", [*SMALL, "workload.sessions=100"])
    assert look(Probe(run, (Objective("ttft", "mean", 0.5),), 100)) == Seen(None, {})


def test_what_an_empty_server_cannot_do_is_not_simulated():
    question = Question("default", (*SMALL, "slo.ttft_p95_s=0.001"), 4.0, measured_turns=500)
    found = plan(question)
    assert found.cheapest is None and found.simulations == 0
    assert all("empty server" in answer.found.reason for answer in found.answers)


# --- a whole plan -----------------------------------------------------------------------------------------------------------------


class Watched(Pool):
    """One that writes down what is under way together."""

    def __init__(self):
        super().__init__()
        self.together = []

    def next(self):
        self.together.append([probe for _, _, probe in self._tasks])
        return super().next()


@pytest.fixture(scope="module")
def watched():
    return Watched()


@pytest.fixture(scope="module")
def small_plan(watched):
    question = Question("default", SMALL, 4.0, (Axis.parse("store.dram+store.ssd=16GB+0GB,128GB+0GB"),), 48, 400, 300, 2)
    return plan(question, watched)


def test_more_dram_never_needs_more_replicas_and_the_cheapest_is_named(small_plan):
    by_label = {answer.option.label: answer for answer in small_plan.answers}
    counts = [by_label[label].replicas or 1000 for label in ("recompute", "dram 16GB+ssd 0GB", "dram 128GB+ssd 0GB")]
    assert counts == sorted(counts, reverse=True) and counts[0] > counts[-1]
    assert small_plan.cheapest is min(
        (answer for answer in small_plan.answers if answer.replicas), key=lambda answer: answer.cost_usd_per_month
    )
    frame = small_plan.to_frame()
    assert list(frame["option"]) == [answer.option.label for answer in small_plan.answers]


def test_the_answer_is_what_brute_force_finds(small_plan):
    """Every number of replicas around the answer, by the same probes."""
    answer = next(answer for answer in small_plan.answers if answer.option.label == "dram 128GB+ssd 0GB")
    for point in answer.found.points:
        assert point.within == (point.replicas >= answer.replicas)


def test_what_load_the_answer_bears_is_looked_for_two_at_a_time_when_it_is_confirmed(small_plan, watched):
    """Loads one after another would leave a process idle, and those of an answer that is not confirmed would be for nothing."""
    confirming = [any(probe.to_the_end for probe in probes) for probes in watched.together]
    after = watched.together[len(confirming) - confirming[::-1].index(True) :]
    assert sum(len(probes) >= 2 for probes in after) == headroom.ROUNDS and any(confirming)
    assert [answer for answer in small_plan.answers if answer.borne is not None] == [small_plan.cheapest]


def test_the_pool_does_not_matter(small_plan):
    """Nor do other options that are asked for."""
    with pool(2) as workers:
        again = plan(replace(small_plan.question, axes=(Axis.parse("store.dram+store.ssd=128GB+0GB"),)), workers).to_frame()
    before = small_plan.to_frame()
    both = before[before["option"].isin(again["option"])].reset_index(drop=True)
    assert len(both) < len(before) and again.equals(both)


def test_a_pool_of_one_does_what_it_is_told():
    one = Pool()
    one.submit("a", abs, -3)
    assert one.next() == ("a", 3)


def test_the_command_prints_a_plan_and_says_when_there_is_none(monkeypatch, tmp_path):
    options = ["default", *(part for each in SMALL for part in ("--set", each)), "--jobs", "1"]
    asked = ["plan", *options, "--vary", "store.dram+store.ssd=64GB+1TB", "--out", str(tmp_path / "plan")]
    short = Question.__init__.__defaults__
    monkeypatch.setattr(Question.__init__, "__defaults__", (*short[:5], 300, 200, 2))
    done = CliRunner().invoke(app, [*asked, "--json"])
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert found["cheapest"] is not None
    assert all({"vLLM", "SGLang", "LMCache", "TensorRT-LLM"} <= {each["engine"] for each in option["flags"]} for option in found["options"])
    text = CliRunner().invoke(app, [*asked, "--flags"])
    assert "To paste, for a replica of 1 GPU with" in text.stdout
    none = CliRunner().invoke(app, ["plan", *options, "--ttft-p95", "1ms"])
    assert none.exit_code == 3 and "Nothing that was tried" in none.stdout
    assert CliRunner().invoke(app, ["plan", *options, "--ttft-p95", "soon"]).exit_code == 2
