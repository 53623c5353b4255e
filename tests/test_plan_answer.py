"""What a plan says beyond the number of replicas: intervals, headroom, what binds, regret, misses, contradictions, money."""

import json
from dataclasses import replace

import numpy as np
import pytest
from typer.testing import CliRunner

from kvplan.hwmodels import catalogue
from kvplan.sim import config
from kvplan.sim.build_workload import build_workload
from kvplan.sim.cli.app import app
from kvplan.sim.config import ConfigError, Slo
from kvplan.sim.counted import counted
from kvplan.sim.deployment import resolve
from kvplan.sim.planner import bounds, doubt
from kvplan.sim.planner.binding import binding, shares
from kvplan.sim.planner.miss import nearest
from kvplan.sim.planner.money import Demand, Wear, demand, keeping, paying_load, unit_costs, wear
from kvplan.sim.planner.objective import Objective, Sample, objectives
from kvplan.sim.planner.plan import plan
from kvplan.sim.planner.probe import Seen
from kvplan.sim.planner.question import Question, options
from kvplan.sim.planner.regret import pareto, regrets, ties
from kvplan.sim.planner.search import Fewest, judged
from kvplan.sim.provided import extras
from kvplan.sim.report import plan as report
from kvplan.sim.report import rundir
from kvplan.sim.report.plan_account import account
from kvplan.sim.report.plan_words import said
from kvplan.sim.sweep.axes import Axis

P95 = Objective("ttft", "p95", 0.5)
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


@pytest.fixture(scope="module")
def found():
    return plan(Question("default", SMALL, 4.0, (Axis.parse("store.dram+store.ssd=16GB+0GB,64GB+0GB"),), 48, 400, 300, 2))


@pytest.fixture(scope="module")
def bare():
    """A plan that needs no simulation: no server is fast enough."""
    return plan(Question("default", (*SMALL, "slo.ttft_p95_s=0.001"), 4.0, measured_turns=500))


def point(replicas, share, spread=0.0):
    """A number of replicas at which this share of the turns is in time, with batches around it."""
    swing = np.where(np.arange(20) % 2, spread, -spread)
    batches = np.stack([100 * (share + swing), np.full(20, 100.0)], axis=1)
    figures = {"ttft_s.p95": 0.1 * (2 - share), "hit_rate.tokens": 0.5}
    return judged((P95,), replicas, [Seen((Sample(batches, np.zeros((2, 2)), 2000, 0.1),), figures, ttft_s=(0.1 * (2 - share),))])


def answered(answer, replicas, *points, usd=100.0):
    """The same option with another outcome."""
    return replace(answer, found=Fewest(replicas, points), usd_per_month={"gpu": usd, "dram": 0.0, "ssd": 0.0}, borne=None)


# --- money ------------------------------------------------------------------------------------------------------------------------


def test_a_rented_plan_by_hand_to_the_cent(found):
    """H100s at 3.50 $/h; 64 GB are within the 256 GiB that come with one."""
    best = account(found)["options"][-1]
    month = best["gpus"] * 3.5 * 730
    assert round(best["usd"]["per_month"], 2) == round(month, 2)
    assert round(best["usd"]["over_horizon"], 2) == round(month * 36, 2)
    assert best["usd"]["per_session"] == pytest.approx(month / (730 * 3600) / 4.0)
    per_million = month / (730 * 3600) / (4.0 * found.demand.input_tokens_per_session) * 1e6
    assert best["usd"]["per_million_input_tokens"] == pytest.approx(per_million)


def test_demand_is_that_of_the_population():
    loaded = config.load("default", SMALL)
    workload = build_workload(loaded.model_copy(update={"workload": loaded.workload.model_copy(update={"steady": False, "sessions": 300})}))
    asked = demand(loaded, resolve(loaded), workload, 2.0)
    assert asked.turns_per_session == workload.turns / 300
    assert asked.output_tokens_per_session == pytest.approx(workload.output_tokens.sum() / 300)
    steps = resolve(loaded).steps
    assert 0.5 < asked.reuse < 1 and asked.prefill_s_per_history_token < 1.2 * (steps.per_token + steps.per_pair * 32_768)


