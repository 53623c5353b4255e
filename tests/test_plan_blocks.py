"""Plans whose servers keep blocks: the pool is the baseline, bounds know what sessions have in common, and words are true of a pool."""

from dataclasses import replace

import numpy as np
import pytest

from kvplan.sim.build_workload import build_workload
from kvplan.sim.config import ConfigError, load
from kvplan.sim.deployment import resolve
from kvplan.sim.planner import bounds, confirmed, headroom, probe, surely
from kvplan.sim.planner import load as of_load
from kvplan.sim.planner.binding import shares
from kvplan.sim.planner.filling import Filling
from kvplan.sim.planner.flags import Sizes, flags, warnings
from kvplan.sim.planner.plan import plan
from kvplan.sim.planner.question import NO_STORE, Question, options
from kvplan.sim.planner.search import Fewest
from kvplan.sim.report.plan import data, title
from kvplan.sim.report.plan_words import _tied, said
from kvplan.sim.simulation import simulate
from kvplan.sim.sweep.axes import Axis
from kvplan.sim.sweep.runs import replicated
from kvplan.traces.context import contexts
from kvplan.traces.workload import Blocks

SMALL = (
    "engine=vllm",
    "model=llama-3.1-8b",
    "hardware=h100-80g-x1",
    "prices=rent-2026",
    "deployment.max_batch=64",
    "deployment.hbm_utilization=0.3",
    "deployment.window_tokens=8192",
    "workload.think_time.median_s=20",
    "slo.ttft_p95_s=0.12",
    "store.unit=block",
)
BARE = ("store.dram=0GB", "store.ssd=0GB")
APPLICATIONS = ("workload.kind=synthetic", "workload.applications.count=3", "workload.sessions=60")


@pytest.fixture(scope="module")
def found():
    with pytest.MonkeyPatch.context() as patched:
        for place, name in ((confirmed, "RUNS"), (headroom, "ROUNDS"), (surely, "STEPS")):
            patched.setattr(place, name, 1)
        patched.setattr(of_load, "_POPULATION", 300)
        return plan(Question("default", SMALL, 1.0, (Axis.parse("store.dram+store.ssd=16GB+0GB"),), 8, 100, 80, 1))


def test_a_plan_of_servers_of_blocks(found):
    recompute, pool, dram = found.answers
    assert [each.option.label for each in found.answers[:2]] == ["recompute", "prefix cache in HBM"] and found.of_blocks
    assert not recompute.deployment.tiers and recompute.config.store.unit == "session" and "empty server" in recompute.found.reason
    assert list(pool.deployment.sizes) == ["hbm"] and list(dram.deployment.sizes) == ["hbm", "dram"]
    assert dram.replicas < pool.replicas and found.cheapest is dram
    assert dram.cost_usd_per_month < pool.cost_usd_per_month == pytest.approx(sum(pool.usd_per_month.values()) * pool.replicas)
    assert "served as by vllm in blocks" in title(found)
    assert 0 < shares(pool)["HBM"] < 1 and pool.figure("hbm.running_bytes") < pool.deployment.hbm_budget


def test_the_pool_is_that_of_a_simulation(found):
    """Of the same configuration, which somebody writes who knows nothing of plans."""
    answer = found.answers[1]
    config = load("default", [*SMALL, *BARE, "deployment.replicas=1"])
    assert config.store.hbm == "0GB" and answer.config.store == config.store
    alone = of_load.share(config, of_load.own_rate(config, found.workload), 1.0 / answer.replicas, 80)
    workload = build_workload(replicated(alone, 0, None))
    summary = simulate(replicated(alone, 0, None).model_copy(update={"warmup_turns": workload.turns - 100}), workload).summary
    figures = answer.seen[0].figures
    assert figures["turns"] == 100 and figures["ttft_s.p95"] == summary["ttft_s"]["p95"]
    assert figures["token_hits.hbm"] == summary["token_hits"]["hbm"] > 0


def test_a_pool_is_free_and_comes_before_keeping_nothing(found):
    recompute, pool, dram = found.answers
    one = Fewest(1, ())
    answers = tuple(replace(each, found=one, usd_per_month={"gpu": 100.0}) for each in (recompute, dram, pool))
    even = replace(found, answers=answers)
    assert even.cheapest.option is pool.option
    assert pool.deployment.aside == 0 and dram.deployment.aside == dram.deployment.sizes["dram"]
    assert any("recompute cannot be told apart in cost; the first is no dearer" in each for each in _tied(even, even.cheapest))


def test_the_account_says_what_is_in_blocks(found):
    account = data(found)
    assert account["engine"]["otherwise"]["store.unit"] == account["settings"]["store"]["unit"] == "block"
    assert account["options"][0]["settings"]["store.unit"] == "session"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (("store.hbm=2GB",), "bounds what a pool of blocks keeps"),
        (("store.mode=kvcache-simulator",), "store.mode=kvcache-simulator"),
        (("store.save=sync",), "store.save=sync"),
    ],
)
def test_what_a_plan_of_blocks_refuses_before_it_simulates(settings, message):
    with pytest.raises(ConfigError, match=message):
        plan(Question("default", (*SMALL, *settings), 1.0), progress=lambda done, sent: pytest.fail("simulates"))


