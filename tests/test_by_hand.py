"""Small runs whose every figure is known by hand: what no invariant and no other test would miss, one figure each."""

import math

import pytest
from plant import tier as spec
from test_store import StillJobs

from kvplan.hwmodels import catalogue, pipeline_s
from kvplan.hwmodels.cost import run_cost_usd
from kvplan.sim import config
from kvplan.sim.deployment import resolve
from kvplan.sim.engine.clock import Clock
from kvplan.sim.knowledge import ServerKnowledge
from kvplan.sim.policies.eviction.lru import Lru
from kvplan.sim.policies.prefetch.hint import Hint
from kvplan.sim.policies.prefetch.lookahead import LookAhead
from kvplan.sim.policies.scheduling.fair_share import FairShare
from kvplan.sim.policies.scheduling.fcfs import Fcfs
from kvplan.sim.policies.write.back import Back
from kvplan.sim.simulation import simulate
from kvplan.sim.store.sessions import SessionStore
from kvplan.sim.store.view import Knowledge

KV = 819_200
"""Bytes per token of LLaMA-2-13B, the default model."""
LATE = [(1, 1)]
"""A session that comes when all transfers of the others have ended, since what is under way at the end of a run counts by its share."""
PLAIN = ("warmup_turns=0", "store.ssd=0GB", "store.load=always", "store.eviction=lru", "store.prefetch=none")


def run(table, *overrides):
    settings = config.load(None, [*PLAIN, *overrides])
    return simulate(settings, table), resolve(settings, table)


# --- saving and moving ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("save", ["async", "sync"])
def test_every_token_is_saved_once(workload, save):
    result, deployment = run(workload([[(1000, 50), (100, 30)], LATE], arrivals=[0, 99], gap_s=10.0), f"store.save={save}")
    for bytes_ in (result.summary["links"]["device_to_host"]["bytes"], result.summary["tiers"]["dram"]["written_bytes"]):
        assert 1180 * KV <= bytes_ <= 1182 * KV
    if save == "sync":
        waits = 1100 * KV / deployment.host.write_bytes_per_s + 2 * deployment.host.latency_s  # for answers nobody waits here
        assert result.summary["gpu"]["save_stall_s"] == pytest.approx(waits)


def test_what_leaves_hbm_for_ssd_crosses_the_host_link(workload):
    table = workload([*[[(1000, 100)]] * 4, LATE], arrivals=[0, 30, 60, 90, 120])
    result, _ = run(table, "store.hbm=2GB", "store.dram=0GB", "store.ssd=1TB", "store.host_buffer=0.5")
    summary = result.summary
    assert summary["links"]["device_to_host"]["bytes"] == summary["tiers"]["ssd"]["written_bytes"] == 3 * 1100 * KV


class Told(Back):
    """Write-back that remembers what it was told."""

    def __init__(self, rated_bytes_per_s):
        super().__init__(rated_bytes_per_s)
        self.told = []

    def wrote(self, size, now_s):
        self.told.append((size, now_s))


TIERS = (spec("dram", 100, 10), spec("ssd", 1000))


def _store(write=None, tiers=TIERS, **options):
    queue = Fcfs(StillJobs())
    return SessionStore(tiers, Lru, LookAhead(), queue, write or Back(math.inf), Knowledge(), **options), queue


def _turn(store, queue, session, size, now):
    store.expect(session, queue.push(session))
    store.claim(queue.pop(), now)
    store.save(session, size, now)
    store.release(session, now)


def test_the_write_policy_is_told_of_every_write():
    write = Told(math.inf)
    store, queue = _store(write)
    _turn(store, queue, 0, 95, 0.0)
    store.end_move(store.next_demotion(0, 2.0), 3.0)
    assert write.told == [(95, 2.0)]