def test_bought_drives_that_wear_out_are_bought_again_and_rented_ones_are_the_landlords():
    """One PM9A3 of 3.84 TB and 1 DWPD over 5 years; 7.68 TB a day, with a write amplification of 2, are 4 times its rating."""
    settings = ["hardware=l40s-x4", "store.ssd=3TB", "store.ssd_drives=1", "cost.write_amplification=2", "cost.horizon_years=3"]
    bought, rented = (config.load("default", [*SMALL[:1], *settings, f"prices={prices}"]) for prices in ("buy-2026", "rent-2026"))
    deployment = resolve(bought)
    day = deployment.drive_bytes * deployment.ssd.rated_dwpd.value
    found = wear(bought, deployment, 2 * day)
    assert found.years == pytest.approx(5 / 4) and found.too_short and found.replacements == 2
    assert not wear(rented, resolve(rented), 2 * day).too_short
    assert not wear(bought, deployment, day / 4).too_short and wear(bought, deployment, 0.0).years is None
    bare = config.load("default", [*SMALL, "store.ssd=0GB"])
    assert wear(bare, resolve(bare), day) is None


def test_keeping_by_hand():
    """Llama-3.1-8B keeps 131,072 B a token; DRAM at 0.0034 $/GiB/h."""
    loaded = config.load("default", SMALL)
    found = keeping(resolve(loaded), Demand(1.0, 1.0, 1.0, 1.0, 0.5, 1e-5))
    assert found["dram_usd_per_mtok_h"] == pytest.approx(131_072e6 / 2**30 * 0.0034)
    assert found["recompute_usd_per_mtok"] == pytest.approx(10 / 3600 * 3.5)
    assert found["dram_break_even_h"] == pytest.approx(10 / 3600 * 3.5 / (131_072e6 / 2**30 * 0.0034))


def test_a_store_pays_from_the_load_at_which_it_saves_a_whole_replica():
    assert paying_load((3.0, 11.0), (1.0, 10.0)) == 1.0
    found = paying_load((1.5, 14.0), (1.0, 10.0))
    loads = np.arange(0.01, 60, 0.02)
    pays = np.ceil(loads) * 10 > np.ceil(loads / 1.5) * 14
    assert found == pytest.approx(loads[np.flatnonzero(~pays)[-1] + 1], abs=0.02) and pays[loads > found].all()
    assert unit_costs(2_628_000.0, Demand(1.0, 1, 1e6, 1e5, 0, 0), 1.0)["per_million_output_tokens"] == pytest.approx(10.0)


# --- how sure it is ---------------------------------------------------------------------------------------------------------------


def test_the_replicas_that_the_intervals_allow(found):
    any_answer = found.answers[-1]
    sure = answered(any_answer, 5, point(4, 0.5), point(5, 0.99))
    assert doubt.replicas(sure).data == {"value": 5, "low": 5, "high": 5}
    vague = answered(any_answer, 5, point(3, 0.5), point(4, 0.949, 0.05), point(5, 0.951, 0.05), point(7, 0.99))
    assert doubt.replicas(vague).data == {"value": 5, "low": 4, "high": 7}
    open_ended = answered(any_answer, 5, point(4, 0.5), point(5, 0.951, 0.05))
    assert doubt.replicas(open_ended).data == {"value": 5, "low": 5, "high": None}
    assert doubt.saved(vague, answered(any_answer, 9, point(8, 0.5), point(9, 0.99))) == {"value": 4, "low": 2, "high": 5}
    assert doubt.saved(sure, open_ended) == {"value": 0, "low": 0, "high": None}


def test_what_surely_holds_is_named_with_its_price_where_the_answer_may_not(found):
    best = found.cheapest
    vague = answered(best, 5, point(4, 0.5), point(5, 0.951, 0.05), point(7, 0.99), usd=100.0)
    sure = answered(best, 5, point(4, 0.5), point(5, 0.99), usd=100.0)
    holds = [report.finding(replace(found, answers=(each,)))[1] for each in (vague, sure)]
    assert holds[0].endswith(f", and with 7 replicas surely: {7 * best.gpus} GPUs, $700 a month.") and "surely" not in holds[1]


def test_the_probability_is_that_of_the_interval(found):
    assert doubt.probability(point(5, 0.95, 0.05)) == pytest.approx(0.5)
    assert doubt.probability(point(5, 0.99)) == 1.0
    near = point(5, 0.97, 0.05).judgements[0]
    assert near.lead == pytest.approx(0.02) and 0.5 < doubt.probability(point(5, 0.97, 0.05)) < 1
    assert doubt.probability(None) is None