def test_options_of_blocks_are_sizes_below_the_pool():
    recompute, pool, *offered = options(Question("default", SMALL, 1.0))
    assert dict(pool.settings) == NO_STORE and dict(recompute.settings) == {**NO_STORE, "store.unit": "session"}
    assert offered and all(dict(each.settings)["store.hbm"] == "0GB" for each in offered)

    assert not any("store.ssd_drives" in dict(each.settings) for each in offered), "its two GPUs of four have the node's one drive"


@pytest.mark.parametrize(
    ("settings", "ssd", "drives"),
    [
        ((), "7.68TB", None),  # all eight GPUs: a quarter of eight drives of 3.84 TB
        (("deployment.gpus=4",), "3.84TB", "4"),
        (("deployment.gpus=1",), "960GB", "1"),
        (("deployment.gpus=1", "store.ssd_drives=2"), "1.92TB", None),
    ],
)
def test_a_part_of_a_nodes_gpus_is_offered_that_part_of_its_drives(settings, ssd, drives):
    """Their bandwidth and endurance as well, for replicas beside this one use the others; unless somebody says how many."""
    offered = [dict(each.settings) for each in options(Question("chat-2026", ("model=llama-3.1-8b", *settings), 1.0))]
    assert [(each["store.ssd"], each.get("store.ssd_drives")) for each in offered] == [("0GB", None), ("0GB", None)] + [
        ("0GB", None),
        (ssd, drives),
    ] * 2


# --- bounds -----------------------------------------------------------------------------------------------------------------------


def applications(*settings):
    config = load("default", [*SMALL, *APPLICATIONS, "store.dram=64GB", "store.ssd=0GB", *settings])
    workload = build_workload(config)
    return config, resolve(config, workload), workload


def filled_s(config, workload):
    return Filling(config, resolve(config, workload), workload).seconds(1.0)


def test_no_server_of_blocks_spares_more_than_the_bound():
    config, deployment, workload = applications()
    history, prompt, _ = contexts(workload, deployment.window, config.deployment.truncation_ratio)
    most = bounds._spared(deployment, workload, history, history + prompt)
    had = simulate(config, workload).columns["cached_tokens"]
    assert (had <= most).all() and (had > history).any(), "and more than their own history"


def test_what_sessions_share_needs_fewer_replicas_and_less_room():
    config, deployment, workload = applications()
    alone = replace(workload, beginnings=None)
    assert bounds.least_replicas(config, deployment, workload, 200.0) < bounds.least_replicas(config, deployment, alone, 200.0)
    assert filled_s(config, workload) > filled_s(config, alone)
    assert bounds.unloaded(config, deployment, workload, hits()) > bounds.unloaded(config, deployment, alone, hits())


def test_of_whole_sessions_nothing_is_shared():
    config, deployment, workload = applications("store.unit=session")
    alone = replace(workload, beginnings=None)
    assert bounds.least_replicas(config, deployment, workload, 200.0) == bounds.least_replicas(config, deployment, alone, 200.0)
    assert filled_s(config, workload) == filled_s(config, alone)


def test_hashes_may_be_those_of_all_of_a_prompt_but_a_token():
    config, deployment, workload = applications()
    first = np.arange(workload.turns + 1)
    hashed = replace(workload, beginnings=None, blocks=Blocks(16, first, np.arange(workload.turns)))
    history, prompt, _ = contexts(workload, deployment.window, config.deployment.truncation_ratio)
    assert bounds.unloaded(config, deployment, hashed, hits()) == pytest.approx(1 - workload.turns / (history + prompt).sum())


def test_what_hashes_share_is_said_to_be_left_out(found):
    workload = found.workload
    hashed = replace(workload, blocks=Blocks(16, np.arange(workload.turns + 1), np.arange(workload.turns)))
    assert not any("hashes" in each or "set aside" in each for each in said(found))
    assert any("block hashes are left out" in each for each in said(replace(found, workload=hashed)))


def hits():
    (objective,) = Question("default", (*SMALL[:-2], "slo.hit_rate=0.5")).objectives
    return objective


# --- flags ------------------------------------------------------------------------------------------------------------------------


def test_flags_of_a_pool_count_its_hbm_once(found):
    recompute, pool, dram = found.answers
    assert pool.sizes.hbm == pool.deployment.hbm_budget == recompute.sizes.hbm
    (line,) = flags(pool.sizes)[0].lines
    assert line.text == "--enable-prefix-caching" and "running requests leave" in flags(pool.sizes)[0].notes[-1]
    assert flags(dram.sizes)[0].lines[0].text == "--kv-offloading-backend native --kv-offloading-size 14.90"
    assert any("vLLM's pool" in each for each in warnings(dram.sizes))
    assert not any("add up" in each for each in warnings(Sizes(8 * 10**9, 0, 1, hbm=10**10, pooled=True)))
    assert not any("vLLM's pool" in each for each in warnings(recompute.sizes))


@pytest.mark.parametrize(("unit", "before"), [("block", 300), ("session", 0)])
def test_turns_that_only_fill_the_tiers_take_no_time_in_a_look(unit, before, monkeypatch):
    monkeypatch.setattr(probe, "_WARM_TURNS", 200)
    asked = []
    monkeypatch.setattr(probe, "simulate", lambda *given, passing, **named: asked.append(passing) or simulate(*given, **named))
    config = load(
        None, [*SMALL, *BARE, f"store.unit={unit}", "workload.sessions=140", "workload.arrival.rate_per_s=0.2", "workload.steady=true"]
    )
    turns = build_workload(config).turns
    probe.look(probe.Probe(config, Question(config).objectives, turns - 500, to_the_end=True))
    assert turns > 600 and asked == [before]