@pytest.mark.parametrize(("whole", "left_below"), [(False, 60), (True, 0)])
def test_what_a_fetch_leaves_below(whole, left_below):
    """`delta` keeps the copy on SSD, `whole` moves it: then the next demotion writes all of it again."""
    store, queue = _store(rewrite_whole=whole)
    _turn(store, queue, 0, 60, 0.0)
    _turn(store, queue, 1, 40, 1.0)
    store.end_move(store.next_demotion(0, 2.0), 3.0)
    store.expect(0, queue.push(0))
    store.end_move(store.next_fetch(4.0), 5.0)
    assert [tier.held(0) for tier in store.tiers] == [60, left_below]


def test_what_is_saved_whole_leaves_nothing_below():
    store, queue = _store(rewrite_whole=True)
    _turn(store, queue, 0, 95, 0.0)
    move = store.next_demotion(0, 2.0)
    store.claim(0, 2.5)
    store.end_move(move, 3.0)
    store.save(0, 100, 4.0)
    assert [tier.held(0) for tier in store.tiers] == [100, 0]


# --- loading ----------------------------------------------------------------------------------------------------------------------


def test_a_read_buffer_is_filled_from_when_its_job_heads_the_queue(workload):
    """One slot. The second session's second turn waits behind a turn of one token, and heads the queue only while that one runs."""
    table = workload([[(9, 400)], [(3500, 1), (50, 10)], [(1, 1)]], arrivals=[20.0, 0.0, 20.1], gap_s=20.0)
    result, deployment = run(table, "deployment.max_batch=1", "store.read_buffer_layers=40")
    columns = result.columns
    assert columns["admitted_s"][3] < columns["admitted_s"][2] and columns["cached_tokens"][2] == 3501
    layers, heads_s = deployment.steps.layers, columns["admitted_s"][2] - columns["admitted_s"][3]
    load = 3501 * KV / layers / deployment.host.read_bytes_per_s + deployment.host.latency_s
    compute = deployment.steps.prefill(50, 3501)
    assert 1 < heads_s / load < layers - 1
    assert columns["stall_s"][2] == pytest.approx(pipeline_s(layers, compute / layers, load, heads_s / load) - compute)


def test_word_of_a_turn_comes_as_long_before_it_as_the_policy_says(workload, monkeypatch):
    """Without queueing, the KV that a hint of 5 s brings is in DRAM when its turn comes, and has waited there for the rest of the time."""
    table = workload([[(1000, 200), (50, 10)], [(1800, 200)]], arrivals=[0, 10], gap_s=60.0)
    tight = ("store.dram=3.4GB", "store.host_buffer=0.5", "store.ssd=100GB", "store.prefetch=hint")
    assert run(table, *tight)[0].columns["tier"][1] == 0
    monkeypatch.setattr(Hint, "LEAD_S", 0.001)
    assert run(table, *tight)[0].columns["tier"][1] == 1  # still on its way


def test_a_policy_that_weighs_costs_is_told_those_of_the_size(workload):
    table = workload([[(10, 10)]])
    deployment = resolve(config.load())
    knowledge = ServerKnowledge(Clock(), deployment, table)
    assert knowledge.recompute_s(0, 1000 * KV) == deployment.steps.prefill(1000)
    assert knowledge.load_s("dram", 1000 * KV) == pytest.approx(1000 * KV / deployment.host.read_bytes_per_s)
    assert knowledge.load_s("ssd", 1000 * KV) == pytest.approx(1000 * KV / deployment.drive_links.read_bytes_per_s)


# --- figures ----------------------------------------------------------------------------------------------------------------------