def test_what_cannot_be_told_apart_is_said_and_the_cheaper_taken(found):
    small, large = found.answers[-2], found.answers[-1]
    one = answered(small, 5, point(4, 0.949, 0.05), point(5, 0.99), usd=100)
    other = answered(large, 5, point(3, 0.5), point(4, 0.949, 0.05), point(5, 0.99), usd=110)
    told = answered(large, 4, point(3, 0.5), point(4, 0.99), usd=200)
    pair = replace(found, answers=(found.answers[0], found.answers[1], one, other))
    assert pair.cheapest is one and ties(pair) == [other] and ties(replace(pair, answers=(one, told))) == []
    assert any("cannot be told apart in cost; the first is cheaper" in each for each in said(pair))
    same = replace(pair, answers=(answered(large, 5, point(4, 0.5), point(5, 0.99)), answered(small, 5, point(4, 0.5), point(5, 0.99))))
    assert same.cheapest.option is small.option, "of equals the smaller store"
    assert any(each.endswith("in cost; the first is smaller.") for each in said(same))
    faster = replace(same, answers=(same.answers[1], answered(large, 5, point(4, 0.5), point(5, 0.999))))
    assert faster.cheapest.option is small.option
    words = "in cost; the first is smaller, the second faster for the same dollars (TTFT p95 100 ms for 101 ms)."
    assert any(each.endswith(words) for each in said(faster)), "DRAM that comes with the rent is not for nothing"
    again = point(5, 0.999).seen + point(5, 0.98).seen
    luck = replace(
        faster,
        answers=tuple(
            answered(each, 5, point(4, 0.5), judged((P95,), 5, runs)) for each, runs in ((small, point(5, 0.99).seen * 2), (large, again))
        ),
    )
    assert any(each.endswith("the first is smaller.") for each in said(luck)), "faster in one of two runs is luck"


# --- the answer -------------------------------------------------------------------------------------------------------------------


def test_the_account_agrees_with_the_plan(found):
    data = json.loads(rundir.dumps(report.data(found)))
    best, (hbm,) = data["options"][-1], [each for each in data["options"] if each["option"] == "prefix cache in HBM"]
    assert data["cheapest"] == found.cheapest.option.label == best["option"]
    assert best["gpus_saved"]["prefix cache in HBM"]["value"] == hbm["gpus"] - best["gpus"]
    assert best["gpus_saved"]["recompute"] is None, "which cannot"
    assert best["usd_saved_per_month"]["prefix cache in HBM"] == pytest.approx(hbm["usd_per_month"] - best["usd_per_month"])
    assert [each["option"] for each in data["pareto"]] == [each.answer.option.label for each in pareto(found)]
    assert (data["pareto"][0]["option"], data["pareto"][0]["replicas"]) == (data["cheapest"], best["replicas"])
    assert [each["replicas"] for each in best["points"]] == [each.replicas for each in found.cheapest.found.points]
    assert best["judgements"][0]["meets"] in (True, None) and 0.5 <= best["probability"] <= 1


def test_gpus_saved_are_printed_with_what_is_known_of_them():
    assert [report._span(*ends) for ends in ((5, 9), (5, None), (None, 9))] == ["5 to 9", "5 or more", "9 or fewer"]


def test_headroom_lies_between_the_answer_and_one_replica_less(found):
    low, high = found.cheapest.headroom
    below = [each.replicas for each in found.cheapest.found.points if each.replicas < found.cheapest.replicas]
    assert found.cheapest.borne is not None and low >= 1 and (high is None or low < high)
    assert not below or high <= found.cheapest.replicas / max(below)
    assert f"; in a single run they bear {low:.3f} times the load" in report.finding(found)[1], "and what stands beside it is of eight"


def test_the_binding_resource_is_the_one_most_used(found):
    used = shares(found.cheapest)
    assert all(0 <= share <= 1.05 for share in used.values())
    assert used["prefill"] + used["decode"] + used["stalls"] == pytest.approx(found.cheapest.figure("gpu.utilization"), rel=0.02)
    assert binding(found.cheapest) == "decode" and shares(found.answers[0]) == {} and binding(found.answers[0]) is None


def test_regret_is_the_difference_to_the_next_size(found):
    (smaller,) = regrets(found)
    other = found.answers[-2]
    assert (smaller["path"], smaller["step"], smaller["option"]) == ("store.dram", "smaller", other.option.label)
    assert smaller["usd_per_month_more"] == other.cost_usd_per_month - found.cheapest.cost_usd_per_month > 0


def test_in_words_when_caching_does_not_help(found):
    baseline = answered(found.answers[1], 3, point(2, 0.5), point(3, 0.99), usd=50)
    stores = [answered(each, 3, point(2, 0.5), point(3, 0.99), usd=100) for each in found.answers[2:]]
    words = said(replace(found, answers=(baseline, *stores), demand=replace(found.demand, reuse=0.1)))
    assert words[0] == "DRAM and SSD do not pay here: only 10% of the tokens to prefill are history."
    alone = answered(found.cheapest, 1, point(1, 0.99), usd=50)
    alone = replace(alone, option=replace(alone.option, baseline=True))
    words = said(replace(found, answers=(alone, *stores)))
    assert words[0] == "DRAM and SSD do not pay here: one replica meets it without them.", "where nothing is short"
    assert not any("set aside" in each for each in words) and any("set aside" in each for each in said(found)), "of what is compared"


def test_a_store_that_surely_meets_it_for_the_same_dollars_is_said_to(found):
    """The cheapest is the smaller, and may meet it or not."""
    vague = answered(found.answers[1], 1, point(1, 0.951, 0.02), usd=100)
    store = answered(found.answers[-1], 1, point(1, 0.99), usd=100)
    assert vague.point.meets is None and store.point.meets
    words = said(replace(found, answers=(vague, store)))
    assert words[0].endswith("faster for the same dollars (TTFT p95 101 ms for 105 ms) and surely enough.")
    assert not any("do not pay" in each for each in words)
    dearer = answered(found.answers[-1], 1, point(1, 0.99), usd=130)
    words = said(replace(found, answers=(vague, dearer)))
    assert words[0].startswith("DRAM and SSD do not pay here: it takes as many replicas") and not any(
        "surely enough" in each for each in words
    )


def test_one_of_a_thing_is_no_plural(found):
    one = answered(found.cheapest, 1, point(1, 0.99), usd=50)
    assert "1 replica, 1 GPU, $" in report.finding(replace(found, answers=(one,)))[0]
    assert [counted(1, "turn"), counted(1200, "turn"), counted(-1, "GPU", "+d"), counted(0, "run")] == [
        "1 turn",
        "1,200 turns",
        "-1 GPU",
        "0 runs",
    ]


def test_blocks_are_advised_only_where_servers_of_blocks_are_simulated(found):
    windowed = replace(found.cheapest, deployment=resolve(config.load("default", [*SMALL, "model=gpt-oss-20b"])))
    words = [each for answer in (found.cheapest, windowed) for each in said(replace(found, answers=(answer,))) if "set aside" in each]
    assert ["store.unit=block" in each for each in words] == [True, False]


@pytest.mark.parametrize("setting", [{"save": "sync"}, {"hbm": "20GB"}])
def test_blocks_are_not_advised_where_a_setting_refuses_them(found, setting):
    best = found.cheapest
    asked = best.config.model_copy(update={"store": best.config.store.model_copy(update=setting)})
    (words,) = (each for each in said(replace(found, answers=(replace(best, config=asked),))) if "set aside" in each)
    assert words.endswith("may need fewer GPUs.")


def test_in_words_what_a_plan_cannot_judge(found):
    best = found.cheapest
    (seen, *_) = best.point.seen
    vague = replace(seen, unsteady=("dram",), warnings=("step times are extrapolated beyond what was measured: batch 99",))
    config = best.config.model_copy(update={"store": best.config.store.model_copy(update={"ttl_s": 1e6})})
    changed = replace(best, config=config, found=Fewest(best.replicas, (replace(best.point, seen=(vague,)),)))
    words = said(replace(found, answers=(changed,)))
    assert "DRAM never filled in these runs: they cannot judge its size." in words
    assert any(each.startswith("Step times are extrapolated") for each in words)
    assert any("less than the TTL of 11.6 days: what expires was not seen" in each for each in words)


def test_what_runs_warn_of_with_other_figures_is_said_once(found):
    best, longer = found.cheapest, "turns longer than the window of 4096 tokens, cut to it: "
    texts = [(longer + "74", "step times are extrapolated: batch 99"), (longer + "65", "step times are extrapolated: batch 98")]
    seen = tuple(replace(each, warnings=pair) for each, pair in zip(best.point.seen, texts, strict=False))
    changed = replace(found, answers=(replace(best, found=Fewest(best.replicas, (replace(best.point, seen=seen),))),))
    assert len(seen) == 2 and account(changed)["options"][0]["warnings"] == list(texts[0])
    assert [each for each in said(changed) if "extrapolated" in each] == ["Step times are extrapolated: batch 99."]