def test_two_replicas_are_twice_one(workload):
    """The same session on each of two replicas, at the same time: sums are twice those of one replica, shares and times are its own."""
    one = run(workload([[(1000, 50), (100, 30)]], gap_s=10.0), "store.ssd=1TB")[0].summary
    two = run(workload([[(1000, 50), (100, 30)]] * 2, gap_s=10.0), "store.ssd=1TB", "deployment.replicas=2")[0].summary
    assert two["makespan_s"] == one["makespan_s"]
    for name, link in one["links"].items():
        assert two["links"][name] == {"bytes": 2 * link["bytes"], "busy_share": pytest.approx(link["busy_share"])}
    assert two["gpu"]["utilization"] == pytest.approx(one["gpu"]["utilization"])
    for name, tier in one["tiers"].items():
        assert two["tiers"][name] == {key: pytest.approx(2 * value) for key, value in tier.items()}
    for name in ("gpu", "gpu_provisioned", "gpu_busy", "dram", "ssd", "total"):
        assert two["cost_usd"][name] == pytest.approx(2 * one["cost_usd"][name]) and one["cost_usd"][name] > 0
    assert two["ssd_wear"]["dwpd"] == pytest.approx(one["ssd_wear"]["dwpd"])


def test_cost_per_million_tokens_is_of_those_tokens():
    prices = catalogue.load("prices", "paper-2024")
    cost = run_cost_usd(prices, "a100-80g", 4, 1800, 3600, 10**11, 10**12, output_tokens=2_000_000, input_tokens=5_000_000)
    assert cost["total"] == pytest.approx(cost["gpu"] + cost["dram"] + cost["ssd"])
    assert cost["per_million_output_tokens"] == pytest.approx(cost["total"] / 2)
    assert cost["per_million_input_tokens"] == pytest.approx(cost["total"] / 5)


def test_cost_of_an_hour_half_busy():
    prices = catalogue.load("prices", "paper-2024")
    cost = run_cost_usd(prices, "a100-80g", 2, 1800, 3600, 10**11, 10**12, 1, 1)
    assert cost["gpu"] == cost["gpu_provisioned"] == pytest.approx(10) and cost["gpu_busy"] == pytest.approx(5)
    assert cost["dram"] == pytest.approx(10**11 * 3600 * prices.dram.value)
    assert cost["ssd"] == pytest.approx(10**12 * 3600 * prices.ssd.value)


def test_the_series_counts_who_waits_and_runs_when_a_turn_ends(workload):
    table = workload([[(10, 2)], [(10, 40)], [(10, 10)]])
    result, _ = run(table, "deployment.max_batch=2")
    assert result.series["running"].tolist() == [1, 1, 0] and result.series["waiting"].tolist() == [1, 0, 0]
    assert result.series["hbm_running_bytes"].tolist() == [50 * KV, 50 * KV, 0]
    assert result.series["dram_bytes"].tolist() == [12 * KV, 32 * KV, 82 * KV]


def test_the_mean_of_a_tier_is_over_time(workload):
    table = workload([[(1000, 1)], [(500, 1)]], arrivals=[0.0, 10.0])
    result, _ = run(table)
    first, second = result.columns["done_s"]
    assert result.summary["tiers"]["dram"]["mean_bytes"] == pytest.approx(1001 * KV * (second - first) / second)
    assert result.summary["tiers"]["dram"]["peak_bytes"] == 1502 * KV


def test_latencies_by_hand(workload):
    """One turn of 1,000 tokens and an answer of 11."""
    result, deployment = run(workload([[(1000, 11)]]))
    prefill, decode = deployment.steps.prefill(1000), deployment.steps.decode(1, 1001, 10)
    summary = result.summary
    assert summary["ttft_s"]["mean"] == summary["prefill_s"]["mean"] == prefill and summary["queue_s"]["mean"] == 0
    assert summary["tpot_s"]["mean"] == pytest.approx(decode / 10) and summary["e2e_s"]["p99"] == pytest.approx(prefill + decode)
    assert summary["gpu"]["utilization"] == pytest.approx(1) and summary["output_tokens_per_s"] == pytest.approx(11 / (prefill + decode))