def test_in_words_what_is_doubtful_of_the_turns_and_what_is_set_in_vain(found):
    asked = config.load("default", [*SMALL, "deployment.replicas=1"])
    ours = {"format": "mooncake", "doubtful_times": "90 requests come in 0.07 s", "shared_by_sessions": 0.3}
    few = replace(build_workload(config.load("default", ["workload.sessions=90"])), origin=ours)
    traced = asked.model_copy(update={"workload": asked.workload.model_copy(update={"trace": "t.jsonl"})})
    question = replace(found.question, overrides=(*SMALL, "deployment.replicas=4", "workload.sessions=7", "store.dram=9GB"))
    words = said(replace(found, workload=few, config=traced, question=question))
    assert "The trace has 90 sessions, which the runs draw again and again: how much others differ is not seen." in words
    assert any(text.startswith("The times may be in another unit: 90 requests come in 0.07 s") for text in words)
    assert any("begin a session like an earlier one of another" in text for text in words)
    assert words[-1] == "Set, but nothing here reads it: deployment.replicas, workload.sessions."
    bare = replace(question, axes=())
    assert said(replace(found, question=bare))[-1].endswith("deployment.replicas, workload.sessions, store.dram.")
    assert not [text for text in said(found) if "trace" in text or "nothing here reads" in text]


def test_in_words_what_more_money_buys_and_what_the_rent_lacks(found):
    cheap, fast = (
        answered(each, 5, point(4, 0.5), point(5, share), usd=usd)
        for each, share, usd in zip(found.answers[-2:], (0.96, 0.99), (100, 150), strict=True)
    )
    assert "Faster for $250 more a month: 5 replicas of dram 64GB+ssd 0GB, TTFT p95 101 ms." in said(replace(found, answers=(cheap, fast)))
    more = answered(cheap, 5, point(4, 0.5), point(5, 0.96), point(6, 0.999), usd=100)
    dear = replace(found, answers=(more, fast))
    assert [text for text in said(dear) if text.startswith("Faster")] == [
        "Faster for $100 more a month: 6 replicas of dram 16GB+ssd 0GB, TTFT p95 100 ms."
    ], "the same store once more is cheaper and faster than the other one"
    assert [(each.answer, each.replicas) for each in pareto(dear)] == [(more, 5), (more, 6)]
    far = replace(found, answers=(cheap, replace(fast, usd_per_month={"gpu": 201.0, "dram": 0.0, "ssd": 0.0})))
    assert len(pareto(far)) == 2 and not any(text.startswith("Faster") for text in said(far)), "at more than twice the cost"
    large = replace(cheap, deployment=resolve(config.load("default", [*SMALL, "store.ssd=10TB"])))
    assert any("is more than the 3.84 TB that come with" in each for each in said(replace(found, answers=(large,))))


@pytest.mark.parametrize(
    ("mode", "advice"),
    [
        ("lmcache", "GPUs: store.unit=block plans"),
        ("sglang", "GPUs: store.unit=block plans"),
        ("kvcache-simulator", "GPUs: store.mode=vllm with store.unit=block plans"),
    ],
)
def test_the_advice_to_plan_with_blocks_is_one_that_runs(found, mode, advice):
    best = found.cheapest
    asked = best.config.model_copy(update={"store": best.config.store.model_copy(update={"mode": mode})})
    assert any(advice in each for each in said(replace(found, answers=(replace(best, config=asked),))))


def test_how_much_the_rent_lacks_is_said_where_two_sizes_read_alike(found):
    large = replace(
        found.cheapest,
        deployment=resolve(config.load("default", ["hardware=h100-80g-x8", "deployment.gpus=8", "prices=rent-2026", "store.dram=2.2TB"])),
    )
    (note,) = (each for each in said(replace(found, answers=(large,))) if "that come with" in each)
    assert note.startswith("store.dram (2.2 TB) is more than the 2.2 TB that come with 8 rented h100-80g: the rest, 977 MB, is charged")


def test_paid_by_the_busy_hour_on_request():
    asked = Question("default", (*SMALL, "cost.gpu_hours=busy"), 2.0, (Axis.parse("store.dram+store.ssd=64GB+0GB"),), 48, 300, 200, 2)
    best = plan(asked).answers[-1]
    assert best.usd_per_month["gpu"] == pytest.approx(best.figure("gpu.utilization") * 3.5 * 730)