def test_a_slot_that_is_taken_is_queueing_not_prefill(workload):
    result, deployment = run(workload([[(1000, 11)], [(500, 1)]]), "deployment.max_batch=1")
    first_s = deployment.steps.prefill(1000) + deployment.steps.decode(1, 1001, 10)
    assert result.summary["queue_s"]["max"] == pytest.approx(first_s)
    assert result.summary["prefill_s"]["max"] == pytest.approx(deployment.steps.prefill(1000))


def test_hit_rates_by_hand(workload):
    """Four turns, three of which resume, two with their history in DRAM; the third one's was evicted."""
    table = workload([[(1000, 10), (100, 10), (100, 10)], [(3000, 100)]], arrivals=[0, 15], gap_s=10.0)
    rates = run(table, "store.dram=3GB")[0].summary["hit_rate"]
    assert rates["resumed"] == rates["dram"] == pytest.approx(1 / 2) and rates["turns"] == pytest.approx(1 / 4)
    assert rates["tokens"] == pytest.approx(1010 / (1000 + 1110 + 1220 + 3000)) and rates["ssd"] == 0


def test_wear_by_hand(workload):
    """SSD alone: what is saved in a run is written to the node's drives."""
    result, deployment = run(workload([*[[(1000, 11)]] * 3, LATE], arrivals=[0, 50, 100, 150]), "store.dram=0GB", "store.ssd=1TB")
    summary, wear = result.summary, result.summary["ssd_wear"]
    per_day = 3 * 1011 * KV / summary["makespan_s"] * 86_400
    assert wear["bytes_per_day"] == pytest.approx(per_day, rel=1e-3)
    per_day = wear["bytes_per_day"]
    assert wear["dwpd"] == pytest.approx(per_day / wear["drive_bytes"])
    years = deployment.ssd.rated_dwpd.value / wear["dwpd"] * deployment.ssd.warranty.value
    assert wear["lifetime_years"] == pytest.approx(years)


def test_fair_share_counts_the_history_that_must_be_computed():
    """Two tenants of equal weight; one has long histories, which count as tokens unless they are cached."""

    class Jobs(StillJobs):
        cached = 0

        def new_tokens(self, turn):
            return 100

        def history_tokens(self, turn):
            return 300 * (turn % 2)

        def cached_tokens(self, turn):
            return self.cached * (turn % 2)

        def tenant(self, turn):
            return turn % 2

        def weight(self, turn):
            return 1.0

    def served(jobs):
        queue = FairShare(jobs)
        for turn in range(40):
            queue.push(turn)
        return [queue.pop() % 2 for _ in range(20)]

    cached = Jobs()
    cached.cached = 300
    assert sum(served(Jobs())) == 4 and sum(served(cached)) == 10


def test_goodput_is_of_turns_within_every_objective_a_second(workload):
    table = workload([[(100, 5)], [(3000, 5)]], arrivals=[0.0, 10.0])
    summary = run(table, "slo.ttft_p95_s=0.1")[0].summary
    assert summary["ttft_s"]["max"] > 0.1 and summary["goodput_per_s"] == pytest.approx(1 / summary["makespan_s"])


def test_nobody_evicts_a_session_that_runs():
    store, _ = _store(tiers=[spec("dram", 100)])
    store.claim(0, 0.0)
    store.save(0, 60, 0.0)
    store.release(0, 0.0)
    store.claim(0, 1.0)
    store.claim(1, 1.0)
    assert store.save(1, 60, 1.0) == (-1, 0) and store.lookup(0) == (0, 60)
    store.release(0, 2.0)
    assert store.save(1, 60, 2.0) == (0, 60) and store.lookup(0) == (-1, 0)


def test_a_reserve_grows_to_what_a_save_lacked():
    store, _ = _store()
    store.claim(0, 0.0)
    store.save(0, 80, 0.0)
    store.claim(1, 0.0)
    assert store.save(1, 30, 0.0) == (1, 30) and store.tiers[0].low_water == 30
    assert [tier.used for tier in store.tiers] == [80, 30]