@pytest.mark.parametrize(("fate", "words"), [("replace", "bought 2 more times, which is in its cost"), ("refuse", "ruled out")])
def test_in_words_what_becomes_of_worn_drives(found, fate, words):
    settings = found.cheapest.config.cost.model_copy(update={"worn_drives": fate})
    worn = replace(found.cheapest, wear=Wear(4.0, 1.0, 1.25, True, 3.0), config=found.cheapest.config.model_copy(update={"cost": settings}))
    ruled = replace(worn, found=replace(worn.found, replicas=None)) if fate == "refuse" else worn
    assert any(words in each for each in said(replace(found, answers=(*found.answers[:-1], ruled, found.answers[-2]))))
    assert shares(worn)["SSD wear"] == pytest.approx(2.4)
    assert binding(worn) == ("decode" if fate == "replace" else "SSD wear")


# --- no plan, and questions that contradict themselves ------------------------------------------------------------------------------


def test_the_nearest_miss_and_what_it_lacks(bare):
    miss = nearest(bare)
    best = min(answer.unloaded[0] for answer in bare.answers)
    assert miss.value == best and miss.replicas is None and miss.off == pytest.approx(best / 0.001) and "too long" in miss.lacks
    assert said(bare)[0].startswith("No store and no number of replicas can meet it: TTFT p95 within 1 ms")
    assert account(bare)["nearest_miss"]["option"] == miss.option
    measured = replace(bare, answers=tuple(answered(each, None, point(64, 0.5)) for each in bare.answers[:1]))
    assert nearest(measured).replicas == 64


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        ({"ttft_p50_s": 1.0, "ttft_p95_s": 0.5}, r"ttft_p50_s \(1 s\) is longer than slo.ttft_p95_s \(500 ms\)"),
        ({"tpot_p95_s": 1.0, "tpot_p99_s": 0.5}, "contradictory objectives: slo.tpot_p95_s"),
        ({"ttft_p95_s": 2.0, "e2e_p95_s": 1.0}, "contradictory objectives: slo.ttft_p95_s"),
    ],
)
def test_contradictory_objectives_are_named(limits, words):
    with pytest.raises(ConfigError, match=words):
        objectives(Slo(**limits))


@pytest.mark.parametrize(
    ("objective", "reason"),
    [
        (Objective("tpot", "p95", 1e-4), "an empty server already takes"),
        (Objective("e2e", "mean", 0.01), "an empty server already takes"),
        (Objective("hit_rate", "mean", 0.999), "at best, if everything is kept"),
        (Objective("goodput", "share", 0.9, (("ttft", 1e-4),)), "0.0% at best"),
        (Objective("ttft", "p95", 60.0), None),
        (Objective("hit_rate", "mean", 0.1), None),
    ],
)
def test_what_no_number_of_replicas_can_do(objective, reason):
    loaded = config.load("default", [*SMALL, "workload.steady=false", "workload.sessions=200"])
    found = bounds.out_of_reach(objective, bounds.unloaded(loaded, resolve(loaded), build_workload(loaded), objective))
    assert found is None if reason is None else reason in found


def test_the_command_names_the_horizon_and_the_miss():
    options = ["default", *(part for each in SMALL for part in ("--set", each)), "--jobs", "1"]
    done = CliRunner().invoke(app, ["plan", *options, "--ttft-p95", "1ms", "--horizon", "18mo", "--json"])
    assert done.exit_code == 3 and json.loads(done.stdout)["horizon_years"] == 1.5
    assert CliRunner().invoke(app, ["plan", *options, "--horizon", "soon"]).exit_code == 2
    assert CliRunner().invoke(app, ["plan", *options, "--set", "slo.ttft_p50_s=1"]).exit_code == 2


_RENTED = [node for node in catalogue.names("node") if catalogue.load("node", node).gpu in catalogue.load("prices", "rent-2026").gpus]


@pytest.mark.parametrize("node", _RENTED)
def test_no_size_that_is_tried_is_more_than_what_comes_with_the_rent(node):
    asked = Question("default", (f"hardware={node}", "prices=rent-2026"), 4.0)
    for option in options(asked):
        deployment = resolve(asked.config(option))
        assert not [text for text in extras(deployment) if "that come with" in text or "comes with" in text]
